"""From a document in JSON or YAML to a `Campaign`, or to what is wrong with it and where.

Belongs here: reading and showing. The parts of a campaign are `campaign`'s.
"""

from typing import Any

from feature_repo.audiences.language import check_document
from services.campaigns.campaign import Campaign


def read(document: Any) -> Campaign:
    """Return the campaign that a parsed JSON or YAML document describes.

    Raises
    ------
    InvalidRuleError
        Whose ``errors`` point at everything that is wrong.

    Examples
    --------
    >>> read({
    ...     "audience": "regulars", "offer": {"id": "tea-5"}, "channel": "email",
    ...     "window": {"from": "2026-01-01", "until": "2026-02-01"},
    ... }).control.holdout
    0.1
    """
    return check_document(Campaign, document)


def to_document(campaign: Campaign) -> dict[str, Any]:
    """Return a campaign as a JSON document, defaults included; `read` of it gives the same."""
    return campaign.model_dump(mode="json", by_alias=True)


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a campaign."""
    return Campaign.model_json_schema(by_alias=True)
