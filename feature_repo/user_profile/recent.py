"""The last items of item events, in a ring that costs the same to change however full it is.

Belongs here: order and bound of the ring. Not here: which events enter it (see `explicit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from feature_repo.user_profile.compact import Key, unpack_type
from feature_repo.user_profile.id_ring import END, Row, Stored, append, drop, ids, size

if TYPE_CHECKING:
    from feature_repo.user_profile.parts import Recent

MAX_RECENT: Final = 50


class RecentItems(NamedTuple):
    """One item event in the ring: its type, epoch seconds and its items."""

    type: str
    at: int
    items: list[str]


_GROUP: Final = Struct("<BBI")
_CUSTOM: Final = 0xFF
_MAX_TIME: Final = 2**32 - 1


def remember(ring: Recent, event_type: Key, at: int, items: Sequence[Stored]) -> None:
    """Add an event's items, `MAX_RECENT` at most; ``event_type`` as `pack_type` gives it."""
    items = items[-MAX_RECENT:]
    row = Row(ring)
    for key in items:
        append(row, key)
    if isinstance(event_type, int):
        ring.groups += _group(event_type, len(items), max(0, min(_MAX_TIME, at)))
    else:
        ring.customs += END + event_type.encode()
        ring.groups += _group(_CUSTOM, len(items), max(0, min(_MAX_TIME, at)))
    surplus = size(row) - MAX_RECENT
    if surplus > 0:
        drop(row, surplus)
        _shorten(ring, surplus)
    row.keep(ring)


def _group(number: int, many: int, at: int) -> bytes:
    return (number | many << 8 | at << 16).to_bytes(_GROUP.size, "little")


def _shorten(ring: Recent, surplus: int) -> None:
    groups, gone = ring.groups, 0
    while surplus > 0:
        many = groups[gone + 1]
        if many > surplus:
            left = bytes((groups[gone], many - surplus))
            groups = groups[:gone] + left + groups[gone + 2 :]
            break
        surplus -= many
        gone += _GROUP.size
        if groups[gone - _GROUP.size] == _CUSTOM:
            following = ring.customs.find(END, 1)
            ring.customs = ring.customs[following:] if following > 0 else b""
    ring.groups = groups[gone:]


def recent_items(ring: Recent) -> list[RecentItems]:
    r"""Return the events in the ring, oldest first.

    Examples
    --------
    >>> from feature_repo.user_profile.parts import Recent
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
