"""Orders: when, how much and what a user buys, in bounded state.

Belongs here: order counts, gaps between orders, purchase history, price and promotion
figures. Not here: what an order is worth (`amounts`), money by day (`order_days`), interests
(`interests`), the cart (`session`).

An order that is told again (`order_memory`) counts once: what it is worth now takes the place of
what was told before, the difference on the day on which it was told again; told again without an
amount it changes nothing. Its prices and promotions count as first told. A refund takes its amount
off the day of the refund and off the lifetime sum; it removes no order, no gap and nothing from the
purchase history.
"""

from __future__ import annotations

import math
from struct import Struct
from typing import TYPE_CHECKING, Final

from feature_repo.events.schema import MAX_ITEMS, EventRecord, ItemRecord
from feature_repo.user_profile.amounts import amount, is_stated
from feature_repo.user_profile.compact import DAY_S, MICRO, add_money, pack_id, pack_money
from feature_repo.user_profile.id_ring import add, pack_key
from feature_repo.user_profile.interest_entry import LONG_HALF_LIFE_S
from feature_repo.user_profile.order_days import add_day
from feature_repo.user_profile.order_memory import recall, remember

if TYPE_CHECKING:
    from feature_repo.user_profile.parts import Orders

MAX_GAPS: Final = 20
MAX_HISTORY: Final = 300


GAP: Final = Struct("<I")
_MAX_GAP: Final = 2**32 - 1


def purchase(orders: Orders, event: EventRecord, at: int) -> tuple[bool, bool]:
    """Apply a purchase at ``at`` (epoch seconds).

    Returns
    -------
    tuple
        Whether it begins an order, and whether it tells of a whole order again.
    """
    order_id, day = event.order_id or event.id, at // DAY_S
    told = _recall(orders, event, day)
    is_new = told is None
    late = max(0, orders.last_at - at)
    elapsed = max(0, at - orders.last_at) if orders.count else 0
    if is_new:
        if orders.count and late == 0:
            gaps = orders.gaps + GAP.pack(min(_MAX_GAP, elapsed))
            orders.gaps = gaps[-MAX_GAPS * GAP.size :]
        orders.first_at = min(orders.first_at, at) if orders.count else at
        orders.count += 1
    orders.last_at = max(orders.last_at, at)
    lines, money, told_lines, told_money = len(event.items), amount(event), 0, 0
    is_whole = lines < MAX_ITEMS and (told is None or told[0] < MAX_ITEMS)
    if told is not None and is_whole:
        told_lines, told_money = told
        if not is_stated(event):
            lines, money = told
    orders.recent = remember(orders.recent, order_id, day, lines if is_whole else MAX_ITEMS, money)
    orders.lines += lines - told_lines
    orders.spend = add_money(orders.spend, money - told_money)
    add_day(orders, day, int(is_new), money - told_money)
    priced = event.items if is_new or not is_whole else []
    _add_prices(orders, priced, elapsed, late)
    add(orders.history, [pack_key(item.item_id) for item in event.items], MAX_HISTORY)
    return is_new, is_whole and not is_new


def _recall(orders: Orders, event: EventRecord, day: int) -> tuple[int, int] | None:
    """Return lines and money that the event's order was last told with; None: it is new.

    A row from before `order_memory` knows the id of its last order alone: that one, told again,
    changes nothing.
    """
    order_id = event.order_id or event.id
    if not orders.recent and orders.count and orders.last_id == pack_id(order_id):
        return len(event.items), amount(event)
    return recall(orders.recent, order_id, day)


def refund(orders: Orders, event: EventRecord, at: int) -> None:
    """Apply a refund at ``at`` (epoch seconds)."""
    orders.refunds += 1
    money = amount(event)
    orders.spend = add_money(orders.spend, -money)
    add_day(orders, at // DAY_S, 0, -money)


def _add_prices(orders: Orders, items: list[ItemRecord], elapsed: int, late: int) -> None:
    if elapsed:
        keep = math.exp2(-elapsed / LONG_HALF_LIFE_S)
        orders.paid_lines = round(orders.paid_lines * keep)
        orders.price_sum = round(orders.price_sum * keep)
        orders.promoted_lines = round(orders.promoted_lines * keep)
        orders.gross = round(orders.gross * keep)
        orders.discount = round(orders.discount * keep)
    paid, promoted = 0, 0
    prices, gross, discount = 0.0, 0.0, 0.0
    for item in items:
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
