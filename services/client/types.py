"""Typed dictionaries of the client: the answers of the HTTP API.

`services.http.answer_schemas` describes each to others, as a schema of its name; a test holds
the two together. Profiles stay plain dictionaries: their members depend on the view.
"""

from typing import Any, Literal, NotRequired, TypedDict


class Accepted(TypedDict):
    """An event is in the log; with its profile where that was asked."""

    id: str
    status: Literal["accepted", "duplicate"]
    receipt: str
    set_aside: NotRequired[Literal["other_currency"]]
    profile: NotRequired[dict[str, Any]]


class EventRefused(TypedDict):
    """Why one event of a batch was not taken."""

    index: int
    id: str | None
    type: str
    pointer: str
    detail: str


class EventsTaken(TypedDict):
    """What became of a batch; no receipt if nothing was taken."""

    received: int
    accepted: int
    duplicates: int
    rejected: int
    receipt: str | None
    errors: list[EventRefused]
    amounts_set_aside: NotRequired[int]


class EventPage(TypedDict):
    """Some events of a user, newest first."""

    events: list[dict[str, Any]]
    next_cursor: str | None


class UserConsents(TypedDict):
    """What a user has said, by purpose; what is not there is not granted."""

    user_id: str
    consents: dict[str, dict[str, Any]]


class Export(TypedDict):
    """Everything that is kept of a user, events oldest first."""

    user_id: str
    exported_at: str
    complete: bool
    consents: dict[str, dict[str, Any]]
    profile: dict[str, Any]
    events: list[dict[str, Any]]


class Recommended(TypedDict):
    """An item, its score and place, and why where that was asked."""

    item_id: str
    score: float
    rank: int
    reasons: NotRequired[list[dict[str, Any]]]


class Recommendations(TypedDict):
    """Items in order."""

    recommendation_id: str
    user_id: str | None
    items: list[Recommended]
    model: str | None
    placement: str | None
    personalized: bool
    degraded: bool
    reason: str
    relaxed: list[Any]


class ItemRefused(TypedDict):
    """Why one item of a batch was not taken."""

    index: int
    type: str
    pointer: str
    detail: str


class ItemsTaken(TypedDict):
    """What became of a batch of items."""

    received: int
    accepted: int
    rejected: int
    errors: list[ItemRefused]


class SimilarItem(TypedDict):
    """An item and how like it is."""

    item_id: str
    score: float
    rank: int


class Similar(TypedDict):
    """The items most like one."""

    item_id: str
    method: str
    model: str | None
    items: list[SimilarItem]


class Ready(TypedDict):
    """Whether events are taken and applied, check by check."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, dict[str, Any]]
    degraded: list[str]
    model: str | None
    model_refused: bool
    uptime_s: float


class Models(TypedDict):
    """The models on disk and which one is in use."""

    models: list[dict[str, Any]]
    in_use: str | None
