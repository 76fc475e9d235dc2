"""The explicit profile: what is known of a user without a model, as a fold of their events.

``u_t = f(u_{t−1}, x_t)`` in constant time and memory, one implementation for live updates,
replay and offline features. Belongs here: the state as a whole, which part an event
changes, and its bytes. Not here: the parts themselves (`heavy_hitters`, `orders`,
`session`, `rhythm`, `standing`) and how a profile is shown (`views`).

Events are folded in log order, whatever their times: a late event is counted at its own
time where the state can still hold it and never turns the profile back.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import msgspec

from feature_repo import orders
from feature_repo.compact import Key, pack_id, pack_type
from feature_repo.errors import ModelMismatchError
from feature_repo.events import CANONICAL_TYPES, ITEM_TYPES, EventRecord
from feature_repo.heavy_hitters import TOUCHES, Capacity, Table, Touch, prune, touch
from feature_repo.id_ring import IdRing, add, discard, ids
from feature_repo.orders import Orders
from feature_repo.rhythm import Rhythm, beat
from feature_repo.session import Session, advance
from feature_repo.standing import Standing, update

SCHEMA: Final = 1
"""Version of the state's layout; a change means folding the log anew."""

MAX_ENCODED_BYTES: Final = 256 * 1024
"""No profile is larger, whatever its history; one with ids of up to 20 characters stays
below 32 kB, one with numeric ids below 8 kB."""

MAX_RECENT: Final = 50
MAX_SEEN: Final = 200
MAX_REFUSED: Final = 50
MAX_CUSTOM_TYPES: Final = 16
MAX_CHANNELS: Final = 8
OTHER: Final = "_other"
"""Counts what a bounded table of names has no room for; no event type starts with ``_``."""

ITEM_CAPACITY: Final = Capacity(heaviest=20, newest=8, slack=4)
CATEGORY_CAPACITY: Final = Capacity(heaviest=24, newest=4, slack=4)
BRAND_CAPACITY: Final = Capacity(heaviest=8, newest=2, slack=2)

PASSIVE_TYPES: Final = frozenset({"message_sent"})
"""Done to the user, not by the user: no session, no habit, no sign of life."""

_SEEN_TYPES: Final = frozenset({"view_item", "select_item", "add_to_cart", "add_to_wishlist"})


class Recent(msgspec.Struct, array_like=True, gc=False):
    """One item event in the ring: stored type, epoch seconds and its items."""

    type: Key
    at: int
    items: list[Key]


class ExplicitProfile(msgspec.Struct, array_like=True):
    """The state. Times are epoch seconds.

    Attributes
    ----------
    version
        Number of events applied.
    first_at, last_at
        Earliest and latest event time.
    seen_at
        Latest time of an event by the user (`PASSIVE_TYPES` left out), 0 for none.
    counts
        Events by stored type; at most `MAX_CUSTOM_TYPES` custom types, the rest as `OTHER`.
    recent
        The last `MAX_RECENT` items of item events, oldest first, grouped by event.
    recent_items
        Number of items in ``recent``.
    seen
        Distinct items looked at, put into a cart or saved, last seen last, at most
        `MAX_SEEN`.
    refused
        Items marked not interested, at most `MAX_REFUSED`; buying or carting one lifts it.
    channels
        Events by channel, at most `MAX_CHANNELS` names, the rest as `OTHER`.
    """

    schema: int = SCHEMA
    version: int = 0
    first_at: int = 0
    last_at: int = 0
    seen_at: int = 0
    counts: dict[Key, int] = {}
    items: Table = {}
    categories: Table = {}
    brands: Table = {}
    recent: list[Recent] = []
    recent_items: int = 0
    seen: IdRing = msgspec.field(default_factory=IdRing)
    refused: list[Key] = []
    channels: dict[Key, int] = {}
    orders: Orders = msgspec.field(default_factory=Orders)
    session: Session = msgspec.field(default_factory=Session)
    rhythm: Rhythm = msgspec.field(default_factory=Rhythm)
    standing: Standing = msgspec.field(default_factory=Standing)

    @property
    def event_count(self) -> int:
        """Number of events applied; the same number as ``version``."""
        return self.version


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ExplicitProfile)


def new() -> ExplicitProfile:
    """Return the profile of a user without events."""
    return ExplicitProfile()


def encode(profile: ExplicitProfile) -> bytes:
    """Return the profile's bytes (MessagePack); equal profiles give equal bytes."""
    return _encoder.encode(profile)


def decode(data: bytes) -> ExplicitProfile:
    """Read a profile's bytes.

    Raises
    ------
    ModelMismatchError
        If the bytes are no profile, or one of another `SCHEMA`.

    Examples
    --------
    >>> decode(encode(new())) == new()
    True
    """
    try:
        profile = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise ModelMismatchError(
            f"{len(data)} bytes are no explicit profile of schema {SCHEMA}: rebuild it from the log"
        ) from error
    if profile.schema != SCHEMA:
        raise ModelMismatchError(
            f"the explicit profile has schema {profile.schema}, this code reads {SCHEMA}: "
            "rebuild it from the log"
        )
    return profile


def fold(events: Iterable[EventRecord], profile: ExplicitProfile | None = None) -> ExplicitProfile:
    """Apply events in order and return the profile; ``fold(a + b) = fold(b, fold(a))``.

    Parameters
    ----------
    events
        One user's events in log order.
    profile
        State to continue, changed in place; None starts a new one.

    Examples
    --------
    >>> from feature_repo.events import ItemRecord
    >>> view = EventRecord(
    ...     id="1", type="view_item", user="u", time_ms=0, received_ms=0, items=[ItemRecord("A")]
    ... )
    >>> fold([view, view]).items["A"].views
    2
    """
    state = new() if profile is None else profile
    for event in events:
        apply(state, event)
    return state


def apply(profile: ExplicitProfile, event: EventRecord) -> None:
    """Apply one event in place, in time bounded by its own number of items."""
    at = event.time_ms // 1000
    profile.first_at = min(profile.first_at, at) if profile.version else at
    profile.last_at = max(profile.last_at, at)
    profile.version += 1
    _count(profile.counts, pack_type(event.type), MAX_CUSTOM_TYPES, event.type in CANONICAL_TYPES)
    update(profile.standing, event, at)
    if event.type not in PASSIVE_TYPES:
        profile.seen_at = max(profile.seen_at, at)
        profile.session = advance(profile.session, event, at)
        beat(profile.rhythm, at, event.tz)
        if event.channel:
            _count(profile.channels, event.channel, MAX_CHANNELS, False)
    if event.type == "purchase":
        orders.purchase(profile.orders, event, at)
    elif event.type == "refund":
        orders.refund(profile.orders, event, at)
    if event.items:
        _apply_items(profile, event, at)


def _apply_items(profile: ExplicitProfile, event: EventRecord, at: int) -> None:
    items = [pack_id(item.item_id) for item in event.items]
    if is_behaviour(event.type):
        _remember(profile, Recent(pack_type(event.type), at, items[-MAX_RECENT:]))
    if event.type in _SEEN_TYPES:
        _see(profile.seen, items)
    if event.type == "not_interested":
        _append_distinct(profile.refused, items, MAX_REFUSED)
    elif profile.refused and event.type in {"purchase", "add_to_cart", "add_to_wishlist"}:
        profile.refused = [key for key in profile.refused if key not in items]
    rule = TOUCHES.get(event.type)
    if rule is None:
        return
    order = profile.orders.count
    _touch_all(profile.items, ITEM_CAPACITY, dict.fromkeys(items), rule, at, order)
    if rule.item_only:
        return
    categories, brands = dict[Key, None](), dict[Key, None]()
    for item in event.items:
        if item.category:
            for level in category_levels(item.category):
                categories[level] = None
        if item.brand:
            brands[item.brand] = None
    _touch_all(profile.categories, CATEGORY_CAPACITY, categories, rule, at, order)
    _touch_all(profile.brands, BRAND_CAPACITY, brands, rule, at, order)


def _touch_all(
    table: Table, capacity: Capacity, keys: Iterable[Key], rule: Touch, at: int, order: int
) -> None:
    for key in keys:
        touch(table, key, rule, at, order)
    prune(table, capacity)


@lru_cache(maxsize=4096)
def category_levels(path: str) -> tuple[str, ...]:
    """Return the keys a category path counts for: its first two levels and the whole path.

    Examples
    --------
    >>> category_levels("Grocery/Snacks/Chips/Salted")
    ('Grocery', 'Grocery/Snacks', 'Grocery/Snacks/Chips/Salted')
    """
    parts = path.split("/", 2)
    return tuple(dict.fromkeys((parts[0], "/".join(parts[:2]), path)))


def is_behaviour(event_type: str) -> bool:
    """Say whether an event of this type on items is something the user did to them.

    Impressions are not; a custom event on items is.

    Examples
    --------
    >>> is_behaviour("view_item"), is_behaviour("view_item_list"), is_behaviour("try_on")
    (True, False, True)
    """
    if event_type in ITEM_TYPES:
        return event_type != "view_item_list"
    return event_type not in CANONICAL_TYPES


def _remember(profile: ExplicitProfile, entry: Recent) -> None:
    recent = profile.recent
    recent.append(entry)
    profile.recent_items += len(entry.items)
    surplus = profile.recent_items - MAX_RECENT
    if surplus > 0:
        profile.recent_items = MAX_RECENT
    while surplus > 0:
        oldest = recent[0].items
        if len(oldest) > surplus:
            del oldest[:surplus]
            break
        surplus -= len(oldest)
        del recent[0]


def _see(seen: IdRing, items: list[Key]) -> None:
    for key in items:
        discard(seen, key)
    add(seen, items, MAX_SEEN)


def _append_distinct(keys: list[Key], items: list[Key], capacity: int) -> None:
    keys.extend(key for key in dict.fromkeys(items) if key not in keys)
    del keys[:-capacity]


def _count(counts: dict[Key, int], name: Key, capacity: int, reserved: bool) -> None:
    if not reserved and name not in counts:
        named = sum(isinstance(key, str) and key != OTHER for key in counts)
        if named >= capacity:
            name = OTHER
    counts[name] = counts.get(name, 0) + 1


def purchased_items(profile: ExplicitProfile) -> list[str]:
    """Return the distinct items bought, first purchase first (the last `orders.MAX_HISTORY`)."""
    return ids(profile.orders.history)


def seen_items(profile: ExplicitProfile) -> list[str]:
    """Return the items the user looked at, carted, saved or bought: ``exclude=seen``."""
    return list(dict.fromkeys([*ids(profile.orders.history), *ids(profile.seen)]))


def refused_items(profile: ExplicitProfile) -> list[str]:
    """Return the items marked not interested, which no recommendation may hold."""
    return [str(key) for key in profile.refused]
