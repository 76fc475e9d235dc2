"""The last items of item events, in a ring that costs the same to change however full it is.

Belongs here: order and bound of the ring. Not here: which events enter it (see `explicit`).
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

from feature_repo.compact import Key, unpack_type
from feature_repo.id_ring import END, Ids, Stored, append, drop, ids, length

MAX_RECENT: Final = 50


class RecentItems(NamedTuple):
    """One item event in the ring: its type, epoch seconds and its items."""

    type: str
    at: int
    items: list[str]


class Recent(Ids):
    """The last `MAX_RECENT` items, oldest first, as ids.

    Attributes
    ----------
    groups
        An event's type number, number of items and epoch seconds, one event after another.
    customs
        Names of the types without a number, each behind an `END`, oldest first.
    """

    groups: bytes = b""
    customs: bytes = b""


_GROUP: Final = Struct("<BBI")
_CUSTOM: Final = 0xFF
_MAX_TIME: Final = 2**32 - 1


def remember(ring: Recent, event_type: Key, at: int, items: Sequence[Stored]) -> None:
    """Add an event's items, `MAX_RECENT` at most; ``event_type`` as `pack_type` gives it."""
    items = items[-MAX_RECENT:]
    for key in items:
        append(ring, key)
    number = _CUSTOM
    if isinstance(event_type, int):
        number = event_type
    else:
        ring.customs += END + event_type.encode()
    ring.groups += _GROUP.pack(number, len(items), max(0, min(_MAX_TIME, at)))
    surplus = length(ring) - MAX_RECENT
    if surplus > 0:
        drop(ring, surplus)
        _shorten(ring, surplus)


def _shorten(ring: Recent, surplus: int) -> None:
    groups, gone = ring.groups, 0
    while surplus > 0:
        number, many, at = _GROUP.unpack_from(groups, gone)
        if many > surplus:
            left = _GROUP.pack(number, many - surplus, at)
            groups = groups[:gone] + left + groups[gone + _GROUP.size :]
            break
        surplus -= many
        gone += _GROUP.size
        if number == _CUSTOM:
            following = ring.customs.find(END, 1)
            ring.customs = ring.customs[following:] if following > 0 else b""
    ring.groups = groups[gone:]


def recent_items(ring: Recent) -> list[RecentItems]:
    r"""Return the events in the ring, oldest first.

    Examples
    --------
    >>> ring = Recent()
    >>> remember(ring, "try_on", 60, [b"\xffA\xff"])
    >>> recent_items(ring)
    [RecentItems(type='try_on', at=60, items=['A'])]
    """
    names = iter(ring.customs.split(END)[1:])
    items = iter(ids(ring))
    return [
        RecentItems(
            next(names).decode() if number == _CUSTOM else unpack_type(number),
            at,
            [next(items) for _ in range(many)],
        )
        for number, many, at in _GROUP.iter_unpack(ring.groups)
    ]
