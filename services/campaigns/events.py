"""A decision as it is asked for, kept, and logged: its name, its members, its events.

Belongs here: the forms. How a decision comes about is `decisions`'.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from feature_repo.events.schema import EventRecord
from services.campaigns.decision import Draft, Reason, UserFacts
from services.campaigns.definitions import Stored

TYPE: Final = "campaign_decision"
"""Type of the event that every decision about a known user leaves."""
SENT: Final = "message_sent"
SOURCE: Final = "portrait"
_ID: Final = "campaign-"
MADE: Final = f"""event_id = '{_ID}' || left(sha256(concat_ws(chr(31), campaign_id, "user",
    properties->>'$.decision', properties->>'$.reasons[0]')), 32)"""
"""SQL: whether Portrait made a decision's event. Its id follows from the user's pseudonym, which
without the tenant's key nobody can know: an event that somebody sent has another."""
ONLY: Final = "once"
"""Name of the one decision that a campaign makes about a user who is asked for without a name."""


@dataclass(frozen=True, slots=True)
class DecisionRequest:
    """A request for a decision.

    Attributes
    ----------
    user_id
        The shop's own user id.
    now_ms
        The moment, epoch milliseconds.
    decision_id
        Its name; None for the one decision of the campaign about this user.
    tz
        The user's time zone, if the caller knows it.
    """

    user_id: str
    now_ms: int
    decision_id: str | None = None
    tz: str | None = None

    @property
    def name(self) -> str:
        """Name under which the decision is kept; no caller's own name begins so."""
        return ONLY if self.decision_id is None else f"id:{self.decision_id}"


def body_of(
    stored: Stored,
    request: DecisionRequest,
    facts: UserFacts | None,
    reasons: list[Reason],
    made: Draft | None = None,
) -> dict[str, Any]:
    """Return what is kept and logged of a decision."""
    campaign = stored.campaign
    return {
        "arm": "none" if made is None else made.arm,
        "assigned": None if made is None else made.assigned,
        "reasons": reasons,
        "offer": campaign.offer.id,
        "score": None if facts is None else facts.score,
        "propensity": None if made is None else made.propensity,
        "explored": False if made is None else made.explored,
        "rank_by": campaign.rank_by,
        "salt": stored.salt,
        "holdout": campaign.control.holdout,
        "decision": request.name,
        "at_ms": request.now_ms,
    }


def records(stored: Stored, pseudonym: str, body: dict[str, Any]) -> list[EventRecord]:
    """Return the events of a decision: the decision, and the message if one is sent.

    Their ids follow from campaign, user, decision and what decided, so the same decision gives
    the same events whoever logs it.
    """
    parts = (stored.name, pseudonym, body["decision"], body["reasons"][0])
    name = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]
    made = EventRecord(
        id=f"{_ID}{name}", type=TYPE, user=pseudonym, anonymous=False,
        time_ms=body["at_ms"], received_ms=body["at_ms"], source=SOURCE,
        channel=stored.campaign.channel, campaign_id=stored.name, properties=body,
    )  # fmt: skip
    if body["arm"] != "treated":
        return [made]
    sent = {"offer": body["offer"], "decision": body["decision"]}
    return [made, msgspec.structs.replace(made, id=f"message-{name}", type=SENT, properties=sent)]
