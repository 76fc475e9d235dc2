"""The one event schema: what HTTP accepts, files are converted to, and the log keeps.

`Event` (Pydantic) is the outside form and does all validation. `EventRecord` (msgspec) is
the inside form: validated, pseudonymous, compact; the log, the archive and every fold read
it and nothing else. Limits here are those of the HTTP contract.
"""

import time as clock
import uuid
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, Final, Self

import msgspec
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from feature_repo.events.fields import (
    Amount,
    AnyCaseCurrency,
    Category,
    Id,
    LongText,
    Quantity,
    Text,
    UserId,
    Value,
    check_properties,
    check_tz,
    parse_time,
)
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.types import TYPES, list_types

CANONICAL_TYPES: Final = frozenset(list_types("code"))
"""Event types with a meaning of their own; any other name is a custom event."""
ITEM_TYPES: Final = frozenset(name for name, each in TYPES.items() if "items" in each.needs)
ORDER_TYPES: Final = frozenset(name for name, each in TYPES.items() if "order_id" in each.needs)

MAX_EVENT_BYTES: Final = 32 * 1024
MAX_BATCH_EVENTS: Final = 1000
MAX_BATCH_BYTES: Final = 5 * 1000 * 1000
MAX_ITEMS: Final = 200
DEDUP_WINDOW_MS: Final = 72 * 3600 * 1000
MAX_FUTURE_MS: Final = 5 * 60 * 1000
SESSION_GAP_MS: Final = 30 * 60 * 1000
LATE_MS: Final = 5 * 60 * 1000
"""An event received longer than this after its own time is late."""
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC; written without its offset


def now_ms() -> int:
    """Return the wall clock as epoch milliseconds."""
    return clock.time_ns() // 1_000_000


class EventItem(BaseModel):
    """One line of an event: an item, how many, and at what price."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    item_id: Id
    quantity: Quantity = 1.0
    price: Amount | None = None
    currency: AnyCaseCurrency | None = None
    category: Category | None = None
    brand: Text | None = None
    variant: Text | None = None
    position: Annotated[int, Field(ge=0, le=100_000)] | None = None
    discount: Amount | None = None
    coupon: Text | None = None


class Event(BaseModel):
    """One behaviour event as a client sends it.

    Examples
    --------
    >>> event = Event.model_validate(
    ...     {"type": "view_item", "user_id": "123", "items": [{"item_id": "A"}]}
    ... )
    >>> event.items[0].quantity
    1.0
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    user_id: UserId | None = None
    anonymous_id: UserId | None = None
    id: Id | None = None
    time: Annotated[int, BeforeValidator(parse_time)] | None = Field(
        default=None,
        description="RFC 3339 with offset, or epoch seconds or milliseconds",
        json_schema_extra={"type": ["string", "number", "null"]},
    )
    source: Annotated[str, StringConstraints(max_length=128)] = ""
    session_id: Id | None = None
    items: Annotated[list[EventItem], Field(max_length=MAX_ITEMS)] = []
    order_id: Id | None = None
    value: Value | None = None
    currency: AnyCaseCurrency | None = None
    coupon: Text | None = None
    query: LongText | None = None
    url: LongText | None = None
    device: Text | None = None
    channel: Text | None = None
    tz: Annotated[str, StringConstraints(max_length=64)] | None = None
    rating: Annotated[float, Field(allow_inf_nan=False, ge=0, le=10)] | None = None
    recommendation_id: Id | None = None
    campaign_id: Id | None = None
    placement: Id | None = None
    consent: Annotated[dict[Id, bool], Field(max_length=32)] | None = None
    properties: dict[str, Any] | None = None

    @field_validator("tz")
    @classmethod
    def _tz(cls, value: str | None) -> str | None:
        return None if value is None else check_tz(value)

    @field_validator("properties")
    @classmethod
    def _properties(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if value is None else check_properties(value)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        lacking = missing(self)
        if lacking is not None:
            raise ValueError(lacking)
        return self


def missing(event: Event) -> str | None:
    """Return what an event of its type lacks, as a message, or None if it is whole."""
    if event.user_id is None and event.anonymous_id is None:
        return "user_id or anonymous_id is required"
    known = TYPES.get(event.type)
    for field in () if known is None else known.needs:
        if getattr(event, field) in (None, []):
            return f"{field} is required for {event.type}"
    return None


class ItemRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One line of a stored event. ``discount`` is an amount off the whole line, ≥ 0."""

    item_id: str
    quantity: float = 1.0
    price: float | None = None
    category: str | None = None
    brand: str | None = None
    currency: str | None = None
    variant: str | None = None
    position: int | None = None
    discount: float | None = None
    coupon: str | None = None


class EventRecord(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One event as the log and the archive keep it.

    Attributes
    ----------
    user
        Pseudonym (`feature_repo.events.pseudonyms`); the raw user id is kept nowhere.
    linked
        Pseudonym of the anonymous id sent together with a user id, else None.
    time_ms, received_ms
        Event time and time of receipt, epoch milliseconds UTC.
    key
        Scope and id of the API key that sent it: ``write:1a2b3c4d5e6f``; None for what Portrait
        itself wrote, for imported history, and for what came before this was noted.
    """

    id: str
    type: str
    user: str
    time_ms: int
    received_ms: int
    source: str = ""
    anonymous: bool = False
    linked: str | None = None
    session_id: str | None = None
    items: list[ItemRecord] = []
    order_id: str | None = None
    value: float | None = None
    currency: str | None = None
    coupon: str | None = None
    query: str | None = None
    url: str | None = None
    device: str | None = None
    channel: str | None = None
    tz: str | None = None
    rating: float | None = None
    recommendation_id: str | None = None
    campaign_id: str | None = None
    placement: str | None = None
    consent: dict[str, bool] | None = None
    properties: dict[str, Any] | None = None
    key: str | None = None

    def encode(self) -> bytes:
        """Return the MessagePack form kept in the log."""
        return _encoder.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> "EventRecord":
        """Read the MessagePack form; `msgspec.DecodeError` if it is not an encoded record."""
        return _decoder.decode(data)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(EventRecord)

_COPIED = (
    "source", "session_id", "order_id", "value", "currency", "coupon", "query", "url",
    "device", "channel", "tz", "rating", "recommendation_id", "campaign_id", "placement",
    "consent", "properties", "key",
)  # fmt: skip


def to_record(
    event: Event, pseudonyms: Pseudonyms, received_ms: int, key: str | None = None
) -> EventRecord:
    """Return the stored form of a validated event.

    Parameters
    ----------
    event
        Validated event. Without ``id`` one is made; without ``time`` it is ``received_ms``.
    received_ms
        Time of receipt, epoch milliseconds.
    key
        See `EventRecord`.
    """
    if event.user_id is not None:
        user = pseudonyms.of_user(event.user_id)
        linked = None if event.anonymous_id is None else pseudonyms.of_anonymous(event.anonymous_id)
    else:
        assert event.anonymous_id is not None
        user, linked = pseudonyms.of_anonymous(event.anonymous_id), None
    return EventRecord(
        id=event.id or uuid.uuid4().hex,
        type=event.type,
        user=user,
        linked=linked,
        anonymous=event.user_id is None,
        time_ms=received_ms if event.time is None else event.time,
        received_ms=received_ms,
        items=[
            ItemRecord(
                i.item_id, i.quantity, i.price, i.category, i.brand, i.currency, i.variant,
                i.position, i.discount, i.coupon,
            )
            for i in event.items
        ],
        # Named one by one, not by a loop over `_COPIED`: that takes twice as long.
        source=event.source,
        session_id=event.session_id,
        order_id=event.order_id,
        value=event.value,
        currency=event.currency,
        coupon=event.coupon,
        query=event.query,
        url=event.url,
        device=event.device,
        channel=event.channel,
        tz=event.tz,
        rating=event.rating,
        recommendation_id=event.recommendation_id,
        campaign_id=event.campaign_id,
        placement=event.placement,
        consent=event.consent,
        properties=event.properties,
        key=key,
    )  # fmt: skip


def record_to_api(record: EventRecord) -> Any:
    """Return the record in the outside form, without any user id (the caller knows it).

    An event that came more than five minutes after it happened carries ``late: true``: it
    stands in the log, and so in every fold, after events that happened later.
    """
    body: dict[str, Any] = {"id": record.id, "type": record.type, "time": iso(record.time_ms)}
    if is_late(record):
        body["late"] = True
    if record.items:
        body["items"] = [
            {k: v for k, v in msgspec.structs.asdict(item).items() if v is not None}
            for item in record.items
        ]
    for name in _COPIED:
        value = getattr(record, name)
        if value is not None and value != "":
            body[name] = value
    return body


def is_late(record: EventRecord) -> bool:
    """Say whether an event was received more than `LATE_MS` after its own time."""
    return record.received_ms - record.time_ms > LATE_MS


def iso(millis: int) -> str:
    """Return epoch milliseconds as RFC 3339 UTC.

    Examples
    --------
    >>> iso(0)
    '1970-01-01T00:00:00.000Z'
    """
    # A profile shows dozens of times, most of them of few minutes.
    minute, rest = divmod(millis, 60_000)
    return f"{_minute(minute)}:{rest // 1000:02d}.{rest % 1000:03d}Z"


@lru_cache(maxsize=8192)
def _minute(number: int) -> str:
    return (_EPOCH + timedelta(minutes=number)).isoformat(timespec="minutes")


def pointer(location: tuple[int | str, ...]) -> str:
    """Return a Pydantic error location as a JSON pointer (RFC 6901).

    Examples
    --------
    >>> pointer(("items", 0, "price"))
    '/items/0/price'
    """
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def problems(error: ValidationError) -> list[dict[str, str]]:
    """Return a validation error as ``[{"pointer", "detail"}]``, without echoing input."""
    return [
        {"pointer": pointer(e["loc"]), "detail": e["msg"].removeprefix("Value error, ")}
        for e in error.errors(include_url=False, include_context=False, include_input=False)
    ]
