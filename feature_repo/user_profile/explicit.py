"""The explicit profile: what is known of a user without a model, as a fold of their events.

``u_t = f(u_{t−1}, x_t)`` in constant time and memory, one implementation for live updates,
replay and offline features. Belongs here: which part of the state an event changes. Not
here: the state and its bytes (`state`), the parts themselves (`interests`, `orders`, `session`,
`recent`, `activity`, `consent`) and how a profile is shown (`feature_repo.profile_views`).

Events are folded in log order, whatever their times: a late event is counted at its own
time where the state can still hold it and never turns the profile back.
"""

from collections.abc import Iterable
from typing import Final

from feature_repo.events.schema import CANONICAL_TYPES, EventRecord
from feature_repo.events.types import CONSUMED, find_types
from feature_repo.user_profile import activity, consent
from feature_repo.user_profile import orders as buying
from feature_repo.user_profile.compact import Key, pack_type
from feature_repo.user_profile.id_ring import Stored, add, discard, ids, length, pack_key, renew
from feature_repo.user_profile.interests import TOUCHES, Capacity, Touch, next_order, touch
from feature_repo.user_profile.names import pack_name
from feature_repo.user_profile.recent import MAX_RECENT, remember
from feature_repo.user_profile.session import advance
from feature_repo.user_profile.state import (
    MAX_ENCODED_BYTES,
    SCHEMA,
    ExplicitProfile,
    decode,
    encode,
    new,
)

__all__ = [
    "MAX_ENCODED_BYTES", "MAX_RECENT", "SCHEMA", "ExplicitProfile", "apply", "category_levels",
    "decode", "encode", "fold", "is_behaviour", "new", "purchased_items", "refused_items",
    "seen_items",
]  # fmt: skip

MAX_SEEN: Final = 200
MAX_REFUSED: Final = 50
MAX_CUSTOM_TYPES: Final = 16
MAX_CHANNELS: Final = 8
OTHER: Final = "_other"
"""Counts what a bounded table of names has no room for; no event type starts with ``_``."""

ITEM_CAPACITY: Final = Capacity(heaviest=18, newest=6)
CATEGORY_CAPACITY: Final = Capacity(heaviest=16, newest=4)
BRAND_CAPACITY: Final = Capacity(heaviest=6, newest=2)

_STATING_TYPES: Final = find_types("consent")
_PASSIVE_TYPES: Final = find_types("passive")
_SEEN_TYPES: Final = find_types("seen")
_WANTED_TYPES: Final = find_types("wanted")


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
    >>> from feature_repo.events.schema import ItemRecord
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


def apply(profile: ExplicitProfile, event: EventRecord) -> bool:
    """Apply one event in place, in time bounded by its own number of items.

    After an exception the profile is in no defined state: decode it again.

    Returns
    -------
    bool
        False for a purchase that tells of a whole order again: it moves no learned state.
    """
    is_told_again = False
    at, event_type = event.time_ms // 1000, event.type
    packed_type = pack_type(event_type)
    _date(profile, at)
    if isinstance(packed_type, int) and event_type in profile.counts:  # it was a custom type before
        profile.counts[packed_type] = profile.counts.pop(event_type)
    _count(profile.counts, packed_type, MAX_CUSTOM_TYPES, not isinstance(packed_type, str))
    if not event.anonymous:
        profile.anonymous = False
    if event.linked is not None or event.consent is not None or event_type in _STATING_TYPES:
        consent.update(profile.consent_and_links, event)
    if event_type not in _PASSIVE_TYPES:
        if at > profile.seen_at:
            profile.seen_at = at
        profile.session = advance(profile.session, event, at)
        profile.hours = activity.count_hour(profile.hours, at, event.tz)
        if event.channel:
            _count(profile.channels, event.channel, MAX_CHANNELS, False)
    if event_type == "purchase":
        is_new, is_told_again = buying.purchase(profile.orders, event, at)
        if is_new:
            for table in (profile.items, profile.categories, profile.brands):
                next_order(table)
    elif event_type == "refund":
        buying.refund(profile.orders, event, at)
    if event.items:
        _apply_items(profile, event, packed_type, at)
    return not is_told_again


def _date(profile: ExplicitProfile, at: int) -> None:
    version: int = profile.version
    if version == 0:
        profile.first_at = profile.last_at = at
    elif at >= profile.last_at:
        profile.last_at = at
    else:
        profile.late += 1
        profile.first_at = min(profile.first_at, at)
    profile.version = version + 1


def _apply_items(profile: ExplicitProfile, event: EventRecord, packed_type: Key, at: int) -> None:
    event_type = event.type
    items = [pack_key(item.item_id) for item in event.items]
    if is_behaviour(event_type):
        remember(profile.ring, packed_type, at, items)
    if event_type in _SEEN_TYPES:
        renew(profile.seen, items, MAX_SEEN)
    if event_type == "not_interested":
        add(profile.refused, items, MAX_REFUSED)
    elif event_type in _WANTED_TYPES and length(profile.refused):
        for key in items:
            discard(profile.refused, key)
    rule = TOUCHES.get(event_type)
    if rule is not None:
        _touch(profile, event, items, rule, at)


def _touch(
    profile: ExplicitProfile, event: EventRecord, items: list[Stored], rule: Touch, at: int
) -> None:
    several = len(items) > 1  # the keys of one item are distinct
    touch(profile.items, _distinct(items) if several else items, rule, at, ITEM_CAPACITY)
    if rule.item_only:
        return
    categories, brands = list[Stored](), list[Stored]()
    for item in event.items:
        if item.category:
            categories += category_keys(item.category)
        if item.brand:
            brands.append(pack_name(item.brand))
    if several:
        categories, brands = _distinct(categories), _distinct(brands)
    if categories:
        touch(profile.categories, categories, rule, at, CATEGORY_CAPACITY)
    if brands:
        touch(profile.brands, brands, rule, at, BRAND_CAPACITY)


def _distinct(keys: list[Stored]) -> list[Stored]:
    return list(dict.fromkeys(keys))


_KEYS_OF: Final = dict[str, list[bytes]]()
_MAX_KEYS_OF: Final = 65_536


def category_keys(path: str) -> list[bytes]:
    """Return the packed names that a category path counts for; not to be changed."""
    known = _KEYS_OF.get(path)
    if known is not None:
        return known
    if len(_KEYS_OF) >= _MAX_KEYS_OF:
        _KEYS_OF.clear()
    keys = _KEYS_OF[path] = [pack_name(name) for name in category_levels(path)]
    return keys


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
    return event_type in CONSUMED or event_type not in CANONICAL_TYPES


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
    return ids(profile.refused)
