"""Response shapes: typed dictionaries that code makes, OpenAPI describes and the client returns.

A shape stands once, beside what makes it; here are what all have in common, and the views' own.
They are plain dictionaries when the program runs, so they cost nothing.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from feature_repo.user_profile.parts import Intent

Count = Annotated[int, Field(ge=0)]
Rank = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Interval = Annotated[list[float], Field(min_length=2, max_length=2)]
Stage = Literal["visitor", "new", "active", "at_risk", "lapsed"]
Trend = Literal["new", "rising", "steady", "falling"]
RfmSegment = Literal[
    "champions", "loyal", "promising", "needs_attention", "cannot_lose", "at_risk", "hibernating"
]


@with_config(ConfigDict(extra="forbid"))
class Answer(TypedDict):
    """An answer whose members are all named here."""


@with_config(ConfigDict(extra="ignore"))
class Open(TypedDict):
    """An answer that may have more members than are named here."""


class Evidence(Open):
    """What an interest rests on: how often."""

    view: Count
    cart: Count
    purchase: Count


class ProfileInterest(Open):
    """One interest; long-term and the session's are two numbers."""

    kind: Literal["category", "brand", "item"]
    key: str
    weight: float
    long: float
    short: float
    trend: Trend
    evidence: Evidence
    last_at: str | None


class Lifecycle(Open):
    """Where a user stands with the shop."""

    stage: Stage


class ProfileRfm(Open):
    """Recency, frequency, money."""

    recency_days: float | None
    frequency: dict[str, Count]
    monetary: dict[str, float]
    quintiles: dict[str, int] | None
    segment: RfmSegment | None


class LatestSession(Open):
    """The latest session."""

    id: str | None
    started_at: str | None
    events: Count
    items_viewed: Count
    cart: list[dict[str, Any]]
    intent: Intent | None


class ProfileHabits(Open):
    """When a user comes, and what an order is like."""

    hour_histogram: Annotated[list[Count], Field(min_length=24, max_length=24)]
    weekday_histogram: Annotated[list[Count], Field(min_length=7, max_length=7)]
    peak: dict[str, Any] | None
    median_gap_days: float | None
    basket_size: float | None


class ProfileConsent(Open):
    """What was said about one purpose."""

    granted: bool
    at: str | None
    source: str


class Propensity(Open):
    """A probability, and the model that says so."""

    p: Share
    calibrated: bool
    model: str


class Profile(Open):
    """Everything known of a user (``view=full``)."""

    user_id: str
    version: Count
    updated_at: str | None
    event_count: Count
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


class Summary(Open):
    """A profile in a few lines (``view=summary``)."""

    user_id: str
    stage: Stage
    segment: RfmSegment | None
    last_seen: str | None
    rfm: dict[str, Any]
    interests: list[str]
    brands: list[str]
    habits: str
    intent: Intent | None
    interest_score: dict[str, Any] | None
    version: Count
    as_of: str


UpdatedProfile = TypedDict("UpdatedProfile", {"Interest": list[str], "Purchase History": list[str]})
"""Interests by weight, purchases in order."""
Seed = TypedDict(
    "Seed",
    {
        "User ID": int | str,
        "User Behavior": list[str],
        "Updated User Profile": UpdatedProfile,
    },
)
"""The worked example's form (``view=seed``)."""
