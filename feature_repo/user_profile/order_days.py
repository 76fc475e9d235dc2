"""Orders and money by day, for windows that are exact by calendar day.

Belongs here: the days a user ordered on, their bytes, and sums over the last of them. Not
here: what an order is worth (`orders`).

The newest day stands in the open; the days before it are packed one behind the other, so an
order adds to the newest day or sets it aside, and only a late one unpacks the others.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from feature_repo.user_profile.compact import add_money, pack_varint, unpack_varint

if TYPE_CHECKING:
    from feature_repo.user_profile.parts import Days

MAX_DAYS: Final = 91


class Day(NamedTuple):
    """Orders and money (thousandths) of one day (epoch day UTC)."""

    day: int
    orders: int
    spend: int


def add_day(days: Days, day: int, orders: int, money: int) -> None:
    """Add orders and money (thousandths) to a day; one before the others' 91 days is not kept."""
    if _blank(days):
        days.last_day = day
    if day > days.last_day:
        gap = day - days.last_day
        days.packed += _pack(gap, days.day_orders, days.day_spend)
        days.span += gap
        days.last_day, days.day_orders, days.day_spend = day, 0, 0
        _forget(days)
    if day == days.last_day:
        days.day_orders += orders
        days.day_spend = add_money(days.day_spend, money)
    elif day > days.last_day - MAX_DAYS:
        _insert(days, day, orders, money)


def all_days(days: Days) -> list[Day]:
    """Return the days, oldest first."""
    found, day, at = list[Day](), days.last_day - days.span, 0
    while at < len(days.packed):
        gap, orders, spend, at = _unpack(days.packed, at)
        found.append(Day(day, orders, spend))
        day += gap
    if not _blank(days):
        found.append(Day(days.last_day, days.day_orders, days.day_spend))
    return found


def window(days: Days, today: int, many: int) -> tuple[int, int]:
    """Return orders and money (thousandths) of the ``many`` calendar days up to ``today``.

    ``today`` is an epoch day (UTC) and counts as one of them; ``many`` ≤ `MAX_DAYS`.
    """
    within = [day for day in all_days(days) if today - many < day.day <= today]
    return sum(day.orders for day in within), sum(day.spend for day in within)


def _blank(days: Days) -> bool:
    return not (days.last_day or days.day_orders or days.day_spend or days.packed)


def _forget(days: Days) -> None:
    """Drop the oldest days until all are within `MAX_DAYS` of the newest."""
    end = 0
    while days.span >= MAX_DAYS:
        gap, _, _, end = _unpack(days.packed, end)
        days.span -= gap
    days.packed = days.packed[end:]


def _insert(days: Days, day: int, orders: int, money: int) -> None:
    """Add to a day before the newest."""
    known = {found.day: found for found in all_days(days)}
    old = known.get(day, Day(day, 0, 0))
    known[day] = Day(day, old.orders + orders, add_money(old.spend, money))
    ordered = sorted(known.values())
    days.packed = b"".join(
        _pack(later.day - earlier.day, earlier.orders, earlier.spend)
        for earlier, later in pairwise(ordered)
    )
    days.span = days.last_day - ordered[0].day


def _pack(gap: int, orders: int, spend: int) -> bytes:
    sign = int(spend < 0)
    money = pack_varint(abs(spend) << 1 | sign)
    if orders == 1:
        return pack_varint(gap << 1) + money
    return pack_varint(gap << 1 | 1) + pack_varint(orders) + money


def _unpack(packed: bytes, at: int) -> tuple[int, int, int, int]:
    """Return gap, orders and money of the day packed at ``at``, and where the next one stands."""
    gap, at = unpack_varint(packed, at)
    orders = 1
    if gap & 1:
        orders, at = unpack_varint(packed, at)
    money, at = unpack_varint(packed, at)
    return gap >> 1, orders, -(money >> 1) if money & 1 else money >> 1, at
