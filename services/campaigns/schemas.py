"""Answers of campaigns, for the API's description; see `answer_schemas`."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from feature_repo.profile_views.shapes import Answer, Count, Rank, Share
from services.audiences.schemas import PSEUDONYM, SLUG, describe_body
from services.campaigns.campaign import (
    Budget,
    Cap,
    Control,
    Goal,
    Offer,
    QuietHours,
    RankBy,
    Window,
)
from services.campaigns.decision import Arm, Reason
from services.http.answer_schemas import describe_answer
from services.http.profile_schemas import EXAMPLE_TIME

CAMPAIGN: Final[dict[str, Any]] = {
    "title": "Tea in spring", "audience": "regulars", "offer": {"id": "tea-5", "cost": 0.05},
    "channel": "email", "window": {"from": "2026-03-01", "until": "2026-04-01"},
    "goal": {"event": "purchase", "within": "7d"}, "control": {"holdout": 0.1},
    "caps": [{"scope": "channel", "most": 2, "within": "7d"}],
    "quiet_hours": {"from": "21:00", "until": "08:00"}, "budget": {"amount": 100},
}  # fmt: skip


class CampaignHead(Answer):
    """A campaign without its parts."""

    name: str
    title: str
    audience: str
    channel: str
    offer: str
    active: bool
    created_at: str
    updated_at: str


class CampaignList(Answer):
    """A page of campaigns, by name."""

    campaigns: list[CampaignHead]
    next_cursor: str | None


class CampaignSpent(Answer):
    """What a campaign has spent."""

    messages: Count | None
    amount: Annotated[float, Field(ge=0)] | None


class CampaignDetail(Answer):
    """A campaign with its parts, defaults filled in, and what it has decided and spent."""

    name: str
    title: str
    description: str
    audience: str
    offer: Offer
    channel: str
    window: Window
    goal: Goal
    control: Control
    caps: list[Cap]
    quiet_hours: QuietHours | None
    budget: Budget | None
    rank_by: RankBy
    top: float
    explore: Share
    active: bool
    created_at: str
    updated_at: str
    decided: Count | None
    spent: CampaignSpent
    ranked_at: str | None


class DecidedOffer(Answer):
    """The offer to make."""

    id: str
    title: str


class Decision(Answer):
    """What the campaign does about a user, and why: the first reason decides."""

    campaign_id: str
    user_id: str
    decision_id: str | None
    decided_at: str
    channel: str
    arm: Arm
    assigned: Literal["treated", "control"] | None
    offer: DecidedOffer | None
    reasons: Annotated[list[Reason], Field(min_length=1)]
    score: float | None
    propensity: Share | None
    explored: bool


class RankedUser(Answer):
    """A member and the score that ranks it."""

    user: str
    score: float
    rank: Rank


class AudienceRanking(Answer):
    """An audience by score, and how many of it are chosen."""

    campaign_id: str
    rank_by: RankBy
    as_of: str
    members: Count
    scored: Count
    chosen: Count
    threshold: float | None
    users: list[RankedUser]


class Estimate(Answer):
    """A difference between the arms with its 95 % interval."""

    difference: float
    low: float
    high: float


class ReportArm(Answer):
    """One side of the comparison."""

    users: Count
    exposed: Count
    converted: Count
    conversion: Share | None
    revenue: float
    revenue_per_user: float | None


class SampleRatio(Answer):
    """Whether the arms are as large as the hash should have made them."""

    expected_treated: Share
    p: Share | None
    mismatch: bool


class Measure(Answer):
    """What is said of one outcome: per user, with and without CUPED, and for all treated users."""

    per_user: Estimate
    cuped: Estimate
    incremental: Estimate
    incremental_cuped: Estimate
    variance_removed: float


class Qini(Answer):
    """How well the score orders users by effect: areas and the curve, per user."""

    users: Count
    qini: float
    auuc: float
    share: list[Share]
    gain: list[float]


class CampaignReport(Answer):
    """What a campaign has brought, by intention to treat."""

    campaign_id: str
    as_of: str
    newest_event: str | None
    goal: Goal
    basis: Literal["holdout", "explored", "association"]
    claim: Literal["effect", "association, not effect"]
    caveats: list[str]
    decided: dict[str, Count]
    global_holdout: Count
    treated: ReportArm
    control: ReportArm
    open_windows: Count
    sample_ratio: SampleRatio | None
    conversion: Measure | None
    revenue: Measure | None
    qini: Qini | None


_HEAD: Final = {
    "name": "spring", "title": "Tea in spring", "audience": "regulars", "channel": "email",
    "offer": "tea-5", "active": True, "created_at": EXAMPLE_TIME, "updated_at": EXAMPLE_TIME,
}  # fmt: skip
_SHOWN: Final = CAMPAIGN | {
    "name": "spring", "description": "", "offer": {"id": "tea-5", "title": "", "cost": 0.05},
    "goal": {"event": "purchase", "within": "7d", "before": "28d"},
    "control": {"holdout": 0.1, "global_holdout": True, "salt": ""},
    "quiet_hours": {"from": "21:00", "until": "08:00", "tz": "UTC"},
    "budget": {"messages": None, "amount": 100},
    "rank_by": "random", "top": 100, "explore": 0, "active": True, "created_at": EXAMPLE_TIME,
    "updated_at": EXAMPLE_TIME, "decided": 31, "spent": {"messages": 27, "amount": 1.35},
    "ranked_at": None,
}  # fmt: skip
_DECISION: Final = {
    "campaign_id": "spring", "user_id": "123", "decision_id": None, "decided_at": EXAMPLE_TIME,
    "channel": "email", "arm": "treated", "assigned": "treated",
    "offer": {"id": "tea-5", "title": ""}, "reasons": ["chosen"], "score": 0.31,
    "propensity": 1.0, "explored": False,
}  # fmt: skip
_ESTIMATE: Final = {"difference": 0.02, "low": 0.01, "high": 0.03}
_TOTAL: Final = {"difference": 18.0, "low": 9.0, "high": 27.0}
_MEASURE: Final = {
    "per_user": _ESTIMATE, "cuped": _ESTIMATE, "incremental": _TOTAL, "incremental_cuped": _TOTAL,
    "variance_removed": 0.2,
}  # fmt: skip
_ARM: Final = {
    "users": 900, "exposed": 870, "converted": 90, "conversion": 0.1, "revenue": 450.0,
    "revenue_per_user": 0.5,
}  # fmt: skip
REPORT_EXAMPLE: Final = {
    "campaign_id": "spring", "as_of": EXAMPLE_TIME, "newest_event": EXAMPLE_TIME,
    "goal": {"event": "purchase", "within": "7d", "before": "28d"}, "basis": "holdout",
    "claim": "effect", "caveats": [], "decided": {"chosen": 870, "holdout": 100},
    "global_holdout": 0, "treated": _ARM, "control": _ARM | {"users": 100, "exposed": 0},
    "open_windows": 0,
    "sample_ratio": {"expected_treated": 0.9, "p": 1.0, "mismatch": False},
    "conversion": _MEASURE, "revenue": _MEASURE,
    "qini": {"users": 1000, "qini": 0.004, "auuc": 0.014, "share": [0, 1], "gain": [0, 0.02]},
}  # fmt: skip

LIST: Final[dict[int | str, Any]] = {
    200: describe_answer(CampaignList, "Campaigns", {"campaigns": [_HEAD], "next_cursor": None})
}
SHOWN: Final[dict[int | str, Any]] = {200: describe_answer(CampaignDetail, "The campaign", _SHOWN)}
CREATED: Final[dict[int | str, Any]] = {201: describe_answer(CampaignDetail, "Created", _SHOWN)}
PUT: Final[dict[int | str, Any]] = {
    **CREATED,
    200: describe_answer(CampaignDetail, "Replaced", _SHOWN),
}
SCHEMA: Final[dict[int | str, Any]] = {
    200: describe_answer(dict[str, Any], "JSON Schema of a campaign", {"title": "Campaign"})
}
DECISION: Final[dict[int | str, Any]] = {
    200: describe_answer(Decision, "The decision", _DECISION, headers={
        "idempotent-replayed": {"description": "`true`: the decision had been made before",
                                "schema": {"type": "string"}}})
}  # fmt: skip
RANKED: Final[dict[int | str, Any]] = {
    200: describe_answer(AudienceRanking, "The audience in order", {
        "campaign_id": "spring", "rank_by": "propensity", "as_of": EXAMPLE_TIME, "members": 900,
        "scored": 890, "chosen": 178, "threshold": 0.31,
        "users": [{"user": PSEUDONYM, "score": 0.93, "rank": 1}]})
}  # fmt: skip
REPORT: Final[dict[int | str, Any]] = {
    200: describe_answer(CampaignReport, "The report", REPORT_EXAMPLE)
}
PLOT: Final[dict[int | str, Any]] = {
    200: {"description": "A picture",
          "content": {"image/svg+xml": {"schema": {"type": "string"}, "example": "<svg></svg>"}}}
}  # fmt: skip


def body(*, named: bool = False) -> dict[str, Any]:
    """Return the description of a body that holds a campaign, ``named`` in it or not."""
    yaml = (
        "audience: regulars\noffer: {id: tea-5}\nchannel: email\n"
        "window: {from: 2026-03-01, until: 2026-04-01}\n"
    )
    return describe_body(
        {"name": "spring", **CAMPAIGN} if named else CAMPAIGN,
        f"name: spring\n{yaml}" if named else yaml,
        "/v1/campaigns",
        [*(["name"] if named else []), "audience", "offer", "channel", "window"],
        {
            "audience": SLUG,
            "offer": {"type": "object"},
            "channel": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,31}$"},
            "window": {"type": "object"},
        },
    )
