"""Response shapes: typed dictionaries that code makes, OpenAPI describes and the client returns.

A shape stands once, beside what makes it; here are what all have in common, and the views' own.
They are plain dictionaries when the program runs, so they cost nothing.
"""

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from feature_repo.user_profile.parts import Intent

Count = Annotated[int, Field(ge=0)]
Rank = Annotated[int, Field(ge=1)]
Fifth = Annotated[int, Field(ge=1, le=5)]
Share = Annotated[float, Field(ge=0, le=1)]
Interval = Annotated[list[float], Field(min_length=2, max_length=2)]
Stage = Literal["visitor", "new", "active", "at_risk", "lapsed"]
InterestKind = Literal["category", "brand", "item"]
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

    kind: InterestKind
    key: str
    weight: float
    long: float
    short: float
    trend: Trend
    evidence: Evidence
    first_at: str | None
    last_at: str | None
    as_of: str
    title: NotRequired[Annotated[str, Field(description="Of an item")]]


class LifecycleEvidence(Open):
    """What the stage goes by."""

    orders: Count
    recency_days: float | None
    personal_gap_days: float
    gaps: Count


class Lifecycle(Open):
    """Where a user stands with the shop."""

    stage: Stage
    evidence: LifecycleEvidence
    as_of: str


class OrderEvidence(Open):
    """What recency, frequency and money go by."""

    orders: Count
    refunds: Count
    monetary_lifetime: float
    first_order_at: str | None
    last_order_at: str | None


class Quintiles(Open):
    """Fifths among the buyers, 5 best."""

    recency: Fifth | None
    frequency: Fifth | None
    monetary: Fifth | None


class ProfileRfm(Open):
    """Recency, frequency, money."""

    recency_days: float | None
    frequency: dict[str, Count]
    monetary: dict[str, float]
    quintiles: Quintiles | None
    segment: RfmSegment | None
    evidence: OrderEvidence
    as_of: str


class CartLine(Open):
    """An item in the cart."""

    item_id: str
    title: str
    quantity: float


class LatestSession(Open):
    """The latest session."""

    id: str | None
    started_at: str | None
    last_at: str | None
    active: bool
    events: Count
    items_viewed: Count
    cart: list[CartLine]
    intent: Intent | None


class Peak(Open):
    """The hour and the weekday of most activity, and their shares of it."""

    hour: Annotated[int, Field(ge=0, le=23)]
    hour_share: Share
    weekday: str
    weekday_share: Share


class HabitEvidence(Open):
    """What habits rest on."""

    events: Count
    orders: Count
    gaps: Count


class ProfileHabits(Open):
    """When a user comes, and what an order is like."""

    hour_histogram: Annotated[list[Count], Field(min_length=24, max_length=24)]
    weekday_histogram: Annotated[list[Count], Field(min_length=7, max_length=7)]
    peak: Peak | None
    median_gap_days: float | None
    basket_size: float | None
    evidence: HabitEvidence
    as_of: str


class BrandShare(Open):
    """A brand's part in the user's interest in brands."""

    key: str
    share: Share
    weight: float


class PricedEvidence(Open):
    """The lines with a price that an affinity rests on, older ones counted less."""

    priced_lines_decayed: float
    as_of: str | None


class PriceLevel(Open):
    """What a user pays."""

    mean_unit_price: float | None
    mean_order_value: float | None
    evidence: PricedEvidence


class PromotionUse(Open):
    """How much of it is bought at a discount."""

    discount_share: float | None
    promoted_line_share: float | None
    evidence: PricedEvidence


class ChannelEvidence(Open):
    """How many events the shares are of."""

    events: Count


class ChannelUse(Open):
    """Where a user comes from."""

    shares: dict[str, Share]
    evidence: ChannelEvidence


class ProfileAffinities(Open):
    """Leanings to brands, price level, promotions and channels."""

    brand: list[BrandShare]
    price: PriceLevel
    promotion: PromotionUse
    channel: ChannelUse


class Cycle(Open):
    """How often an item or a category is bought again."""

    kind: Literal["category", "item"]
    key: str
    n: Count
    mean_gap_days: float
    first_at: str | None
    last_at: str | None
    days_since_last: Annotated[float, Field(ge=0)]
    as_of: str


class ProfileConsent(Open):
    """What stands of one purpose; ``at`` is null where nobody was asked."""

    granted: bool
    at: str | None
    source: str
    expires_at: str | None
    version: str | None


class Propensity(Open):
    """A probability, and the model that says so."""

    p: Share
    calibrated: bool
    model: str


class CategoryChance(Open):
    """A category and the probability of a purchase in it."""

    category: str
    p: Share


class CategoryChances(Open):
    """What is bought next, likeliest first."""

    within_days: Count
    categories: list[CategoryChance]
    calibrated: bool
    model: str
    as_of: str


class ProfileIdentity(Open):
    """Who a user is known as, and since when."""

    anonymous: bool
    linked: Count
    first_seen_at: str | None
    last_seen_at: str | None
    events_by_type: dict[str, Count]


class Segment(Open):
    """A group that the user is in: `lifecycle:` and a stage, `rfm:` and a segment."""

    name: str
    as_of: str


class RecentEvent(Open):
    """An item of a recent event."""

    type: str
    item_id: str
    title: str
    time: str


class Embedding(Open):
    """Whether the model knows the user."""

    dim: Count
    model: str


class Provenance(Open):
    """What a profile was made with."""

    feature_service: str
    schema: Count
    model: str | None
    late_events: Count
    as_of: str


class Profile(Open):
    """Everything known of a user (``view=full``)."""

    user_id: str
    version: Count
    updated_at: str | None
    event_count: Count
    identity: ProfileIdentity
    consent: dict[str, ProfileConsent]
    lifecycle: Lifecycle
    rfm: ProfileRfm
    session: LatestSession
    interests: list[ProfileInterest]
    affinities: ProfileAffinities
    habits: ProfileHabits
    cycles: list[Cycle]
    propensities: dict[str, Propensity]
    next_categories: CategoryChances | None
    segments: list[Segment]
    recent: list[RecentEvent]
    embedding: Embedding | None
    provenance: Provenance


class SummaryRfm(Open):
    """Recency, frequency, money in short."""

    recency_days: float | None
    orders_91d: Count
    spend_91d: float
    orders: Count


class ScoreSummand(Open):
    """What a feature adds to the engagement score."""

    feature: str
    value: float
    adds: float


class InterestScore(Open):
    """The engagement score and its summands, the largest first."""

    score: float
    because: list[ScoreSummand]


class Summary(Open):
    """A profile in a few lines (``view=summary``)."""

    user_id: str
    stage: Stage
    segment: RfmSegment | None
    last_seen: str | None
    rfm: SummaryRfm
    interests: list[str]
    brands: list[str]
    habits: str
    intent: Intent | None
    interest_score: InterestScore | None
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
