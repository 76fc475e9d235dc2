"""SQL of the profile view: RFM, habits, lifecycle and interests, each Monday.

One row for every user seen before the Monday. Sums run over whole weeks, so the 28- and
91-day windows are the last 4 and 13 of them. The statements read the temporary tables that
`feature_repo.features.snapshots` and `feature_repo.features.sql.interests` stage.
"""

from typing import Final

from feature_repo.features.sql import interests

_HOURS: Final = tuple(f"h{hour}" for hour in range(24))
_WEEKDAYS: Final = tuple(f"d{day}" for day in range(7))
_SLOTS: Final = (*_HOURS, *_WEEKDAYS)

STAGE: Final = f"""
CREATE TEMP TABLE weekly AS
SELECT "user", week, min(day) AS first_day,
    count(*) FILTER (is_order) AS orders,
    sum(spend_m) AS spend_m,
    sum(order_lines) FILTER (type = 'purchase') AS num_lines,
    max(day) FILTER (type = 'purchase') AS last_order,
    {", ".join(f"count(*) FILTER (own AND hour = {i}) AS h{i}" for i in range(24))},
    {", ".join(f"count(*) FILTER (own AND weekday = {i}) AS d{i}" for i in range(7))}
FROM events GROUP BY ALL;
"""  # noqa: S608 - built from whole numbers
"""Figures of each user's weeks, from ``events``."""


def rows(first: int, last: int) -> str:
    """Return the SELECT of the profile rows with snapshot day in ``first..last``."""
    running = ", ".join(f"coalesce(sum({s}) OVER upto, 0) AS {s}" for s in _SLOTS)
    return f"""
WITH grid AS (
    SELECT "user", snap, scale FROM (SELECT "user", min(week) AS seen FROM weekly GROUP BY ALL)
    JOIN weeks ON snap >= seen
),
running AS (
    SELECT g."user", snap, scale,
        min(first_day) OVER upto AS first_day,
        coalesce(sum(orders) OVER upto, 0) AS orders,
        coalesce(sum(spend_m) OVER upto, 0) AS spend_m,
        coalesce(sum(num_lines) OVER upto, 0) AS num_lines,
        max(last_order) OVER upto AS last_order,
        {_sliding("orders", 4)}, {_sliding("orders", 13)},
        {_sliding("spend_m", 4)}, {_sliding("spend_m", 13)},
        last_value(b.n IGNORE NULLS) OVER upto AS baskets,
        {running}
    FROM grid g LEFT JOIN weekly w ON w."user" = g."user" AND w.week = snap
    LEFT JOIN baskets_to b ON b."user" = g."user" AND b.week = snap
    WINDOW upto AS (PARTITION BY g."user" ORDER BY snap)
),
ranked AS (
    SELECT *, {_quintile("last_order")} AS q_recency, {_quintile("orders_13")} AS q_frequency,
        {_quintile("spend_m_13")} AS q_monetary
    FROM running WHERE snap >= {first}
)
SELECT r."user", r.snap,
    r.snap - last_order AS rfm_recency_days,
    orders_4 AS rfm_frequency_28d, orders_13 AS rfm_frequency_91d,
    spend_m_4 / 1000.0 AS rfm_monetary_28d, spend_m_13 / 1000.0 AS rfm_monetary_91d,
    q_recency AS rfm_recency_quintile, q_frequency AS rfm_frequency_quintile,
    q_monetary AS rfm_monetary_quintile,
    orders AS num_orders_total, spend_m / 1000.0 AS spend_total,
    num_lines / nullif(orders, 0)::DOUBLE AS mean_basket_lines,
    r.snap - first_day AS tenure_days,
    coalesce(list_transform(category_best, lambda b: b.k), []) AS interest_categories,
    coalesce({interests.weights("category")}, []) AS interest_category_weights,
    coalesce(list_transform(brand_best, lambda b: b.k), []) AS interest_brands,
    coalesce({interests.weights("brand")}, []) AS interest_brand_weights,
    {_histogram(_HOURS)} AS hour_histogram,
    {_histogram(_WEEKDAYS)} AS weekday_histogram,
    {_peak(_HOURS)} AS peak_hour, {_peak(_WEEKDAYS)} AS peak_weekday
FROM ranked r
LEFT JOIN (
    SELECT "user", snap, any_value(best) FILTER (kind = 'category') AS category_best,
        any_value(best) FILTER (kind = 'brand') AS brand_best
    FROM interests GROUP BY ALL
) i ON i."user" = r."user" AND i.snap = r.snap
WHERE r.snap <= {last}
"""  # noqa: S608 - built from names and whole numbers


def _sliding(column: str, weeks: int) -> str:
    frame = f'PARTITION BY g."user" ORDER BY snap ROWS {weeks - 1} PRECEDING'
    return f"coalesce(sum({column}) OVER ({frame}), 0) AS {column}_{weeks}"


def _quintile(column: str) -> str:
    """Fifth of the buyers at this snapshot, 1 lowest; equal values share the lower fifth."""
    buyers = "PARTITION BY snap, orders > 0"
    return (
        f"CASE WHEN orders > 0 THEN 1 + (5 * (rank() OVER ({buyers} ORDER BY {column}) - 1)) "
        f"// count(*) OVER ({buyers}) END"
    )


def _histogram(slots: tuple[str, ...]) -> str:
    total = f"nullif({' + '.join(slots)}, 0)::DOUBLE"
    shares = ", ".join(f"{slot} / {total}" for slot in slots)
    return f"CASE WHEN {' + '.join(slots)} > 0 THEN [{shares}] ELSE [] END"


def _peak(slots: tuple[str, ...]) -> str:
    values = f"[{', '.join(slots)}]"
    return (
        f"CASE WHEN {' + '.join(slots)} > 0 "
        f"THEN list_position({values}, list_max({values})) - 1 END"
    )
