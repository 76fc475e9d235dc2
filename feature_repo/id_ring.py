"""Ids in few bytes, found and changed in place: numbers in slots of equal width, names as text.

Belongs here: order, membership and bounds of such a row of ids. Not here: what the ids mean.

Numbers stand little-endian in ``slots`` of 3, 4, 6 or 8 bytes, a width that the first of them
sets. Any other id stands in ``names``, and a slot of all ones marks its place; without a
number there are no slots at all. Finding, adding and taking out are searches and copies of
bytes: they cost the same whether ten ids are kept or five hundred.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from feature_repo.compact import pack_id

Stored = int | bytes
"""An id as kept here: a number, or a name between two `END`; UTF-8 has no such byte."""

MAX_NAMES_BYTES: Final = 16_384
"""Bound of all names of a ring together; beyond it the oldest ids go."""

END: Final = b"\xff"
"""Stands before, between and after names."""

_MARKS: Final = {width: b"\xff" * width for width in (3, 4, 6, 8)}
_LIMITS: Final = tuple(256**width - 1 if width in _MARKS else 0 for width in range(9))


class Ids(msgspec.Struct, array_like=True, gc=False):
    """A row of ids, oldest first.

    Attributes
    ----------
    width
        Bytes of a slot; 0 while no number has come.
    slots
        One slot an id, if ``width`` is not 0.
    names
        The ids that are no number of ``width`` bytes, each between two `END`.
    """

    width: int = 0
    slots: bytes = b""
    names: bytes = b""


@lru_cache(maxsize=65_536)
def stored(text: str) -> Stored:
    r"""Return an id as it is kept.

    Examples
    --------
    >>> stored("1095275"), stored("B-12")
    (1095275, b'\xffB-12\xff')
    """
    key = pack_id(text)
    return key if isinstance(key, int) else b"\xff%b\xff" % key.encode()


def shown(key: Stored) -> str:
    """Return the id that `stored` took."""
    return str(key) if isinstance(key, int) else key[1:-1].decode()


def index(row: Ids, key: Stored) -> int:
    """Return where the first ``key`` stands, −1 if nowhere."""
    width = row.width
    if isinstance(key, int):
        if key < _LIMITS[width]:
            return _slot(row.slots, key.to_bytes(width, "little"), width)
        key = b"\xff%d\xff" % key
    at = row.names.find(key)
    if at < 0:
        return -1
    nth = row.names.count(END, 0, at)
    return _nth_mark(row, nth) if width else nth


def append(row: Ids, key: Stored) -> None:
    """Put ``key`` behind the others, whether or not it is among them."""
    if not row.slots and not row.names:
        row.width = _width(key)
    if isinstance(key, int):
        if key < _LIMITS[row.width]:
            row.slots += key.to_bytes(row.width, "little")
            return
        key = b"\xff%d\xff" % key
    row.names = row.names + key[1:] if row.names else key
    if row.width:
        row.slots += _MARKS[row.width]


def delete(row: Ids, at: int) -> None:
    """Take out the id that stands at ``at``."""
    width, slots = row.width, row.slots
    if width:
        start = at * width
        row.slots = slots[:start] + slots[start + width :]
        mark = _MARKS[width]
        if not row.names or slots[start : start + width] != mark:
            return
        at = _marks(slots[:start], mark)
    names = row.names
    behind = names.count(END) - 1 - at
    if behind <= at:
        head = names.rsplit(END, behind)[0]
    else:
        head = names[: -1 - len(names.split(END, at + 2)[-1])]
    after = names[len(head) + 1 :]
    row.names = head[: head.rfind(END) + 1] + after if after or at else b""


def drop(row: Ids, many: int) -> None:
    """Take out the ``many`` oldest ids."""
    width = row.width
    if width:
        gone = row.slots[: many * width]
        row.slots = row.slots[many * width :]
        many = _marks(gone, _MARKS[width]) if row.names else 0
    if many:
        names = row.names.split(END, many + 1)
        row.names = END + names[-1] if names[-1] else b""


def length(row: Ids) -> int:
    """Return the number of ids."""
    if row.width:
        return len(row.slots) // row.width
    return max(0, row.names.count(END) - 1)


def keys(row: Ids) -> list[Stored]:
    """Return the ids as kept, oldest first."""
    names = iter([b"\xff%b\xff" % name for name in row.names.split(END)[1:-1]])
    width, slots = row.width, row.slots
    if not width:
        return list(names)
    mark = _LIMITS[width]
    numbers = (
        int.from_bytes(slots[at : at + width], "little") for at in range(0, len(slots), width)
    )
    # A name of digits was a number too large for its slot.
    return [next(names) if number == mark else number for number in numbers]


def ids(row: Ids) -> list[str]:
    """Return the ids, oldest first.

    Examples
    --------
    >>> ring = Ids()
    >>> add(ring, map(stored, ["5", "B", "7", "B"]), capacity=2)
    >>> ids(ring)
    ['B', '7']
    """
    return [shown(key) for key in keys(row)]


def add(row: Ids, new: Iterable[Stored], capacity: int) -> None:
    """Append the ids that are not there yet; beyond ``capacity`` ids the oldest go."""
    for key in new:
        if index(row, key) < 0:
            append(row, key)
    _bound(row, capacity)


def renew(row: Ids, again: Sequence[Stored], capacity: int) -> None:
    """Put ids last, each once; beyond ``capacity`` the oldest go."""
    for key in again:
        at = index(row, key)
        if at >= 0:
            delete(row, at)
        append(row, key)
    _bound(row, capacity)


def discard(row: Ids, key: Stored) -> None:
    """Take an id out if it is there."""
    at = index(row, key)
    if at >= 0:
        delete(row, at)


def _bound(row: Ids, capacity: int) -> None:
    surplus = length(row) - capacity
    if surplus > 0:
        drop(row, surplus)
    while len(row.names) > MAX_NAMES_BYTES:
        drop(row, 1)


def _width(key: Stored) -> int:
    """Return the width that ``key`` sets as the first of a row."""
    if isinstance(key, int):
        return next((width for width in _MARKS if key < _LIMITS[width]), 0)
    return 0


def _slot(slots: bytes, slot: bytes, width: int) -> int:
    """Return the number of the first slot that equals ``slot``, or −1."""
    at = slots.find(slot)
    while at > 0 and at % width:
        at = slots.find(slot, at + 1)
    return at // width


def _marks(slots: bytes, mark: bytes) -> int:
    """Return how many of ``slots`` are marks."""
    width = len(mark)
    return sum(slots[at : at + width] == mark for at in range(0, len(slots), width))


def _nth_mark(row: Ids, nth: int) -> int:
    mark, width = _MARKS[row.width], row.width
    starts = range(0, len(row.slots), width)
    marks = [at // width for at in starts if row.slots[at : at + width] == mark]
    return marks[nth]
