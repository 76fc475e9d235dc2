"""Decision about one user at one moment, all but caps and budget.

Reasons have a fixed order; all that hold are said, and the first decides. Caps and budget are
asked last and by the store, in the same step that spends (`services.campaigns.ledger`). Belongs
here: the order, and what follows from facts that are given.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from services.campaigns import assignment
from services.campaigns.campaign import Campaign
from services.campaigns.quiet_hours import is_quiet

Arm = Literal["treated", "control", "none"]

Reason = Literal[
    "not_active", "not_begun", "ended", "unknown_user", "no_consent", "not_in_audience",
    "excluded", "global_holdout", "holdout", "not_chosen", "quiet_hours", "frequency_cap",
    "budget", "explored", "chosen",
]  # fmt: skip
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
"""Every reason, in order of precedence; of an unknown user only the first four can hold."""
INELIGIBLE: Final = frozenset(REASONS[: REASONS.index("global_holdout")])
"""Reasons for which a user takes no part in the experiment."""
COIN: Final = 0.5
"""Probability with which the coin chooses a user who is explored."""


@dataclass(frozen=True, slots=True)
class UserFacts:
    """What is known of a user at the moment of a decision.

    Attributes
    ----------
    pseudonym
        Pseudonym.
    now_ms
        The moment, epoch milliseconds.
    consented
        Whether the consent of channel and audience is granted.
    member
        Whether the audience's rule describes the user, its exclusions left aside.
    excluded
        Whether one of the audience's exclusions does.
    tz
        IANA time zone; None if none is known.
    score
        What ``rank_by`` orders by; None if the user has none.
    """

    pseudonym: str
    now_ms: int
    consented: bool = True
    member: bool = True
    excluded: bool = False
    tz: str | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A decision before caps and budget.

    Attributes
    ----------
    reasons
        All that hold, in the order of `REASONS`; the first decides.
    arm
        What is to happen now: ``treated`` gets the offer if caps and budget allow.
    assigned
        What the hash says: users in ``treated`` are compared with those in ``control`` whatever
        came of it. None: not part of the experiment.
    propensity
        Probability with which a user of this score, if not held out, is chosen.
    explored
        Whether the coin decided.
    """

    reasons: tuple[Reason, ...]
    arm: Arm
    assigned: Literal["treated", "control"] | None
    propensity: float
    explored: bool


def closed_reason(campaign: Campaign, now_ms: int) -> Reason | None:
    """Return why a campaign decides about nobody at a moment; None while it runs."""
    if not campaign.active:
        return "not_active"
    if now_ms < campaign.window.from_ms:
        return "not_begun"
    return "ended" if now_ms >= campaign.window.until_ms else None


def draft(
    campaign: Campaign, salt: str, facts: UserFacts, *, threshold: float, global_share: float
) -> Draft:
    """Return what a campaign does about a user, caps and budget left aside.

    Parameters
    ----------
    salt
        Of the campaign's hashes.
    threshold
        Users with at least this score are chosen; ``-inf`` chooses all.
    global_share
        Share of the global hold-out.
    """
    by_coin = assignment.is_explored(salt, facts.pseudonym, campaign.explore)
    chosen, propensity = _choice(campaign, salt, facts, threshold, by_coin=by_coin)
    hours = campaign.quiet_hours
    holds = {
        "no_consent": not facts.consented,
        "not_in_audience": not facts.member,
        "excluded": facts.excluded,
        "global_holdout": campaign.control.global_holdout
        and assignment.is_held_out(assignment.GLOBAL_SALT, facts.pseudonym, global_share),
        "holdout": assignment.is_held_out(salt, facts.pseudonym, campaign.control.holdout),
        "not_chosen": not chosen,
        "quiet_hours": hours is not None and is_quiet(hours, facts.now_ms, facts.tz),
    }
    shut = closed_reason(campaign, facts.now_ms)
    reasons = tuple(name for name in REASONS if name == shut or holds.get(name, False))
    return _make_draft(reasons, propensity, explored=by_coin)


def _make_draft(reasons: tuple[Reason, ...], propensity: float, *, explored: bool) -> Draft:
    """Return the draft that follows from the reasons against treating a user."""
    if not reasons:
        why: Reason = "explored" if explored else "chosen"
        return Draft((why,), "treated", "treated", propensity, explored)
    first = reasons[0]
    if first in INELIGIBLE:
        return Draft(reasons, "none", None, propensity, explored)
    if first in {"global_holdout", "holdout"}:
        # The global hold-out gets nothing of any campaign: no comparison for this one alone.
        assigned: Literal["control"] | None = "control" if first == "holdout" else None
        return Draft(reasons, "control", assigned, propensity, explored)
    return Draft(reasons, "none", "treated", propensity, explored)


def _choice(
    campaign: Campaign, salt: str, facts: UserFacts, threshold: float, *, by_coin: bool
) -> tuple[bool, float]:
    """Return whether a user is chosen, and the probability of that for a user of this score."""
    score = float("-inf") if facts.score is None else facts.score
    high = score >= threshold
    propensity = campaign.explore * COIN + (1 - campaign.explore) * high
    return (assignment.coin(salt, facts.pseudonym) if by_coin else high), propensity
