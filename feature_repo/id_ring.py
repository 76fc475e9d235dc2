"""A ring of distinct ids in few bytes: four for a number, its own length for a name.

Belongs here: order, membership and bounds of such a ring. Not here: what the ids mean.

Numbers below 2³² − 1 are packed little-endian into ``slots``; any other id stands in
``names``, and a slot of all ones marks its place. Reading a profile so costs the same
whether the ring is empty or full.
"""

import struct
from collections.abc import Iterable
from typing import Final

import msgspec

from feature_repo.compact import Key

MAX_NAMES_BYTES: Final = 16_384
"""Bound of all names of a ring together, UTF-8; beyond it the oldest ids go."""

_SLOT: Final = struct.Struct("<I")
_MARK_NUMBER: Final = 2**32 - 1
_MARK: Final = b"\xff\xff\xff\xff"


class IdRing(msgspec.Struct, array_like=True, gc=False):
    """Distinct ids, oldest first.

    Attributes
    ----------
    slots
        Four bytes an id, oldest first.
    names
        The ids that are no small number, oldest first.
    names_bytes
        UTF-8 bytes of all names.
    """

    slots: bytes = b""
    names: list[str] = []
    names_bytes: int = 0


def ids(ring: IdRing) -> list[str]:
    """Return the ids, oldest first.

    Examples
    --------
    >>> ring = IdRing()
    >>> add(ring, [5, "B", 7, "B"], capacity=2)
    >>> ids(ring)
    ['B', '7']
    """
    names = iter(ring.names)
    return [
        next(names) if number == _MARK_NUMBER else str(number)
        for (number,) in _SLOT.iter_unpack(ring.slots)
    ]


def add(ring: IdRing, keys: Iterable[Key], capacity: int) -> None:
    """Append the ids that are not in the ring; beyond ``capacity`` ids the oldest go."""
    pack, slots = _SLOT.pack, ring.slots
    for key in keys:
        if isinstance(key, int) and key < _MARK_NUMBER:
            slot = pack(key)
            if _find(slots, slot) < 0:
                slots += slot
        elif (name := str(key)) not in ring.names:
            ring.names.append(name)
            ring.names_bytes += len(name.encode())
            slots += _MARK
    ring.slots = slots
    while len(ring.slots) > 4 * capacity or ring.names_bytes > MAX_NAMES_BYTES:
        _drop(ring, 0, 0)


def discard(ring: IdRing, key: Key) -> None:
    """Take an id out of the ring if it is there."""
    if isinstance(key, int) and key < _MARK_NUMBER:
        at = _find(ring.slots, _SLOT.pack(key))
        if at >= 0:
            _drop(ring, at, 0)
        return
    name = str(key)
    if name in ring.names:
        nth = ring.names.index(name)
        marks = [at for at in range(0, len(ring.slots), 4) if ring.slots[at : at + 4] == _MARK]
        _drop(ring, marks[nth], nth)


def _find(slots: bytes, slot: bytes) -> int:
    """Return where ``slot`` stands on a border of four bytes, or −1."""
    at = slots.find(slot)
    while at > 0 and at % 4:
        at = slots.find(slot, at + 1)
    return at


def _drop(ring: IdRing, at: int, nth_name: int) -> None:
    """Take out the slot at byte ``at``; if it marks a name, that is the ``nth_name``."""
    if ring.slots[at : at + 4] == _MARK:
        ring.names_bytes -= len(ring.names.pop(nth_name).encode())
    ring.slots = ring.slots[:at] + ring.slots[at + 4 :]
