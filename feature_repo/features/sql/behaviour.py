"""SQL of the behaviour views: what a user did in the last 7, 28 and 91 days.

Every feature is a running sum of whole numbers: a day's figures are added on the morning
after it and taken away on the morning after they leave the window. So a row stands at each
morning on which anything changes and nowhere else, the latest row before a moment is exact,
and no rounding error builds up (money is counted in thousandths).

The statements read the temporary tables that `feature_repo.features.snapshots` stages.
"""

from typing import Final

from feature_repo.features.catalogue import COUNTED_TYPES

_COUNTS: Final = ("num_events", *COUNTED_TYPES)
_MONEY: Final = ("spend_m", "gross_m", "discount_m")
_DAILY: Final = (*_COUNTS, *_MONEY, "num_active_days")
_GAPS: Final = tuple(
    f"{gap_type}_{part}" for gap_type in ("active", "order") for part in ("n", "sum", "sq")
)
_DISTINCT: Final = ("num_distinct_items", "num_distinct_categories")
_SUMMED: Final = (*_DAILY, *_GAPS, *_DISTINCT)


def _is(event_type: str) -> str:
    return "is_order" if event_type == "purchase" else f"type = '{event_type}'"


STAGE: Final = f"""
CREATE TEMP TABLE daily AS
SELECT "user", day, count(*) AS num_events,
    {", ".join(f"count(*) FILTER ({_is(each)}) AS {n}" for n, each in COUNTED_TYPES.items())},
    sum(spend_m) AS spend_m, sum(gross_m) AS gross_m, sum(discount_m) AS discount_m,
    max(own::INT) AS num_active_days
FROM events GROUP BY ALL;

CREATE TEMP TABLE gaps AS
SELECT "user", kind, day, day - lag(day) OVER (PARTITION BY "user", kind ORDER BY day) AS gap
FROM (
    SELECT "user", 'active' AS kind, day FROM daily WHERE num_active_days > 0
    UNION ALL SELECT "user", 'order', day FROM daily WHERE num_purchases > 0
);

CREATE TEMP TABLE touches AS
SELECT "user", kind, key, day,
    lag(day) OVER same AS day_before, lead(day) OVER same AS day_after
FROM (
    SELECT DISTINCT "user", 'item' AS kind, item_id AS key, day FROM lines
    UNION ALL
    SELECT DISTINCT "user", 'category', category, day FROM lines WHERE category IS NOT NULL
)
WINDOW same AS (PARTITION BY "user", kind, key ORDER BY day);
"""  # noqa: S608 - built from names in this package
"""Tables shared by all windows, from ``events`` and ``lines``."""


def rows(days: int, first: int, last: int) -> str:
    """Return the SELECT of one window's rows.

    Parameters
    ----------
    days
        Length of the window.
    first, last
        Snapshot days (days since 1970-01-01) of the rows wanted, both included.
    """
    plus = ", ".join(_DAILY)
    minus = ", ".join(f"-{name} AS {name}" for name in _DAILY)
    changes = [
        f'SELECT "user", day + 1 AS snap, {plus} FROM recent',  # noqa: S608
        f'SELECT "user", day + {days} + 1 AS snap, {minus} FROM recent',  # noqa: S608
    ]
    for gap_type in ("active", "order"):
        for sign, at in (("", "day + 1"), ("-", f"day - gap + {days} + 1")):
            changes.append(
                f'SELECT "user", {at} AS snap, {sign}1 AS {gap_type}_n, '  # noqa: S608
                f"{sign}gap AS {gap_type}_sum, {sign}gap * gap AS {gap_type}_sq FROM gaps "
                f"WHERE kind = '{gap_type}' AND gap < {days} AND day - gap >= {first - days}"
            )
    for key_type, name in (("item", "num_distinct_items"), ("category", "num_distinct_categories")):
        for sign, at, edge in (
            ("", "day + 1", f"day_before IS NULL OR day_before + {days} < day "
             f"OR day_before < {first - days}"),
            ("-", f"day + {days} + 1", f"day_after IS NULL OR day_after > day + {days}"),
        ):  # fmt: skip
            changes.append(
                f'SELECT "user", {at} AS snap, {sign}count(*) AS {name} FROM touches '  # noqa: S608
                f"WHERE kind = '{key_type}' AND day >= {first - days} AND ({edge}) GROUP BY ALL"
            )
    summed = ", ".join(f"sum({name}) AS {name}" for name in _SUMMED)
    running = ", ".join(f"coalesce(sum({name}) OVER upto, 0)::BIGINT AS {name}" for name in _SUMMED)
    return f"""
WITH recent AS (SELECT * FROM daily WHERE day >= {first - days}),
changes AS ({" UNION ALL BY NAME ".join(changes)}),
merged AS (SELECT "user", snap, {summed} FROM changes WHERE snap <= {last} GROUP BY ALL),
running AS (
    SELECT "user", snap, {running} FROM merged
    WINDOW upto AS (PARTITION BY "user" ORDER BY snap)
)
SELECT "user", snap,
    {", ".join(f"{name} AS {name}_{days}d" for name in (*_COUNTS, *_DISTINCT))},
    spend_m / 1000.0 AS spend_{days}d,
    discount_m / nullif(gross_m, 0)::DOUBLE AS discount_share_{days}d,
    num_active_days AS num_active_days_{days}d,
    {_gap_statistics("active", "gap", days)},
    {_gap_statistics("order", "order_gap", days)}
FROM running WHERE snap >= {first}
"""  # noqa: S608 - built from names and whole numbers


def _gap_statistics(gap_type: str, name: str, days: int) -> str:
    count, total, squares = (f"{gap_type}_{part}" for part in ("n", "sum", "sq"))
    mean = f"{total} / nullif({count}, 0)::DOUBLE"
    # n·Σg² − (Σg)² is exact in whole numbers, so equal gaps give exactly 0.
    spread = f"sqrt({count} * {squares} - {total} * {total}) / nullif({count}, 0)::DOUBLE"
    return f"{mean} AS mean_{name}_days_{days}d, {spread} AS std_{name}_days_{days}d"
