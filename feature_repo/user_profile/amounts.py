"""The worth of an order line and of an order: one rule, in Python for folds and in SQL for tables.

A line is worth quantity · price − discount, never less than nothing; an order its ``value`` where
one is given, else the sum of its lines. Amounts are ≥ 0; a negative ``value`` of an older record
counts as 0 in an order, and without its sign in a refund. Not here: what is done with them
(`orders`, `features.snapshots`, `audiences.tables`).
"""

from typing import Final

from feature_repo.events.schema import EventRecord
from feature_repo.user_profile.compact import MAX_MONEY_MILLI, pack_money


def line_amount(quantity: float, price: float | None, discount: float | None) -> float:
    """Return what was paid for a line: quantity · price − discount, at least 0.

    Examples
    --------
    >>> line_amount(2, 3.0, 1.0), line_amount(1, 3.0, 5.0)
    (5.0, 0.0)
    """
    return max(0.0, quantity * (price or 0.0) - (discount or 0.0))


def amount(event: EventRecord) -> int:
    """Return the money an order or refund moves, thousandths, ≥ 0."""
    if event.value is not None:
        money = pack_money(event.value)
        return abs(money) if event.type == "refund" else max(0, money)
    total = 0.0
    for item in event.items:
        total += line_amount(item.quantity, item.price, item.discount)
    return pack_money(total)


def is_stated(event: EventRecord) -> bool:
    """Say whether an order states what it is worth: by a ``value``, 0 too, or a priced line."""
    return event.value is not None or any(item.price is not None for item in event.items)


LINE: Final = (
    "greatest(0::DOUBLE, i.quantity * coalesce(i.price, 0::DOUBLE) "
    "- coalesce(i.discount, 0::DOUBLE))"
)
"""`line_amount` of line ``i``, in SQL."""


def of_lines(figure: str) -> str:
    """Return the sum of a figure of line ``i`` over an event's lines, in SQL."""
    return f"list_sum(list_transform(items, lambda i: {figure}))"


def milli(figure: str) -> str:
    """Return money as the profile counts it (`compact.pack_money`), in SQL."""
    rounded = f"round_even(1000::DOUBLE * ({figure}), 0)"
    return f"least({MAX_MONEY_MILLI}::DOUBLE, {rounded})::BIGINT"


EVENT_M: Final = milli(f"coalesce(value, {of_lines(LINE)}, 0::DOUBLE)")
"""`amount` of a row of sound events (`feature_repo.archive.valid_events`), in SQL."""

IS_STATED: Final = (
    "(value IS NOT NULL "
    "OR len(list_filter(coalesce(items, []), lambda i: i.price IS NOT NULL)) > 0)"
)
"""`is_stated` of a row of sound events, in SQL."""
