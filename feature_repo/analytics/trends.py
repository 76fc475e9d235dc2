"""Demand by category and week or month: how many bought, how it grows, when it shifted.

Belongs here: the answer. Intervals are `intervals`', change points `changes`', what is hidden
`suppressed_cells`'s.
"""

from typing import Any, Final

import numpy as np

from feature_repo.analytics import changes
from feature_repo.analytics.calendar import Grain, name
from feature_repo.analytics.cube import Moment
from feature_repo.analytics.intervals import growth, poisson
from feature_repo.errors import InvalidQuestionError

ALL: Final = 0
"""Shelf of everything."""

_POINTS: Final = """
SELECT shelf, bucket, users, events, lines_m FROM demand
WHERE grain = $grain AND type = $kind AND bucket >= $first AND bucket < $end
    AND list_contains($shelves, shelf)
ORDER BY bucket
"""
_LARGEST: Final = """
SELECT shelf FROM demand JOIN shelves USING (shelf)
WHERE grain = $grain AND type = $kind AND bucket >= $first AND bucket < $end AND level = $level
GROUP BY shelf, path ORDER BY sum(events) DESC, path LIMIT $most
"""


def trends(
    moment: Moment,
    *,
    grain: Grain,
    event_type: str,
    level: int,
    category: str | None,
    most: int,
    buckets: int,
) -> dict[str, Any]:
    """Return the series of all events, and of the categories with the most, by whole bucket.

    Parameters
    ----------
    event_type
        Type of event.
    level
        1: departments, 2: the categories below them; of no account where ``category`` is given.
    category
        Only this one.
    most, buckets
        At most so many categories, and buckets.

    Raises
    ------
    InvalidQuestionError
        If no event has named ``category``.
    """  # fmt: skip
    first, end = moment.whole(grain, event_type, buckets)
    bounds = {"grain": grain, "kind": event_type, "first": first, "end": end}
    shelves = [ALL, *_shelves(moment, bounds, level, category, most)]
    rows = moment.cube.index.rows(_POINTS, {**bounds, "shelves": shelves})
    found = {(int(shelf), int(bucket)): figures for shelf, bucket, *figures in rows}
    suppressed = moment.cube.suppressed
    alarms, series = changes.FALSE_ALARMS / len(shelves), list[dict[str, Any]]()
    for shelf in shelves:
        points = [
            _point(grain, bucket, found.get((shelf, bucket)))
            if shelf in suppressed.find_shown(grain, event_type, bucket)
            else _hide(grain, bucket)
            for bucket in range(first, end)
        ]
        path = None if shelf == ALL else suppressed.shelves[shelf][1]
        series.append({"category": path, "points": points, **_shape(points, alarms)})
    hidden = sum(point["events"] is None for each in series for point in each["points"])
    return {
        **moment.head(hidden), "type": event_type, "grain": grain,
        "false_alarms": changes.FALSE_ALARMS, "series": series,
    }  # fmt: skip


def _shelves(
    moment: Moment, bounds: dict[str, Any], level: int, category: str | None, most: int
) -> list[int]:
    if category is not None:
        found = [s for s, (_, path) in moment.cube.suppressed.shelves.items() if path == category]
        if not found:
            raise InvalidQuestionError(
                "category",
                f"no event has named {category[:200]!r}, of the first two levels",
            )
        return found[:1]
    rows = moment.cube.index.rows(_LARGEST, {**bounds, "level": level, "most": most})
    return [int(row[0]) for row in rows]


def _hide(grain: Grain, bucket: int) -> dict[str, Any]:
    return {"start": name(grain, bucket), "users": None, "users_interval": None, "events": None,
            "amount": None}  # fmt: skip


def _point(grain: Grain, bucket: int, figures: Any) -> dict[str, Any]:
    users, events, lines_m = figures
    low, high = poisson(users)
    return {
        "start": name(grain, bucket),
        "users": int(users),
        "users_interval": [round(float(low), 1), round(float(high), 1)],
        "events": int(events),
        "amount": round(lines_m / 1000, 2),
    }


def _shape(points: list[dict[str, Any]], false_alarms: float) -> dict[str, Any]:
    """Return growth and change points of the events; none where a bucket is hidden."""
    counts = [point["events"] for point in points]
    if not counts or None in counts:
        return {"growth": None, "change_points": None}
    fitted = growth(counts)
    return {
        "growth": None if fitted is None else {
            "per_bucket": round(fitted.factor, 5),
            "interval": [round(fitted.low, 5), round(fitted.high, 5)],
        },
        "change_points": [
            {
                "at": points[each.at]["start"],
                "before": round(each.before, 1),
                "after": round(each.after, 1),
                "ratio": round(each.ratio, 4),
                "interval": [round(each.low, 4), round(each.high, 4)],
                "p": float(np.format_float_positional(each.p, precision=3, fractional=False)),
            }
            for each in changes.find(counts, false_alarms=false_alarms)
        ],
    }  # fmt: skip
