"""Profile views for the API's description: schemas and examples.

See `answer_schemas`; what fills the views is said in `feature_repo.profile_views.views`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

Share = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[int, Field(ge=0)]

EXAMPLE_TIME = "2026-01-31T12:00:00.000Z"


class Evidence(BaseModel):
    """What an interest rests on: how often."""

    view: Whole
    cart: Whole
    purchase: Whole


class ProfileInterest(BaseModel):
    """One interest; long-term and the session's are two numbers."""

    kind: Literal["category", "brand", "item"]
    key: str
    weight: float
    long: float
    short: float
    trend: str
    evidence: Evidence
    last_at: str | None


class Lifecycle(BaseModel):
    """Where a user stands with the shop."""

    stage: str


class ProfileRfm(BaseModel):
    """Recency, frequency, money."""

    recency_days: float | None
    frequency: dict[str, Whole]
    monetary: dict[str, float]
    quintiles: dict[str, int] | None
    segment: str | None


class LatestSession(BaseModel):
    """The latest session."""

    id: str | None
    started_at: str | None
    events: Whole
    items_viewed: Whole
    cart: list[dict[str, Any]]
    intent: str | None


class ProfileHabits(BaseModel):
    """When a user comes, and what an order is like."""

    hour_histogram: Annotated[list[Whole], Field(min_length=24, max_length=24)]
    weekday_histogram: Annotated[list[Whole], Field(min_length=7, max_length=7)]
    peak: dict[str, Any] | None
    median_gap_days: float | None
    basket_size: float | None


class ProfileConsent(BaseModel):
    """What was said about one purpose."""

    granted: bool
    at: str | None
    source: str


class Propensity(BaseModel):
    """A chance, and the model that says so."""

    p: Share
    calibrated: bool
    model: str


class Profile(BaseModel):
    """Everything known of a user (``view=full``)."""

    user_id: str
    version: Whole
    updated_at: str | None
    event_count: Whole
    identity: dict[str, Any]
    consent: dict[str, ProfileConsent]
    lifecycle: Lifecycle
    rfm: ProfileRfm
    session: LatestSession
    interests: list[ProfileInterest]
    affinities: dict[str, Any]
    habits: ProfileHabits
    cycles: list[dict[str, Any]]
    propensities: dict[str, Propensity]
    segments: list[dict[str, Any]]
    recent: list[dict[str, Any]]
    embedding: dict[str, Any] | None
    provenance: dict[str, Any]


class Summary(BaseModel):
    """A profile in a few lines (``view=summary``)."""

    user_id: str
    stage: str
    segment: str | None
    last_seen: str | None
    rfm: dict[str, Any]
    interests: list[str]
    brands: list[str]
    habits: str
    intent: str | None
    interest_score: dict[str, Any] | None
    version: Whole
    as_of: str


class UpdatedProfile(BaseModel):
    """Interests by weight, purchases in order."""

    interest: Annotated[list[str], Field(alias="Interest")]
    purchase_history: Annotated[list[str], Field(alias="Purchase History")]


class Seed(BaseModel):
    """The worked example's form (``view=seed``)."""

    user_id: Annotated[int | str, Field(alias="User ID")]
    user_behavior: Annotated[list[str], Field(alias="User Behavior")]
    updated: Annotated[UpdatedProfile, Field(alias="Updated User Profile")]


_NOTHING_PRICED = {"priced_lines_decayed": 0.0, "as_of": None}
FULL: dict[str, Any] = {
    "user_id": "123", "version": 1, "updated_at": EXAMPLE_TIME, "event_count": 1,
    "identity": {"anonymous": False, "linked": 0, "first_seen_at": EXAMPLE_TIME,
                 "last_seen_at": EXAMPLE_TIME, "events_by_type": {"view_item": 1}},
    "consent": {"ads": {"granted": False, "at": EXAMPLE_TIME, "source": "web"}},
    "lifecycle": {"stage": "visitor", "as_of": EXAMPLE_TIME, "evidence": {
        "orders": 0, "recency_days": None, "personal_gap_days": 30.0, "gaps": 0}},
    "rfm": {"recency_days": None, "frequency": {"28d": 0, "91d": 0},
            "monetary": {"28d": 0.0, "91d": 0.0}, "quintiles": None, "segment": None,
            "evidence": {"orders": 0, "refunds": 0, "monetary_lifetime": 0.0,
                         "first_order_at": None, "last_order_at": None}, "as_of": EXAMPLE_TIME},
    "session": {"id": "auto-1", "started_at": EXAMPLE_TIME, "last_at": EXAMPLE_TIME,
                "active": True, "events": 1, "items_viewed": 1, "cart": [], "intent": "browse"},
    "interests": [{"kind": "item", "key": "A", "weight": 0.1, "long": 0.1, "short": 0.1,
                   "trend": "new", "evidence": {"view": 1, "cart": 0, "purchase": 0},
                   "first_at": EXAMPLE_TIME, "last_at": EXAMPLE_TIME, "as_of": EXAMPLE_TIME,
                   "title": "Product A"}],
    "affinities": {
        "brand": [],
        "price": {"mean_unit_price": None, "mean_order_value": None, "evidence": _NOTHING_PRICED},
        "promotion": {"discount_share": None, "promoted_line_share": None,
                      "evidence": _NOTHING_PRICED},
        "channel": {"shares": {}, "evidence": {"events": 0}},
    },
    "habits": {"hour_histogram": [0] * 12 + [1] + [0] * 11, "weekday_histogram": [0] * 5 + [1, 0],
               "peak": {"hour": 12, "hour_share": 1.0, "weekday": "Saturday",
                        "weekday_share": 1.0},
               "median_gap_days": None, "basket_size": None,
               "evidence": {"events": 1, "orders": 0, "gaps": 0}, "as_of": EXAMPLE_TIME},
    "cycles": [], "propensities": {}, "next_categories": None,
    "segments": [{"name": "lifecycle:visitor", "as_of": EXAMPLE_TIME}],
    "recent": [{"type": "view_item", "item_id": "A", "title": "Product A", "time": EXAMPLE_TIME}],
    "embedding": None,
    "provenance": {"feature_service": "profile_v1", "schema": 2, "model": None, "late_events": 0,
                   "as_of": EXAMPLE_TIME},
}  # fmt: skip
"""Of one view, as `tests/services/http/test_examples.py` asks for it; so are the others."""
_SEED = {
    "User ID": 123,
    "User Behavior": ["Browse Product A", "Purchase Product B"],
    "Updated User Profile": {
        "Interest": ["Product A", "Product B"], "Purchase History": ["Product B"]
    },
}  # fmt: skip
_SUMMARY = {
    "user_id": "123", "stage": "visitor", "segment": None, "last_seen": EXAMPLE_TIME,
    "rfm": {"recency_days": None, "orders_91d": 0, "spend_91d": 0.0, "orders": 0},
    "interests": ["Product A (1 view; last today)"], "brands": [],
    "habits": "Most active on Saturdays and around 12:00.", "intent": "browse",
    "interest_score": None, "version": 1, "as_of": EXAMPLE_TIME,
}  # fmt: skip

_TAGS = {"etag": {"description": "Changes with the profile", "schema": {"type": "string"}}}
PROFILE: dict[int | str, Any] = {
    200: {
        "model": Profile | Summary | Seed,
        "description": "The profile in the view that was asked for",
        "headers": _TAGS,
        "content": {
            "application/json": {
                "examples": {
                    "full": {"value": FULL},
                    "summary": {"value": _SUMMARY},
                    "seed": {"value": _SEED},
                }
            }
        },
    },
    304: {"description": "As the given If-None-Match says", "headers": _TAGS},
}
