"""Orders: when, how much and what a user buys, in bounded state.

Belongs here: order counts, gaps between orders, purchase history, price and promotion
figures. Not here: money by day (`order_days`), interests (`heavy_hitters`), the cart
(`session`).

Money is the event's ``value`` where given, else Σ quantity · price − discount over its
lines, never below 0. A refund takes its amount off the day of the refund and off the
lifetime sum; it removes no order, no gap and nothing from the purchase history.
"""

from __future__ import annotations

import math
from struct import Struct
from typing import TYPE_CHECKING, Final

from feature_repo.compact import DAY_S, MICRO, add_money, pack_id, pack_money
from feature_repo.events import EventRecord, ItemRecord
from feature_repo.id_ring import add, stored
from feature_repo.interest import LONG_HALF_LIFE_S
from feature_repo.order_days import add_day

if TYPE_CHECKING:
    from feature_repo.explicit_parts import Orders

MAX_GAPS: Final = 20
MAX_HISTORY: Final = 400


GAP: Final = Struct("<I")
_MAX_GAP: Final = 2**32 - 1


def line_amount(item: ItemRecord) -> float:
    """Return what was paid for a line: quantity · price − discount, at least 0.

    Examples
    --------
    >>> line_amount(ItemRecord("A", quantity=2, price=3.0, discount=1.0))
    5.0
    """
    return max(0.0, item.quantity * (item.price or 0.0) - (item.discount or 0.0))


def amount(event: EventRecord) -> int:
    """Return the money an order or refund moves, thousandths, ≥ 0."""
    if event.value is not None:
        return pack_money(abs(event.value))
    return pack_money(sum(map(line_amount, event.items)))


def purchase(orders: Orders, event: EventRecord, at: int) -> bool:
    """Apply a purchase at ``at`` (epoch seconds); return whether it begins a new order."""
    order_id = pack_id(event.order_id or event.id)
    is_new = order_id != orders.last_id or orders.count == 0
    late = max(0, orders.last_at - at)
    elapsed = max(0, at - orders.last_at) if orders.count else 0
    if is_new:
        if orders.count and late == 0:
            gaps = orders.gaps + GAP.pack(min(_MAX_GAP, elapsed))
            orders.gaps = gaps[-MAX_GAPS * GAP.size :]
        orders.first_at = min(orders.first_at, at) if orders.count else at
        orders.count += 1
        orders.last_id = order_id
    orders.last_at = max(orders.last_at, at)
    orders.lines += len(event.items)
    money = amount(event)
    orders.spend = add_money(orders.spend, money)
    add_day(orders, at // DAY_S, int(is_new), money)
    _add_prices(orders, event, elapsed, late)
    add(orders.history, [stored(item.item_id) for item in event.items], MAX_HISTORY)
    return is_new


def refund(orders: Orders, event: EventRecord, at: int) -> None:
    """Apply a refund at ``at`` (epoch seconds)."""
    orders.refunds += 1
    money = amount(event)
    orders.spend = add_money(orders.spend, -money)
    add_day(orders, at // DAY_S, 0, -money)


def _add_prices(orders: Orders, event: EventRecord, elapsed: int, late: int) -> None:
    if elapsed:
        keep = math.exp2(-elapsed / LONG_HALF_LIFE_S)
        orders.paid_lines = round(orders.paid_lines * keep)
        orders.price_sum = round(orders.price_sum * keep)
        orders.promoted_lines = round(orders.promoted_lines * keep)
        orders.gross = round(orders.gross * keep)
        orders.discount = round(orders.discount * keep)
    paid, promoted = 0, 0
    prices, gross, discount = 0.0, 0.0, 0.0
    for item in event.items:
        if item.price is None:
            continue
        paid += 1
        prices += item.price
        gross += item.quantity * item.price
        if item.discount or item.coupon:
            promoted += 1
            discount += min(item.discount or 0.0, item.quantity * item.price)
    share = math.exp2(-late / LONG_HALF_LIFE_S)
    orders.paid_lines += round(MICRO * paid * share)
    orders.promoted_lines += round(MICRO * promoted * share)
    orders.price_sum = add_money(orders.price_sum, pack_money(prices * share))
    orders.gross = add_money(orders.gross, pack_money(gross * share))
    orders.discount = add_money(orders.discount, pack_money(discount * share))
