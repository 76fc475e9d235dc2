"""Ids in few bytes, found and changed in place: numbers in slots of equal width, names as text.

Belongs here: order, membership and bounds of such a row of ids. Not here: what the ids mean.

Numbers stand little-endian in ``slots`` of 3, 4, 6 or 8 bytes, a width that the first of them
sets. Any other id stands in ``names``, and a slot of all ones marks its place; without a
number there are no slots at all. Finding, adding and taking out are searches and copies of
bytes: they cost the same whether ten ids are kept or five hundred.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from feature_repo.user_profile.compact import pack_id

if TYPE_CHECKING:
    from feature_repo.user_profile.parts import Ids

Stored = int | bytes
"""An id as kept here: a number, or a name between two `END`; UTF-8 has no such byte."""

MAX_NAMES_BYTES: Final = 16_384
"""Bound of all names of a ring together; beyond it the oldest ids go."""

END: Final = b"\xff"
"""Stands before, between and after names."""

_MARKS: Final = {width: b"\xff" * width for width in (3, 4, 6, 8)}
_LIMITS: Final = tuple(256**width - 1 if width in _MARKS else 0 for width in range(9))


_KNOWN: Final = dict[str, Stored]()
_MAX_KNOWN: Final = 65_536


def pack_key(text: str) -> Stored:
    r"""Return an id as it is kept.

    Examples
    --------
    >>> pack_key("1095275"), pack_key("B-12")
    (1095275, b'\xffB-12\xff')
    """
    known = _KNOWN.get(text)
    if known is not None:
        return known
    number = pack_id(text)
    key: Stored = number if isinstance(number, int) else b"\xff%b\xff" % number.encode()
    if len(_KNOWN) >= _MAX_KNOWN:
        _KNOWN.clear()
    _KNOWN[text] = key
    return key


def unpack_key(key: Stored) -> str:
    """Return the id that `pack_key` took."""
    return str(key) if isinstance(key, int) else key[1:-1].decode()


class Row:
    """The fields of an `Ids` while it is changed: compiled code is at these at once."""

    def __init__(self, row: Ids) -> None:
        self.width: int = row.width
        self.slots: bytes = row.slots
        self.names: bytes = row.names

    def keep(self, row: Ids) -> None:
        """Put the fields back."""
        row.width, row.slots, row.names = self.width, self.slots, self.names


def index(row: Row, key: Stored) -> int:
    """Return where the first ``key`` stands, −1 if nowhere."""
    width = row.width
    if isinstance(key, int):
        number: int = key
        limit: int = _LIMITS[width]
        if number < limit:
            return _slot(row.slots, number.to_bytes(width, "little"), width)
        key = b"\xff%d\xff" % number
    at: int = row.names.find(key)
    if at < 0:
        return -1
    nth: int = row.names.count(END, 0, at)
    return _nth_mark(row.slots, width, nth) if width else nth


def append(row: Row, key: Stored) -> None:
    """Put ``key`` behind the others, whether or not it is among them."""
    if not row.slots and not row.names:
        row.width = _width(key)
    width = row.width
    if isinstance(key, int):
        number: int = key
        limit: int = _LIMITS[width]
        if number < limit:
            row.slots += number.to_bytes(width, "little")
            return
        key = b"\xff%d\xff" % number
    row.names = row.names + key[1:] if row.names else key
    if width:
        row.slots += _MARKS[width]


def delete(row: Row, at: int) -> None:
    """Take out the id that stands at ``at``."""
    width, slots = row.width, row.slots
    if width:
        start = at * width
        row.slots = slots[:start] + slots[start + width :]
        if not row.names or slots[start : start + width] != _MARKS[width]:
            return
        at = _marks(slots[:start], _MARKS[width])
    names = row.names
    behind = names.count(END) - 1 - at
    if behind <= at:
        head: bytes = names.rsplit(END, behind)[0]
    else:
        head = names[: -1 - len(names.split(END, at + 2)[-1])]
    after = names[len(head) + 1 :]
    row.names = head[: head.rfind(END) + 1] + after if after or at else b""


def drop(row: Row, many: int) -> None:
    """Take out the ``many`` oldest ids."""
    width = row.width
    if width:
        gone = row.slots[: many * width]
        row.slots = row.slots[many * width :]
        many = _marks(gone, _MARKS[width]) if row.names else 0
    if many:
        names: bytes = row.names.split(END, many + 1)[-1]
        row.names = END + names if names else b""


def size(row: Row) -> int:
    """Return the number of ids."""
    if row.width:
        return len(row.slots) // row.width
    return max(0, row.names.count(END) - 1)


def length(row: Ids) -> int:
    """Return the number of ids."""
    return size(Row(row))


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
    >>> from feature_repo.user_profile.parts import Ids
    >>> ring = Ids()
    >>> add(ring, map(pack_key, ["5", "B", "7", "B"]), capacity=2)
    >>> ids(ring)
    ['B', '7']
    """
    return [unpack_key(key) for key in keys(row)]


def add(ring: Ids, new: Iterable[Stored], capacity: int) -> None:
    """Append the ids that are not there yet; beyond ``capacity`` ids the oldest go."""
    row = Row(ring)
    for key in new:
        if index(row, key) < 0:
            append(row, key)
    _bound(row, capacity)
    row.keep(ring)


def renew(ring: Ids, again: Sequence[Stored], capacity: int) -> None:
    """Put ids last, each once; beyond ``capacity`` the oldest go."""
    row = Row(ring)
    for key in again:
        at = index(row, key)
        if at >= 0:
            delete(row, at)
        append(row, key)
    _bound(row, capacity)
    row.keep(ring)


def discard(ring: Ids, key: Stored) -> None:
    """Take an id out if it is there."""
    row = Row(ring)
    at = index(row, key)
    if at >= 0:
        delete(row, at)
        row.keep(ring)


def _bound(row: Row, capacity: int) -> None:
    surplus = size(row) - capacity
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
    at: int = slots.find(slot)
    while at > 0 and at % width:
        at = slots.find(slot, at + 1)
    return at // width


def _marks(slots: bytes, mark: bytes) -> int:
    """Return how many of ``slots`` are marks."""
    width = len(mark)
    many, at = 0, slots.find(mark)
    while at >= 0:
        if at % width == 0:
            many += 1
        at = slots.find(mark, at + 1)
    return many


def _nth_mark(slots: bytes, width: int, nth: int) -> int:
    mark, at = _MARKS[width], -1
    while nth >= 0:
        at = slots.find(mark, at + 1)
        if at % width == 0:
            nth -= 1
    return at // width
