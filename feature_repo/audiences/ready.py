"""Ready audiences: definitions that every shop has, in the same language as its own.

Belongs here: RFM quintiles and cells, lifecycle stages, price tiers, interests, clusters and
lapse risk as rules. They ask for no consent, so none of them is to be contacted as it stands:
name one under ``audience`` in a definition that does. Names begin with `PREFIX`.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any, Final

from feature_repo.audiences.rules import Definition
from feature_repo.audiences.traits import TRAITS
from feature_repo.profile_views.metrics import rfm_segment

PREFIX: Final = "ready-"
LAPSE_SHARE: Final = 20
"""Percent of the users with the highest propensity of no purchase."""

_FIFTHS: Final = range(1, 6)
_LONGEST_TITLE: Final = 200
_STAGES: Final = TRAITS["lifecycle.stage"].values
_TIERS: Final[dict[str, dict[str, Any]]] = {
    "premium": {"score": {"name": "price_level", "top": 25}},
    "middle": {"all": [
        {"score": {"name": "price_level", "top": 75}},
        {"not": {"score": {"name": "price_level", "top": 25}}},
    ]},
    "budget": {"all": [
        {"score": {"name": "price_level", "gte": 0}},
        {"not": {"score": {"name": "price_level", "top": 75}}},
    ]},
}  # fmt: skip


def ready(
    categories: Iterable[str] = (), clusters: Mapping[int, str] | None = None
) -> dict[str, Definition]:
    """Return the ready audiences by name.

    Parameters
    ----------
    categories
        Those of whom the interested are to be an audience each.
    clusters
        What sets each cluster apart, by its number.

    Examples
    --------
    >>> ready(["Food/Tea"])["ready-interest-food-tea"].title
    'Interested in Food/Tea'
    """
    made = dict[str, tuple[str, dict[str, Any]]]()
    for figure, fifth in product(("recency", "frequency", "monetary"), _FIFTHS):
        rule = _trait(f"rfm_{figure}_quintile", eq=fifth)
        made[f"{figure}-{fifth}"] = f"RFM {figure}: fifth {fifth} (5 best)", rule
    for cell, rules in _cells().items():
        made[f"rfm-{_slug(cell)}"] = f"RFM: {cell.replace('_', ' ')}", {"any": rules}
    for stage in _STAGES:
        rule = _trait("lifecycle.stage", eq=stage)
        made[f"lifecycle-{_slug(stage)}"] = f"Lifecycle: {stage.replace('_', ' ')}", rule
    for tier, rule in _TIERS.items():
        made[f"price-{tier}"] = f"Price tier: {tier}", rule
    for category in categories:
        rule = _trait("interest_categories", contains=[category])
        made.setdefault(f"interest-{_slug(category)}", (f"Interested in {category}", rule))
    for number, words in (clusters or {}).items():
        rule = _trait("cluster", eq=number)
        made[f"cluster-{number}"] = (f"Cluster {number}: {words}"[:_LONGEST_TITLE], rule)
    made["lapse-risk"] = (
        f"Lapse risk: the {LAPSE_SHARE} % most likely not to buy within 28 days",
        {"score": {"name": "lapse_28d", "top": LAPSE_SHARE}},
    )
    return {
        PREFIX + name: Definition.model_validate({"title": title, "rule": rule, "consent": []})
        for name, (title, rule) in made.items()
    }


def _trait(name: str, **test: Any) -> dict[str, Any]:
    return {"trait": {"name": name, **test}}


def _cells() -> dict[str, list[dict[str, Any]]]:
    """Return the rules of the fifths of recency and frequency that make up each cell."""
    found = dict[str, list[dict[str, Any]]]()
    for recency, frequency in product(_FIFTHS, repeat=2):
        cell = rfm_segment(recency, frequency)
        assert cell is not None
        found.setdefault(cell, []).append({"all": [
            _trait("rfm_recency_quintile", eq=recency),
            _trait("rfm_frequency_quintile", eq=frequency),
        ]})  # fmt: skip
    return found


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40]
