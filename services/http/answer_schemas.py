"""Answer schemas for the API's description, with an example of each.

Handlers make these typed dictionaries, the client returns them. That what is served agrees with
what is said here is tested on the running service. Problems are `openapi`'s.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field

from feature_repo.profile_views.shapes import (
    Answer,
    Count,
    Open,
    Profile,
    ProfileConsent,
    Rank,
    Share,
)
from services.http.problems import ProblemUri
from services.http.profile_schemas import EXAMPLE_TIME, FULL

RECEIPT = "p014-1795737846570-0"


def describe_answer(model: Any, description: str, example: Any, **more: Any) -> dict[str, Any]:
    """Return the OpenAPI description of one answer."""
    content = {"application/json": {"example": example}}
    return {"model": model, "description": description, "content": content, **more}


# --- events


class Accepted(Answer):
    """An event is in the log."""

    id: str
    status: Literal["accepted", "duplicate"]
    receipt: str
    set_aside: NotRequired[
        Annotated[
            Literal["other_currency"] | None, Field(description="Why amounts of it do not count")
        ]
    ]


class Applied(Accepted):
    """An event is in the log and in the profile."""

    profile: Profile


class EventRefused(Answer):
    """Why one event of a batch was not taken."""

    index: Count
    id: str | None
    type: ProblemUri
    pointer: str
    detail: str


class EventsTaken(Answer):
    """What became of a batch."""

    received: Count
    accepted: Count
    duplicates: Count
    rejected: Count
    receipt: str | None
    errors: list[EventRefused]
    amounts_set_aside: NotRequired[
        Annotated[
            Count,
            Field(description="Events that count without amounts in another currency", default=0),
        ]
    ]


class StoredEvent(Open):
    """An event as it is kept, without its user."""

    id: str
    type: str
    time: str
    late: NotRequired[Literal[True] | None]
    key: NotRequired[str | None]


class EventPage(Answer):
    """Some events of a user, newest first."""

    events: list[StoredEvent]
    next_cursor: str | None


_ACCEPTED = {"id": "e-1", "status": "accepted", "receipt": RECEIPT}
_TAKEN = {
    "received": 2, "accepted": 1, "duplicates": 1, "rejected": 0, "receipt": RECEIPT, "errors": [],
}  # fmt: skip
_REFUSED = {
    "index": 0, "id": "e-2", "type": "/problems/invalid", "pointer": "/items/0/price",
    "detail": "Input should be greater than or equal to 0",
}  # fmt: skip
_NONE = {
    "received": 1, "accepted": 0, "duplicates": 0, "rejected": 1, "receipt": None,
    "errors": [_REFUSED],
}  # fmt: skip
_PAGE = {
    "events": [
        {"id": "e-1", "type": "view_item", "time": EXAMPLE_TIME,
         "items": [{"item_id": "A", "quantity": 1.0, "category": "Grocery/Coffee", "brand": "Ox",
                    "price": 3.5}],
         "channel": "web", "key": "server:1a2b3c4d5e6f"}
    ],
    "next_cursor": None,
}  # fmt: skip

EVENT: dict[int | str, Any] = {
    202: describe_answer(Accepted, "Durable in the log", _ACCEPTED),
    200: describe_answer(Applied, "Applied, with `return=profile`", _ACCEPTED | {"profile": FULL}),
}
EVENT_BATCH: dict[int | str, Any] = {
    202: describe_answer(EventsTaken, "All taken", _TAKEN),
    207: describe_answer(EventsTaken, "Some taken", _TAKEN | {
        "received": 3, "rejected": 1, "errors": [_REFUSED | {"index": 2}]}),
    422: describe_answer(EventsTaken, "None taken", _NONE),
}  # fmt: skip
EVENTS: dict[int | str, Any] = {
    200: describe_answer(EventPage, "A page of events, newest first", _PAGE)
}


# --- privacy


class UserConsents(Answer):
    """What stands of each purpose; ``at`` is null where nobody was asked."""

    user_id: str
    consents: dict[str, ProfileConsent]


_CONSENTS = {
    "marketing_email": {"granted": True, "at": EXAMPLE_TIME, "source": "preferences",
                        "expires_at": None, "version": "2026-11"},
    "ads": {"granted": False, "at": None, "source": "default", "expires_at": None, "version": None},
}  # fmt: skip
CONSENTS: dict[int | str, Any] = {
    200: describe_answer(UserConsents, "What stands", {"user_id": "123", "consents": _CONSENTS})
}
CONSENTED: dict[int | str, Any] = {202: describe_answer(Accepted, "Durable in the log", _ACCEPTED)}


# --- items


class ShownItem(Answer):
    """A catalogue entry; what is not known is left out."""

    item_id: str
    title: NotRequired[str | None]
    category: NotRequired[str | None]
    brand: NotRequired[str | None]
    price: NotRequired[float | None]
    currency: NotRequired[str | None]
    in_stock: bool
    available_from: NotRequired[str | None]
    is_merchandise: bool
    description: NotRequired[str | None]
    vector: NotRequired[list[float] | None]
    properties: NotRequired[dict[str, Any] | None]


class ItemRefused(Answer):
    """Why one item of a batch was not taken."""

    index: Count
    type: ProblemUri
    pointer: str
    detail: str


class ItemsTaken(Answer):
    """What became of a batch of items."""

    received: Count
    accepted: Count
    rejected: Count
    errors: list[ItemRefused]


SimilarityMethod = Literal["embedding+co_occurrence", "embedding", "vector", "category"]


class SimilarItem(Answer):
    """An item and how like it is."""

    item_id: str
    score: float
    rank: Rank


class Similar(Answer):
    """The items most like one."""

    item_id: str
    method: SimilarityMethod
    model: str | None
    items: list[SimilarItem]


_ITEM = {
    "item_id": "A", "title": "Fine Coffee", "category": "Grocery/Coffee", "brand": "Ox",
    "price": 3.5, "currency": "EUR", "in_stock": True, "is_merchandise": True,
    "vector": [0.6, -0.8],
}  # fmt: skip
_ITEMS = {"received": 1, "accepted": 1, "rejected": 0, "errors": []}
_ITEM_REFUSED = {
    "index": 0, "type": "/problems/invalid", "pointer": "/price",
    "detail": "Input should be greater than or equal to 0",
}  # fmt: skip

ITEM: dict[int | str, Any] = {200: describe_answer(ShownItem, "The item", _ITEM)}
ITEM_PUT: dict[int | str, Any] = {
    200: describe_answer(ShownItem, "Replaced", _ITEM),
    201: describe_answer(ShownItem, "Created", _ITEM),
}  # fmt: skip
ITEM_BATCH: dict[int | str, Any] = {
    200: describe_answer(ItemsTaken, "All taken", _ITEMS),
    207: describe_answer(ItemsTaken, "Some taken", _ITEMS | {
        "received": 2, "rejected": 1, "errors": [_ITEM_REFUSED | {"index": 1}]}),
    422: describe_answer(ItemsTaken, "None taken", {
        "received": 1, "accepted": 0, "rejected": 1, "errors": [_ITEM_REFUSED]}),
}  # fmt: skip
SIMILAR: dict[int | str, Any] = {
    200: describe_answer(Similar, "Similar items", {
        "item_id": "A", "method": "category", "model": None,
        "items": [{"item_id": "B", "score": 0.7, "rank": 1}]})
}  # fmt: skip


# --- recommendations


Lacking = Literal[
    "store_unavailable", "catalogue_loading", "model_unavailable", "features_unavailable",
    "model_failed",
]  # fmt: skip
"""Why an answer is degraded."""
RankingReason = Literal["model", "explicit_profile", "cold_start"] | Lacking
RelaxedRule = Literal[
    "max_age_days", "price", "brand.in", "category.in: department", "category.in", "repeat",
    "exclude: seen", "exclude: purchased",
]  # fmt: skip
"""A rule that gave way, see `services.recommend.rule_fallback`."""
CandidateSource = Literal["index", "repeat", "session", "trending", "new", "catalogue"]
ReasonCode = Literal[
    "bought_before", "looked_at", "interest_category", "interest_brand", "popular", "catalogue"
]
ExplanationMethod = Literal["leave_one_event_out", "leave_one_event_out_of_profile"]


class ReasonEvidence(Answer):
    """How often; empty where the interest behind it is forgotten."""

    view: NotRequired[Count]
    cart: NotRequired[Count]
    purchase: NotRequired[Count]


class RecommendationReason(Answer):
    """Why an item is in the list, and what that rests on."""

    code: ReasonCode
    key: NotRequired[Annotated[str, Field(description="Category or brand of an interest")]]
    evidence: NotRequired[ReasonEvidence]


class EventContribution(Answer):
    """A past event, and what the score would lack without it."""

    event_id: str
    type: str
    time: str
    items: list[str]
    contribution: float
    sentence: str


class Recommended(Open):
    """An item, its score and rank, and why where that was asked."""

    item_id: str
    score: float
    rank: Rank
    reasons: NotRequired[list[RecommendationReason] | None]
    sources: NotRequired[list[CandidateSource]]
    contributions: NotRequired[list[EventContribution]]
    propensity: NotRequired[Annotated[Share, Field(description="Probability of it at this rank")]]


class Recommendations(Open):
    """Items in order."""

    recommendation_id: str
    user_id: str | None
    items: list[Recommended]
    model: str | None
    placement: str | None
    personalized: bool
    degraded: bool
    reason: RankingReason
    relaxed: list[RelaxedRule]


class ExplainedItem(Answer):
    """The item whose score is explained."""

    kind: Literal["item"]
    item_id: str
    title: str | None


class LookedAt(Answer):
    """How many events were looked at, of how many."""

    looked_at: Count
    of: Count


class NeighbourContribution(Answer):
    """An item that the user had to do with, and its part in the score."""

    item_id: str
    title: str | None
    contribution: float


class FactContribution(Open):
    """What a fact of the candidate added to the score in the reranker's trees."""

    fact: str
    value: float | None
    contribution: float


class Explanation(Open):
    """What moved the score of an item for a user."""

    user_id: str
    target: ExplainedItem
    score: float
    model: str | None
    method: ExplanationMethod
    exact: bool
    events: LookedAt
    contributions: list[EventContribution]
    memories: list[NeighbourContribution]
    popularity: float | None
    reranking: list[FactContribution]


EXPLAINED: dict[int | str, Any] = {
    200: describe_answer(Explanation, "What moved the score, the most first", {
        "user_id": "123", "target": {"kind": "item", "item_id": "B", "title": None},
        "score": 1.5, "model": None, "method": "leave_one_event_out_of_profile", "exact": True,
        "events": {"looked_at": 1, "of": 1},
        "contributions": [
            {"event_id": "e-1", "type": "view_item", "time": EXAMPLE_TIME, "items": ["A"],
             "contribution": 0.4, "sentence": "viewed A on 1 Nov"}],
        "memories": [], "popularity": None, "reranking": []})
}  # fmt: skip
RECOMMENDED: dict[int | str, Any] = {
    200: describe_answer(Recommendations, "Items in order", {
        "recommendation_id": "cfa118cde5ff48a09b2a72749751ae66", "user_id": "123",
        "items": [{"item_id": "B", "score": 1.5, "rank": 1, "reasons": [
            {"code": "interest_category", "key": "Grocery/Coffee",
             "evidence": {"view": 1, "cart": 1, "purchase": 1}}],
             "sources": ["catalogue"], "contributions": []}],
        "model": None, "placement": None, "personalized": True, "degraded": False,
        "reason": "explicit_profile", "relaxed": []})
}  # fmt: skip


# --- operations


class Live(Answer):
    """The process answers."""

    status: Literal["ok"]


Picture = Literal["audiences", "analytics"]
"""What answers from a picture of the archive, and so may be behind it."""


class Ready(Answer):
    """Whether events are taken and applied, check by check."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, dict[str, Any]]
    degraded: list[Picture]
    model: str | None
    model_refused: bool
    uptime_s: Annotated[float, Field(ge=0)]


_READY: dict[str, Any] = {
    "status": "ok", "checks": {"store": {"ok": True, "took_ms": 0.4, "error": None}},
    "degraded": [], "model": None, "model_refused": False, "uptime_s": 12.5,
}  # fmt: skip

LIVE: dict[int | str, Any] = {200: describe_answer(Live, "The process answers", {"status": "ok"})}
READY: dict[int | str, Any] = {
    200: describe_answer(Ready, "Ready", _READY),
    503: describe_answer(Ready, "Not ready", _READY | {
        "status": "unavailable", "checks": {"store": {"ok": False, "took_ms": 900.0,
                                                       "error": "TimeoutError"}}}),
}  # fmt: skip
METRICS: dict[int | str, Any] = {
    200: {"description": "Numbers in Prometheus form", "content": {"text/plain": {
        "example": "# TYPE portrait_updaters gauge\nportrait_updaters 1\n"}}}
}  # fmt: skip
