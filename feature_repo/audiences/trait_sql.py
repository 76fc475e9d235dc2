"""Live traits in SQL: the same figures as `profile_views.metrics` reads from a profile.

Belongs here: one expression a trait, over a row ``x`` of ``facts``. Figures of a window of
days are sums over ``order_days``.
"""

from collections.abc import Callable
from typing import Final

from feature_repo.audiences.traits import OVERDUE
from feature_repo.profile_views.metrics import ACTIVE_GAPS, RISK_GAPS

_DAYS: Final = "greatest(0, {now} - {at}) / 86400::DOUBLE"
_RECENCY: Final = f"round({_DAYS.format(now='{now}', at='x.last_order_s')}, 4)"

_SEEN: Final = _DAYS.format(now="{now}", at="x.seen_s")

_VALUES: Final = {
    "event_count": "x.num_events",
    "orders.count": "x.num_orders",
    "orders.spend": "x.spend_m::BIGINT / 1000::DOUBLE",
    "identity.anonymous": "x.anonymous",
    "identity.first_seen_days": _DAYS.format(now="{now}", at="x.first_s"),
    "identity.last_seen_days": f"CASE WHEN x.seen_s IS NOT NULL THEN {_SEEN} END",
    "rfm.recency_days": f"CASE WHEN x.last_order_s IS NOT NULL THEN {_RECENCY} END",
    "habits.median_gap_days": "x.median_gap_days",
    OVERDUE: f"CASE WHEN x.median_gap_days > 0 THEN {_RECENCY} / x.median_gap_days END",
    "lifecycle.stage": (
        "CASE WHEN x.last_order_s IS NULL THEN 'visitor' "
        f"WHEN {_RECENCY} <= {ACTIVE_GAPS}::DOUBLE * x.personal_gap_days "
        "THEN CASE WHEN x.num_orders = 1 THEN 'new' ELSE 'active' END "
        f"WHEN {_RECENCY} <= {RISK_GAPS}::DOUBLE * x.personal_gap_days THEN 'at_risk' "
        "ELSE 'lapsed' END"
    ),
}
_WINDOWED: Final = {
    "rfm.frequency": "sum(orders)::BIGINT",
    "rfm.monetary": "sum(spend_m)::BIGINT / 1000::DOUBLE",
}


def live_value(name: str, now: Callable[[], str]) -> str:
    """Return the expression of a live trait; ``now`` gives that of epoch seconds, if asked."""
    value = _VALUES[name]
    return value.replace("{now}", now()) if "{now}" in value else value


def find_window(name: str) -> tuple[str, int] | None:
    """Return the aggregate over ``order_days`` and its number of days, for a figure that is one.

    Examples
    --------
    >>> find_window("rfm.frequency.28d")
    ('sum(orders)::BIGINT', 28)
    """
    figure, _, days = name.rpartition(".")
    if figure not in _WINDOWED:
        return None
    return _WINDOWED[figure], int(days.removesuffix("d"))
