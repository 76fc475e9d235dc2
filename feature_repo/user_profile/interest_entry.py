"""One interest: the evidence and the weights of an item, category or brand, and its bytes.

Belongs here: what an entry says, how long its weights last, and the shortest of a few fixed
layouts it fits. Not here: what an event does to it (`interests`).
"""

import math
from struct import Struct
from typing import Final, NamedTuple, cast

from feature_repo.events.types import LONG_HALF_LIFE_DAYS, SHORT_HALF_LIFE_DAYS, TYPES
from feature_repo.user_profile.compact import DAY_S, MICRO

LONG_HALF_LIFE_S: Final = LONG_HALF_LIFE_DAYS * DAY_S
SHORT_HALF_LIFE_S: Final = SHORT_HALF_LIFE_DAYS * DAY_S

_STEPS: Final = [
    round(TYPES[name].interest * MICRO) for name in ("view_item", "add_to_cart", "purchase")
]
"""Weights of a single touch, millionths, by its type."""

Entry = tuple[int, int, int, int, int, int, int, int, int, int]
"""The fields of an `Interest`, which compiled code handles faster."""


class Interest(NamedTuple):
    """One entry: evidence and two decayed weights as of ``last_at``.

    Attributes
    ----------
    last_at, first_at
        Last and first touch, epoch seconds.
    net
        Signed number of touches; the entry is dropped at 0.
    views, carts, purchases
        Evidence; purchases counts distinct orders.
    long, short
        Decayed weights as of ``last_at``, millionths.
    purchase_after_s, purchase_before_s
        First purchase minus first touch; last touch minus last purchase.
    """

    last_at: int
    first_at: int
    net: int = 0
    views: int = 0
    carts: int = 0
    purchases: int = 0
    long: int = 0
    short: int = 0
    purchase_after_s: int = 0
    purchase_before_s: int = 0

    @property
    def first_purchase_at(self) -> int:
        """Epoch seconds of the first purchase; meaningful only with ``purchases`` > 0."""
        return self.first_at + self.purchase_after_s

    @property
    def last_purchase_at(self) -> int:
        """Epoch seconds of the last purchase; meaningful only with ``purchases`` > 0."""
        return self.last_at - self.purchase_before_s


def decay(micro: int, elapsed_s: int, half_life_s: int) -> float:
    """Return a stored weight after ``elapsed_s``: ``w · 2^(−elapsed/H)``, elapsed ≥ 0.

    Examples
    --------
    >>> decay(2_000_000, 7 * 86_400, SHORT_HALF_LIFE_S)
    1.0
    """
    return micro / MICRO * math.exp2(-max(0, elapsed_s) / half_life_s)


# Layouts of a record: a single touch of one type, touches of one type only, touches of several.
# All numbers are little-endian; in the first of them a weight takes three bytes.
VIEWED: Final = 0  # last
CARTED: Final = 1
BOUGHT: Final = 2
_VIEWS: Final = 3  # last, first, how many, two weights
_CARTS: Final = 4
_BUYS: Final = 5  # 6 to 8: the same with larger numbers
_SOME: Final = 9  # all fields
_MANY_SOME: Final = 10
_LARGE: Final = 11

_ANY: Final = Struct("<10q")
_LENGTHS: Final = (4, 4, 4, 15, 15, 15, 18, 18, 18, 26, 32, _ANY.size)

LAYOUT: Final = 0x0F
"""Bits of a code that name a layout; the others are free for use by the caller."""

SIZES: Final = bytes(
    _LENGTHS[layout & LAYOUT] if layout & LAYOUT < len(_LENGTHS) else 0 for layout in range(256)
)
"""Bytes of a record by its code; 0 where no such layout is."""

MAX_TIME: Final = (1 << 32) - 1
"""Latest time that the layouts of few bytes hold."""

_MAX_8: Final = (1 << 8) - 1
_MAX_16: Final = (1 << 16) - 1
_MAX_24: Final = (1 << 24) - 1
_MAX_32: Final = (1 << 32) - 1
_BOUND: Final = (1 << 63) - 1


def pack(entry: Entry) -> tuple[int, bytes]:
    """Return the layout of an entry and its bytes; equal entries give equal bytes."""
    last, first, net, views, carts, bought, long, short, after, before = entry
    if first < 0 or last > MAX_TIME:
        return _LARGE, _ANY.pack(*entry)
    if after == 0 and before == 0 and net == views + carts + bought:
        alike = _alike(net, views, carts, bought)
        if alike >= 0:
            if last == first and net == 1 and long == short == _STEPS[alike - _VIEWS]:
                return alike - _VIEWS, last.to_bytes(4, "little")
            if net <= _MAX_8 and long <= _MAX_24 and short <= _MAX_24:
                rest = (net | long << 8 | short << 32).to_bytes(7, "little")
                return alike, last.to_bytes(4, "little") + first.to_bytes(4, "little") + rest
            if net <= _MAX_16 and long <= _MAX_32:
                return alike + 3, b"".join((
                    last.to_bytes(4, "little"), first.to_bytes(4, "little"),
                    (net | long << 16).to_bytes(6, "little"), short.to_bytes(4, "little"),
                ))  # fmt: skip
    most = max(net, views)
    most = max(most, carts)  # of two each: compiled, that is a comparison, of more it is a call
    most = max(most, bought)
    if most <= _MAX_8 and long <= _MAX_24 and short <= _MAX_24:
        counts = net | views << 8 | carts << 16 | bought << 24
        return _SOME, b"".join((
            last.to_bytes(4, "little"), first.to_bytes(4, "little"),
            (counts | long << 32).to_bytes(7, "little"),
            (short | after << 24).to_bytes(7, "little"), before.to_bytes(4, "little"),
        ))  # fmt: skip
    if most <= _MAX_16 and long <= _MAX_32:
        return _MANY_SOME, b"".join((
            last.to_bytes(4, "little"), first.to_bytes(4, "little"),
            (net | views << 16 | carts << 32).to_bytes(6, "little"),
            (bought | long << 16).to_bytes(6, "little"), short.to_bytes(4, "little"),
            after.to_bytes(4, "little"), before.to_bytes(4, "little"),
        ))  # fmt: skip
    return _LARGE, _ANY.pack(*[min(value, _BOUND) for value in entry])


def _alike(net: int, views: int, carts: int, bought: int) -> int:
    """Return the layout of touches of one type only, −1 for those of several."""
    if net == views:
        return _VIEWS
    if net == carts:
        return _CARTS
    return _BUYS if net == bought else -1


def unpack(layout: int, records: bytes, offset: int) -> Entry:
    """Return the fields of the `Interest` packed at ``offset``."""
    layout &= LAYOUT
    if layout == _LARGE:
        return cast("Entry", _ANY.unpack_from(records, offset))
    last = _number(records, offset, 4)
    if layout == _SOME:
        return (
            last, _number(records, offset + 4, 4), records[offset + 8], records[offset + 9],
            records[offset + 10], records[offset + 11], _number(records, offset + 12, 3),
            _number(records, offset + 15, 3), _number(records, offset + 18, 4),
            _number(records, offset + 22, 4),
        )  # fmt: skip
    if layout == _MANY_SOME:
        return (
            last, _number(records, offset + 4, 4), _number(records, offset + 8, 2),
            _number(records, offset + 10, 2), _number(records, offset + 12, 2),
            _number(records, offset + 14, 2), _number(records, offset + 16, 4),
            _number(records, offset + 20, 4), _number(records, offset + 24, 4),
            _number(records, offset + 28, 4),
        )  # fmt: skip
    if layout <= BOUGHT:
        first, net, long = last, 1, _STEPS[layout]
        short = long
        layout += _VIEWS
    elif layout <= _BUYS:
        first, net = _number(records, offset + 4, 4), records[offset + 8]
        long, short = _number(records, offset + 9, 3), _number(records, offset + 12, 3)
    else:
        first, net = _number(records, offset + 4, 4), _number(records, offset + 8, 2)
        long, short = _number(records, offset + 10, 4), _number(records, offset + 14, 4)
        layout -= 3
    if layout == _VIEWS:
        return last, first, net, net, 0, 0, long, short, 0, 0
    if layout == _CARTS:
        return last, first, net, 0, net, 0, long, short, 0, 0
    return last, first, net, 0, 0, net, long, short, 0, 0


def _number(packed: bytes, at: int, width: int) -> int:
    value = packed[at] | packed[at + 1] << 8
    if width > 2:
        value |= packed[at + 2] << 16
    return value | packed[at + 3] << 24 if width == 4 else value
