"""Interests: bounded tables of the items, categories and brands a user touches most.

Belongs here: how much each event type counts, what a touch does to an entry, which entries
stay. Not here: the bytes of an entry (`interest_entry`), what else an event changes (see
`explicit`), or scores over windows.

Each entry carries two weights, never blended: *long* with a half-life of 112 days and
*short* with one of 7 days,

    w(t) = Σ_i a_i · 2^(−(t − t_i) / H),

kept as one number as of the last touch. A late event adds ``a · 2^(−(last − t)/H)``, so
the order of arrival does not matter to the sum. Weights count millionths; each touch
rounds once (error ≤ 5e-7, decaying as the weight does).

A table is edited in its bytes: what a touch costs depends on the entry, not on the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp2, log2
from typing import TYPE_CHECKING, Final

from feature_repo.events.types import TYPES
from feature_repo.user_profile.compact import DAY_S, MICRO
from feature_repo.user_profile.id_ring import Row, Stored, append, delete, index
from feature_repo.user_profile.interest_entry import (
    BOUGHT,
    CARTED,
    LONG_HALF_LIFE_S,
    MAX_TIME,
    SHORT_HALF_LIFE_S,
    SIZES,
    VIEWED,
    Entry,
    pack,
    unpack,
)

if TYPE_CHECKING:
    from feature_repo.user_profile.parts import Table


@dataclass(frozen=True)
class Touch:
    """What one event type does to an interest.

    ``step`` is added to both weights (millionths), ``net`` to the signed number of touches,
    ``counter`` names the evidence it moves by ``net``: the layout of such a single touch.
    """

    step: int
    net: int
    counter: int = -1
    item_only: bool = False


_COUNTERS: Final = {None: -1, "view": VIEWED, "cart": CARTED, "purchase": BOUGHT}
TOUCHES: Final = {
    name: Touch(
        round(each.interest * MICRO), 1 if each.interest > 0 else -1, _COUNTERS[each.evidence],
        each.item_only,
    )
    for name, each in TYPES.items() if each.interest
}  # fmt: skip
"""Types absent here (impressions, custom events, messages) are no evidence of interest."""


@dataclass(frozen=True)
class Capacity:
    """How many entries a table keeps: the ``heaviest``, beside them the ``newest``."""

    heaviest: int
    newest: int

    @property
    def most(self) -> int:
        """Most entries after any event; below it nothing is ever dropped."""
        return self.heaviest + self.newest


_IN_ORDER: Final = 0x80
"""Flag of a layout: bought in the user's current order, so that no second line counts again."""

_NEXT_ORDER: Final = bytes(layout & ~_IN_ORDER for layout in range(256))
_BYTES: Final = tuple(bytes((number,)) for number in range(256))
_MAX_RANK: Final = 0xFFFF
_LONG_DAYS: Final = LONG_HALF_LIFE_S / DAY_S


def next_order(table: Table) -> None:
    """Let a new order begin: what was bought in the last one may be bought again."""
    table.layouts = table.layouts.translate(_NEXT_ORDER)


def touch(table: Table, updated: list[Stored], rule: Touch, at: int, kept: Capacity) -> None:
    """Apply one event's touch of some keys at ``at`` (epoch seconds), and keep the table small.

    Each key stands in ``updated`` once. A purchase that continues an order already counted
    for a key moves only the times. A touch that takes away from a key not in the table
    changes nothing.
    """
    rows = _Rows(table)
    most = kept.heaviest + kept.newest
    layout, rank, record = b"", b"", b""
    for key in updated:
        nth = index(rows, key)
        if nth >= 0:
            _change(rows, nth, rule, at)
        elif rule.net > 0:
            if len(rows.layouts) >= most:
                _delete_lightest(rows, kept.heaviest)
            append(rows, key)
            rows.moved = True
            if not layout:
                layout, rank, record = _first(rule, at)
            rows.layouts += layout
            rows.ranks += rank
            rows.records += record
    rows.put_back(table)


class _Rows(Row):
    """The fields of a table while it is changed; ``moved`` says that keys came or went."""

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self.layouts: bytes = table.layouts
        self.ranks: bytes = table.ranks
        self.records: bytes = table.records
        self.floor: int = table.floor
        self.moved = False

    def put_back(self, table: Table) -> None:
        if self.moved:
            self.keep(table)
        table.layouts, table.ranks = self.layouts, self.ranks
        table.records, table.floor = self.records, self.floor


def _first(rule: Touch, at: int) -> tuple[bytes, bytes, bytes]:
    """Return layout, rank and record of an entry touched for the first time."""
    layout, record = rule.counter, b""
    if layout >= 0 and 0 <= at <= MAX_TIME:
        record = at.to_bytes(4, "little")
    else:
        views, carts = int(layout == VIEWED), int(layout == CARTED)
        bought, step = int(layout == BOUGHT), rule.step
        layout, record = pack((at, at, rule.net, views, carts, bought, step, step, 0, 0))
    if rule.counter == BOUGHT:
        layout |= _IN_ORDER
    return _BYTES[layout], _rank(at, rule.step), record


def _change(rows: _Rows, nth: int, rule: Touch, at: int) -> None:
    layouts, records, ranks = rows.layouts, rows.records, rows.ranks
    before, offset = layouts[nth], _offset(layouts, nth)
    end = offset + SIZES[before]
    if rule.net < 0:
        rows.floor = 0
    entry, in_order = _update_entry(unpack(before, records, offset), before & _IN_ORDER, rule, at)
    if entry[2] <= 0:
        _delete(rows, nth, offset, end)
        return
    layout, record = pack(entry)
    layout |= in_order
    if layout != before:
        rows.layouts = b"".join((layouts[:nth], _BYTES[layout], layouts[nth + 1 :]))
    rows.records = b"".join((records[:offset], record, records[end:]))
    rank = _rank(entry[0], entry[6])
    rows.ranks = b"".join((ranks[: 2 * nth], rank, ranks[2 * nth + 2 :]))


def _offset(layouts: bytes, nth: int) -> int:
    """Return where the record of the entry ``nth`` begins."""
    offset = 0
    for position in range(nth):
        offset += SIZES[layouts[position]]
    return offset


def _update_entry(entry: Entry, in_order: int, rule: Touch, at: int) -> tuple[Entry, int]:
    """Return an entry after a touch, and whether the order has it.

    Without a touch left the entry goes.
    """
    last, first, touches, views, carts, bought, long, short, after, before = entry
    net, counter, elapsed = rule.net, rule.counter, at - last
    if elapsed > 0:
        long = _nearest(long * exp2(-elapsed / LONG_HALF_LIFE_S))
        short = _nearest(short * exp2(-elapsed / SHORT_HALF_LIFE_S))
        last = at
        if bought:
            before += elapsed
    elif at < first:
        if bought:
            after += first - at
        first = at
    if counter == VIEWED:
        views += net
    elif counter == CARTED:
        carts = max(0, carts + net)
    elif counter == BOUGHT:
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
    long = _add_step(long, rule.step, elapsed, LONG_HALF_LIFE_S)
    short = _add_step(short, rule.step, elapsed, SHORT_HALF_LIFE_S)
    return (
        last, first, touches + net, views, carts, bought, long, short, after, before
    ), in_order  # fmt: skip


def _add_step(weight: int, step: int, elapsed: int, half_life_s: int) -> int:
    """Return a weight as of its entry's last touch after a step ``elapsed`` seconds from it."""
    late = round(step * exp2(elapsed / half_life_s)) if elapsed < 0 else step
    return max(0, weight + late)


def _nearest(number: float) -> int:
    """Return `round` of a number ≥ 0; compiled, it is the faster one."""
    whole = int(number)
    rest = number - whole
    return whole + 1 if rest > 0.5 or (rest == 0.5 and whole & 1) else whole


def _rank(at: int, long: int) -> bytes:
    """Return the day since 1970 on which a weight of ``long`` at ``at`` was or will be 1."""
    weight = float(long) if long else 0.5
    day = int(at / DAY_S + _LONG_DAYS * log2(weight / MICRO))
    return max(0, min(_MAX_RANK, day)).to_bytes(2, "little")


def _delete_lightest(rows: _Rows, nth: int) -> None:
    """Make room for a new entry: the lightest of the first ``nth`` + 1 goes.

    Of equals, the one entered first. Those behind it are the newest then.
    """
    ranks = rows.ranks
    lightest = ranks[2 * nth] | ranks[2 * nth + 1] << 8
    if lightest >= rows.floor:
        floor = _MAX_RANK
        for position in range(nth - 1, -1, -1):
            rank = ranks[2 * position] | ranks[2 * position + 1] << 8
            if rank <= lightest:
                floor, lightest, nth = lightest, rank, position
            elif rank < floor:
                floor = rank
        rows.floor = floor
    offset = _offset(rows.layouts, nth)
    _delete(rows, nth, offset, offset + SIZES[rows.layouts[nth]])


def _delete(rows: _Rows, nth: int, offset: int, end: int) -> None:
    layouts, ranks, records = rows.layouts, rows.ranks, rows.records
    delete(rows, nth)
    rows.moved = True
    rows.layouts = layouts[:nth] + layouts[nth + 1 :]
    rows.ranks = ranks[: 2 * nth] + ranks[2 * nth + 2 :]
    rows.records = records[:offset] + records[end:]
