"""Orders: when, how much and what a user buys, in bounded state.

Belongs here: order counts, money by day, gaps between orders, purchase history, price and
promotion figures. Not here: interests (`heavy_hitters`) and the cart (`session`).

Money is the event's ``value`` where given, else Σ quantity · price − discount over its
lines, never below 0. A refund takes its amount off the day of the refund and off the
lifetime sum; it removes no order, no gap and nothing from the purchase history.
"""

import math
from typing import Final

import msgspec

from feature_repo.compact import DAY_S, MICRO, Key, add_money, pack_id, pack_money
from feature_repo.events import EventRecord, ItemRecord
from feature_repo.heavy_hitters import LONG_HALF_LIFE_S
from feature_repo.id_ring import IdRing, add

MAX_DAYS: Final = 91
MAX_GAPS: Final = 20
MAX_HISTORY: Final = 500


class Orders(msgspec.Struct, array_like=True):
    """What was bought.

    Attributes
    ----------
    count, refunds
        Orders (an event that repeats the last ``order_id`` continues that order; one that
        repeats an earlier one counts as new); refund events.
    lines
        Order lines of all orders.
    last_id
        ``order_id`` of the last order.
    first_at, last_at
        Epoch seconds of the first and the last order.
    spend
        Lifetime money, thousandths.
    days, day_orders, day_spend
        Days (epoch days UTC) with an order or refund, oldest first, within `MAX_DAYS` of the
        newest; orders and money (thousandths) of each.
    gaps_s
        Seconds between the last `MAX_GAPS` + 1 orders, oldest first.
    history
        Distinct items, first purchase first; beyond `MAX_HISTORY` the oldest go.
    paid_lines, price_sum, promoted_lines, gross, discount
        Decayed with a half-life of 112 days, as of ``last_at``: lines with a price
        (millionths) and the sum of their unit prices (thousandths); lines with a discount or
        coupon (millionths); money before discounts and discounts (thousandths).
    """

    count: int = 0
    refunds: int = 0
    lines: int = 0
    last_id: Key = ""
    first_at: int = 0
    last_at: int = 0
    spend: int = 0
    days: list[int] = []
    day_orders: list[int] = []
    day_spend: list[int] = []
    gaps_s: list[int] = []
    history: IdRing = msgspec.field(default_factory=IdRing)
    paid_lines: int = 0
    price_sum: int = 0
    promoted_lines: int = 0
    gross: int = 0
    discount: int = 0


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


def purchase(orders: Orders, event: EventRecord, at: int) -> None:
    """Apply a purchase at ``at`` (epoch seconds)."""
    order_id = pack_id(event.order_id or event.id)
    is_new = order_id != orders.last_id or orders.count == 0
    late = max(0, orders.last_at - at)
    elapsed = max(0, at - orders.last_at) if orders.count else 0
    if is_new:
        if orders.count and late == 0:
            orders.gaps_s.append(elapsed)
            del orders.gaps_s[:-MAX_GAPS]
        orders.first_at = min(orders.first_at, at) if orders.count else at
        orders.count += 1
        orders.last_id = order_id
    orders.last_at = max(orders.last_at, at)
    orders.lines += len(event.items)
    money = amount(event)
    orders.spend = add_money(orders.spend, money)
    _add_day(orders, at // DAY_S, int(is_new), money)
    _add_prices(orders, event, elapsed, late)
    _add_history(orders, event)


def refund(orders: Orders, event: EventRecord, at: int) -> None:
    """Apply a refund at ``at`` (epoch seconds)."""
    orders.refunds += 1
    money = amount(event)
    orders.spend = add_money(orders.spend, -money)
    _add_day(orders, at // DAY_S, 0, -money)


def window(orders: Orders, today: int, days: int) -> tuple[int, int]:
    """Return orders and money (thousandths) of the ``days`` calendar days up to ``today``.

    ``today`` is an epoch day (UTC) and counts as one of them; ``days`` ≤ `MAX_DAYS`.
    """
    found, money = 0, 0
    for day, count, spent in zip(orders.days, orders.day_orders, orders.day_spend, strict=True):
        if today - days < day <= today:
            found += count
            money += spent
    return found, money


def _add_day(orders: Orders, day: int, count: int, money: int) -> None:
    days = orders.days
    if days and day <= days[-1] - MAX_DAYS:
        return
    at = len(days)
    while at and days[at - 1] >= day:
        at -= 1
    if at == len(days) or days[at] != day:
        days.insert(at, day)
        orders.day_orders.insert(at, 0)
        orders.day_spend.insert(at, 0)
    orders.day_orders[at] += count
    orders.day_spend[at] = add_money(orders.day_spend[at], money)
    past = 0
    while days[past] <= days[-1] - MAX_DAYS:
        past += 1
    if past:
        del days[:past], orders.day_orders[:past], orders.day_spend[:past]


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


def _add_history(orders: Orders, event: EventRecord) -> None:
    add(orders.history, [pack_id(item.item_id) for item in event.items], MAX_HISTORY)
