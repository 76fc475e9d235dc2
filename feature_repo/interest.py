"""One interest: the evidence and the weights of an item, category or brand, and its bytes.

Belongs here: what an entry says, how long its weights last, and the shortest of a few fixed
layouts it fits. Not here: what an event does to it (`heavy_hitters`).
"""

import math
from struct import Struct
from typing import Final, NamedTuple

from feature_repo.compact import DAY_S, MICRO

LONG_HALF_LIFE_S: Final = 112 * DAY_S
SHORT_HALF_LIFE_S: Final = 7 * DAY_S


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


def decayed(micro: int, elapsed_s: int, half_life_s: int) -> float:
    """Return a stored weight after ``elapsed_s``: ``w · 2^(−elapsed/H)``, elapsed ≥ 0.

    Examples
    --------
    >>> decayed(2_000_000, 7 * 86_400, SHORT_HALF_LIFE_S)
    1.0
    """
    return micro / MICRO * math.exp2(-max(0, elapsed_s) / half_life_s)


# Weights below 2^24 take three bytes: two of the low part, one of the high.
ONE: Final = Struct("<I")  # a single touch: last_at
ALIKE: Final = Struct("<IIBHBHB")  # touches of one kind: last, first, how many, two weights
_ALIKE_MANY: Final = Struct("<IIHII")
_MIXED: Final = Struct("<IIBBBBHBHBII")  # all fields
_MIXED_MANY: Final = Struct("<IIHHHHIIII")
_ANY: Final = Struct("<10q")

VIEWED, CARTED, BOUGHT, VIEWS, CARTS, BUYS = range(6)
"""Kinds: a single touch of that type, and touches of that type only."""

_MANY_VIEWS, _MANY_CARTS, _MANY_BUYS, _SOME, _MANY_SOME, _LARGE = range(6, 12)
_LAYOUTS: Final = (
    *(ONE,) * 3, *(ALIKE,) * 3, *(_ALIKE_MANY,) * 3, _MIXED, _MIXED_MANY, _ANY
)  # fmt: skip

KIND: Final = 0x0F
"""Bits of a kind that name a layout; the others are free for use by the caller."""

_SINGLE: Final = {
    (1, 1, 0, 0, 100_000, 100_000, 0, 0): VIEWED,
    (1, 0, 1, 0, 300_000, 300_000, 0, 0): CARTED,
    (1, 0, 0, 1, MICRO, MICRO, 0, 0): BOUGHT,
}
"""What a single touch leaves, to its kind."""

_OF_SINGLE: Final = {kind: fields for fields, kind in _SINGLE.items()}

SIZES: Final = bytes(
    _LAYOUTS[kind & KIND].size if kind & KIND < len(_LAYOUTS) else 0 for kind in range(256)
)
"""Bytes of a record by its kind, for `bytes.translate`; 0 where no such kind is."""

MAX_ALIKE: Final = 255
"""Most touches in the layout of `VIEWS`, `CARTS` and `BUYS`."""

MAX_24: Final = (1 << 24) - 1
"""Greatest weight in that layout."""

_MAX_TIME: Final = (1 << 32) - 1
_BOUND: Final = (1 << 63) - 1


def pack(entry: tuple[int, ...]) -> tuple[int, bytes]:
    """Return the kind of an entry and its bytes; equal entries give equal bytes."""
    last, first, net, views, carts, bought, long, short, after, before = entry
    if first < 0 or last > _MAX_TIME:
        return _LARGE, _ANY.pack(*entry)
    if last == first:
        single = _SINGLE.get((net, views, carts, bought, long, short, after, before))
        if single is not None:
            return single, ONE.pack(last)
    if after == before == 0 and net == views + carts + bought and net < 0x10000:
        alike = VIEWS if net == views else CARTS if net == carts else BUYS
        if net in (views, carts, bought):
            if net <= MAX_ALIKE and long <= MAX_24 and short <= MAX_24:
                weights = long & 0xFFFF, long >> 16, short & 0xFFFF, short >> 16
                return alike, ALIKE.pack(last, first, net, *weights)
            if long <= _MAX_TIME:
                return alike + 3, _ALIKE_MANY.pack(last, first, net, long, short)
    counts = max(net, views, carts, bought)
    if counts <= MAX_ALIKE and long <= MAX_24 and short <= MAX_24:
        weights = long & 0xFFFF, long >> 16, short & 0xFFFF, short >> 16
        packed = _MIXED.pack(last, first, net, views, carts, bought, *weights, after, before)
        return _SOME, packed
    if counts < 0x10000 and long <= _MAX_TIME:
        return _MANY_SOME, _MIXED_MANY.pack(*entry)
    return _LARGE, _ANY.pack(*(min(value, _BOUND) for value in entry))


def unpack(kind: int, records: bytes, offset: int) -> tuple[int, ...]:
    """Return the fields of the `Interest` packed at ``offset``."""
    kind &= KIND
    values = _LAYOUTS[kind].unpack_from(records, offset)
    if kind <= BOUGHT:
        return (*values, *values, *_OF_SINGLE[kind])
    if kind >= _MANY_SOME:
        return values
    if kind == _SOME:
        last, first, net, views, carts, bought, a, b, c, d, after, before = values
        return last, first, net, views, carts, bought, a | b << 16, c | d << 16, after, before
    if kind <= BUYS:
        last, first, net, a, b, c, d = values
        long, short = a | b << 16, c | d << 16
    else:
        last, first, net, long, short = values
        kind -= 3
    views, carts, bought = (net if kind == alike else 0 for alike in (VIEWS, CARTS, BUYS))
    return last, first, net, views, carts, bought, long, short, 0, 0
