"""Interest drift: how far profiles move from month to month, and which interests rise and fall.

Belongs here: the answer. A profile's interests are those of the feature store's last snapshot of
the month, its weights as shares of their sum.
"""

from typing import Any, Final

import numpy as np

from feature_repo.analytics.buckets import name
from feature_repo.analytics.cube import Moment
from feature_repo.analytics.intervals import LEVEL, quantile
from feature_repo.analytics.suppression import K, few, line

_MOVES: Final = """
SELECT month, count(*), avg(moved), stddev_samp(moved), quantile_cont(moved, [0.25, 0.5, 0.75])
FROM moves WHERE month > $first AND month <= $last GROUP BY month ORDER BY month
"""
_CHANGES: Final = """
WITH both_months AS (
    SELECT u FROM taste WHERE month = $first INTERSECT SELECT u FROM taste WHERE month = $last
),
changed AS (
    SELECT u, category, sum(share) FILTER (month = $first) AS before,
        sum(share) FILTER (month = $last) AS after
    FROM taste JOIN both_months USING (u)
    WHERE month = $first OR month = $last GROUP BY ALL
)
SELECT category, count(*), count(before), count(after), sum(before), sum(after),
    sum(pow(coalesce(after, 0) - coalesce(before, 0), 2)), (SELECT count(*) FROM both_months)
FROM changed GROUP BY category ORDER BY category
"""


def drift(moment: Moment, *, months: int, most: int) -> dict[str, Any]:
    """Return each month's movement of profiles, and the interests that rose and fell most.

    A user's movement is half of Σ |Δ share| over categories, 0 (nothing moved) to 1 (nothing
    stayed). An interest's change is the mean over the users who had a profile in the first and
    the last month; its interval takes users to be independent and holds for all categories at
    once (Bonferroni). Rising and falling are those whose interval leaves out 0.

    Parameters
    ----------
    months
        The last so many whole months, with a profile in the first and the last.
    most
        At most so many rising, and falling.
    """
    index = moment.cube.index
    begun, end = moment.whole("month", "purchase", months)
    held = [int(row[0]) for row in index.rows(
        "SELECT DISTINCT month FROM taste WHERE month >= $first AND month < $end ORDER BY month",
        {"first": begun, "end": end},
    )]  # fmt: skip
    first, last = (held[0], held[-1]) if held else (end, end)
    span = {"first": first, "last": last}
    moved = [_month(*row) for row in index.rows(_MOVES, span)]
    rows = index.rows(_CHANGES, span) if first < last else []
    changed, hidden = _changes(rows)
    hidden += sum(each["users"] is None for each in moved)
    rising = [each for each in changed if each["interval"][0] > 0]
    falling = [each for each in changed if each["interval"][1] < 0]
    people = int(rows[0][7]) if rows else 0
    return {
        **moment.head(hidden),
        "period": {"from": name("month", first), "to": name("month", last)},
        "users": people if people >= K else None,
        "compared": len(changed),
        "months": moved,
        "rising": sorted(rising, key=lambda each: -each["change"])[:most],
        "falling": sorted(falling, key=lambda each: each["change"])[:most],
    }


def _month(
    month: int, users: int, mean: float, deviation: float | None, quartiles: list[float]
) -> dict[str, Any]:
    start = name("month", int(month))
    if users < K:
        return {"start": start, "users": None, "mean": None, "interval": None, "quartiles": None}
    half = quantile(LEVEL, users - 1) * float(deviation or 0) / users**0.5
    return {
        "start": start,
        "users": int(users),
        "mean": round(mean, 4),
        "interval": [round(max(0.0, mean - half), 4), round(min(1.0, mean + half), 4)],
        "quartiles": [round(float(q), 4) for q in quartiles],
    }


def _changes(rows: list[tuple[Any, ...]]) -> tuple[list[dict[str, Any]], int]:
    """Return the categories that may be shown, and how many may not.

    All shares add up to one, so that of a single hidden category would follow from the others.
    """
    if not rows or int(rows[0][7]) < K:
        return [], len(rows)
    interested = np.array([int(row[1]) for row in rows])
    hidden, _ = line(interested, few(interested))
    shown = [row for row, masked in zip(rows, hidden, strict=True) if not masked]
    return [_change(row, len(shown)) for row in shown], int(hidden.sum())


def _change(row: tuple[Any, ...], compared: int) -> dict[str, Any]:
    category, _, had, has, before, after, squares, people = row
    num = int(people)
    change = (float(after or 0) - float(before or 0)) / num
    variance = max(0.0, float(squares) / num - change**2) / max(1, num - 1)
    half = quantile(1 - (1 - LEVEL) / compared, num - 1) * float(np.sqrt(variance))
    return {
        "category": str(category),
        "users_before": int(had) if had >= K else None,
        "users_after": int(has) if has >= K else None,
        "share_before": round(float(before or 0) / num, 5),
        "share_after": round(float(after or 0) / num, 5),
        "change": round(change, 5),
        "interval": [round(change - half, 5), round(change + half, 5)],
    }
