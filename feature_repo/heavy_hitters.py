"""Interests: bounded tables of the items, categories and brands a user touches most.

Belongs here: how much each event type counts, what a touch does to an entry, which entries
stay. Not here: the bytes of an entry (`interest`), what else an event changes (see
`explicit`), or interest scores over windows.

Each entry carries two weights, never blended: *long* with a half-life of 112 days and
*short* with one of 7 days,

    w(t) = Σ_i a_i · 2^(−(t − t_i) / H),

kept as one number as of the last touch. A late event adds ``a · 2^(−(last − t)/H)``, so
the order of arrival does not matter to the sum. Weights count millionths; each touch
rounds once (error ≤ 5e-7, decaying as the weight does).

A table is edited in its bytes: what a touch costs depends on the entry, not on the table.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from math import exp2, log2
from struct import Struct
from typing import Final, NamedTuple

from feature_repo.compact import DAY_S, MICRO, Key
from feature_repo.id_ring import Ids, Stored, append, delete, index, keys
from feature_repo.interest import (
    ALIKE,
    BOUGHT,
    BUYS,
    CARTED,
    CARTS,
    LONG_HALF_LIFE_S,
    MAX_24,
    MAX_ALIKE,
    ONE,
    SHORT_HALF_LIFE_S,
    SIZES,
    VIEWED,
    VIEWS,
    Interest,
    pack,
    unpack,
)  # fmt: skip


class Touch(NamedTuple):
    """What one event type does to an interest.

    ``step`` is added to both weights (millionths), ``net`` to the signed number of touches,
    ``counter`` names the evidence it moves by ``net``.
    """

    step: int
    net: int
    counter: str
    item_only: bool = False


TOUCHES: Final = {
    "view_item": Touch(100_000, 1, "views"),
    "select_item": Touch(100_000, 1, "views"),
    "share": Touch(300_000, 1, ""),
    "add_to_wishlist": Touch(300_000, 1, ""),
    "add_to_cart": Touch(300_000, 1, "carts"),
    "rate_item": Touch(300_000, 1, ""),
    "purchase": Touch(MICRO, 1, "purchases"),
    "remove_from_wishlist": Touch(-300_000, -1, ""),
    "remove_from_cart": Touch(-300_000, -1, "carts"),
    "refund": Touch(-MICRO, -1, "purchases"),
    "not_interested": Touch(-MICRO, -1, "", item_only=True),
}
"""Types absent here (impressions, custom events, messages) are no evidence of interest."""


class Capacity(NamedTuple):
    """How many entries a table keeps: the ``heaviest``, beside them the ``newest``."""

    heaviest: int
    newest: int

    @property
    def most(self) -> int:
        """Most entries after any event; below it nothing is ever dropped."""
        return self.heaviest + self.newest


class Table(Ids):
    """Entries by key, in order of first touch; read it as a mapping.

    Attributes
    ----------
    kinds
        One byte an entry: the layout of its record, and `_IN_ORDER`.
    ranks
        Two bytes an entry: the day on which its long weight was or will be 1. All weights
        decay alike, so this ranks them at any moment.
    records
        The entries' bytes, one after another.
    floor
        No entry but the newest has a rank below it.
    """

    kinds: bytes = b""
    ranks: bytes = b""
    records: bytes = b""
    floor: int = 0

    def entries(self) -> dict[Key, Interest]:
        """Return all entries, first touched first."""
        found, offset = dict[Key, Interest](), 0
        for key, kind in zip(keys(self), self.kinds, strict=True):
            found[self.shown(key)] = Interest(*unpack(kind, self.records, offset))
            offset += SIZES[kind]
        return found

    def __getitem__(self, key: Key) -> Interest:
        return self.entries()[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self.entries())

    def __contains__(self, key: Key) -> bool:
        return key in self.entries()

    def __len__(self) -> int:
        return len(self.kinds)

    @staticmethod
    def shown(key: Stored) -> Key:
        """Return the key outside of the table."""
        raise NotImplementedError


_IN_ORDER: Final = 0x80
"""Flag of a kind: bought in the user's current order, so that no second line counts again."""

_NEXT_ORDER: Final = bytes(kind & ~_IN_ORDER for kind in range(256))
_RANK: Final = Struct("<H")
_MAX_RANK: Final = 0xFFFF
_LONG_DAYS: Final = LONG_HALF_LIFE_S / DAY_S


def next_order(table: Table) -> None:
    """Let a new order begin: what was bought in the last one may be bought again."""
    table.kinds = table.kinds.translate(_NEXT_ORDER)


def touch(table: Table, touched: Iterable[Stored], rule: Touch, at: int, kept: Capacity) -> None:
    """Apply one event's touch of some keys at ``at`` (epoch seconds), and keep the table small.

    A purchase that continues an order already counted for a key moves only the times. A
    touch that takes away from a key not in the table changes nothing.
    """
    first: tuple[bytes, bytes, bytes] | None = None
    for key in touched:
        nth = index(table, key)
        if nth >= 0:
            _change(table, nth, rule, at)
        elif rule.net > 0:
            if first is None:
                first = _first(rule, at)
            if len(table.kinds) >= kept.most:
                _cut(table, kept)
            append(table, key)
            table.kinds += first[0]
            table.ranks += first[1]
            table.records += first[2]


@lru_cache(maxsize=64)
def _first(rule: Touch, at: int) -> tuple[bytes, bytes, bytes]:
    """Return kind, rank and record of an entry touched for the first time."""
    step, net, counter, _ = rule
    views, carts = int(counter == "views"), int(counter == "carts")
    bought = int(counter == "purchases")
    kind, record = pack((at, at, net, views, carts, bought, step, step, 0, 0))
    return bytes((kind | _IN_ORDER if bought else kind,)), _rank(at, step), record


def _change(table: Table, nth: int, rule: Touch, at: int) -> None:
    kinds, records, ranks = table.kinds, table.records, table.ranks
    kind = kinds[nth]
    offset = sum(kinds[:nth].translate(SIZES))
    end = offset + SIZES[kind]
    changed = _again(kind, records, offset, rule, at)
    if changed is None:
        if rule.net < 0:
            table.floor = 0
        entry, in_order = _touched(unpack(kind, records, offset), kind & _IN_ORDER, rule, at)
        if entry is None:
            _delete(table, nth, offset, end)
            return
        layout, record = pack(entry)
        changed = layout | in_order, record, _rank(entry[0], entry[6])
    if changed[0] != kind:
        table.kinds = kinds[:nth] + bytes(changed[:1]) + kinds[nth + 1 :]
    table.records = records[:offset] + changed[1] + records[end:]
    table.ranks = ranks[: 2 * nth] + changed[2] + ranks[2 * nth + 2 :]


_ALIKE: Final = {"views": (VIEWED, VIEWS, 0), "carts": (CARTED, CARTS, 0),
                 "purchases": (BOUGHT, BUYS, _IN_ORDER)}  # fmt: skip


def _again(
    kind: int, records: bytes, offset: int, rule: Touch, at: int
) -> tuple[int, bytes, bytes] | None:
    """Do in short what `_touched` would do to an entry touched in one way only, in time.

    Return the new kind, record and rank; None if this is no such touch.
    """
    step, net, counter, _ = rule
    if net < 0 or not counter:
        return None
    single, alike, flag = _ALIKE[counter]
    if kind == alike:
        last, first, touches, a, b, c, d = ALIKE.unpack_from(records, offset)
        long, short = a | b << 16, c | d << 16
    elif kind == single:
        (last,) = ONE.unpack_from(records, offset)
        first, touches, long, short = last, 1, step, step
    else:
        return None
    elapsed = at - last
    if elapsed < 0 or touches == MAX_ALIKE:
        return None
    long = round(long * exp2(-elapsed / LONG_HALF_LIFE_S)) + step
    short = round(short * exp2(-elapsed / SHORT_HALF_LIFE_S)) + step
    if long > MAX_24 or short > MAX_24:
        return None
    record = ALIKE.pack(
        at, first, touches + 1, long & 0xFFFF, long >> 16, short & 0xFFFF, short >> 16
    )
    return alike | flag, record, _rank(at, long)


def _touched(
    entry: tuple[int, ...], in_order: int, rule: Touch, at: int
) -> tuple[tuple[int, ...] | None, int]:
    """Return an entry after a touch, None when it goes, and whether the order has it."""
    step, net, counter, _ = rule
    last, first, touches, views, carts, bought, long, short, after, before = entry
    elapsed = at - last
    if elapsed > 0:
        long = round(long * exp2(-elapsed / LONG_HALF_LIFE_S))
        short = round(short * exp2(-elapsed / SHORT_HALF_LIFE_S))
        last = at
        if bought:
            before += elapsed
    elif at < first:
        if bought:
            after += first - at
        first = at
    if counter == "views":
        views += net
    elif counter == "carts":
        carts = max(0, carts + net)
    elif counter == "purchases":
        if net > 0:
            if bought:
                after, before = min(after, at - first), min(before, last - at)
            else:
                after, before = at - first, last - at
            if in_order:
                return (
                    last, first, touches, views, carts, bought, long, short, after, before
                ), in_order  # fmt: skip
            in_order = _IN_ORDER
        bought = max(0, bought + net)
    touches += net
    if touches <= 0:
        return None, 0
    long = _stepped(long, step, elapsed, LONG_HALF_LIFE_S)
    short = _stepped(short, step, elapsed, SHORT_HALF_LIFE_S)
    return (last, first, touches, views, carts, bought, long, short, after, before), in_order


def _stepped(weight: int, step: int, elapsed: int, half_life_s: int) -> int:
    """Return a weight as of its entry's last touch after a step ``elapsed`` seconds from it."""
    late = round(step * exp2(elapsed / half_life_s)) if elapsed < 0 else step
    return max(0, weight + late)


def _rank(at: int, long: int) -> bytes:
    """Return the day since 1970 on which a weight of ``long`` at ``at`` was or will be 1."""
    day = int(at / DAY_S + _LONG_DAYS * log2((long or 0.5) / MICRO))
    return _RANK.pack(day if 0 <= day <= _MAX_RANK else max(0, min(_MAX_RANK, day)))


def _cut(table: Table, kept: Capacity) -> None:
    """Make room for a new entry: the lightest goes that is not among the newest then.

    Of equals, the one entered first.
    """
    nth = kept.heaviest
    (rank,) = _RANK.unpack_from(table.ranks, 2 * nth)
    if rank >= table.floor:
        ranks = list(_ranks(nth + 1).unpack_from(table.ranks))
        nth = ranks.index(min(ranks))
        del ranks[nth]
        table.floor = min(ranks)
    kinds = table.kinds
    offset = sum(kinds[:nth].translate(SIZES))
    _delete(table, nth, offset, offset + SIZES[kinds[nth]])


@lru_cache(maxsize=8)
def _ranks(many: int) -> Struct:
    return Struct(f"<{many}H")


def _delete(table: Table, nth: int, offset: int, end: int) -> None:
    kinds, ranks, records = table.kinds, table.ranks, table.records
    delete(table, nth)
    table.kinds = kinds[:nth] + kinds[nth + 1 :]
    table.ranks = ranks[: 2 * nth] + ranks[2 * nth + 2 :]
    table.records = records[:offset] + records[end:]
