"""Cohorts: of those who first did something in a bucket, how many did it again so many later.

Belongs here: the answer. Whoever had done it before the archive begins looks new in its first
bucket, which is therefore marked.
"""

from typing import Any, Final

import numpy as np

from feature_repo.analytics.calendar import Grain, name
from feature_repo.analytics.cube import Moment
from feature_repo.analytics.intervals import share
from feature_repo.analytics.suppression import complement_few, few

_COUNTS: Final = """
SELECT cohort, bucket - cohort AS age, count(*) FROM activity
WHERE grain = $grain AND type = $kind AND bucket < $end GROUP BY ALL
"""


def retention(moment: Moment, *, grain: Grain, event_type: str, periods: int) -> dict[str, Any]:
    """Return each cohort's size and how many of it came back, by age in buckets.

    A cell is hidden if those who came back are too few, or those who did not and are not nobody;
    a whole cohort if it is. ``curve`` adds up the cells that are shown, and their cohorts.

    Parameters
    ----------
    event_type
        Type of event: in its first bucket a user joins, in others comes back.
    periods
        Cohorts, the last whole ones, and ages.
    """
    end = moment.end(grain)
    rows = moment.cube.index.rows(_COUNTS, {"grain": grain, "kind": event_type, "end": end})
    counts = {(int(cohort), int(age)): int(users) for cohort, age, users in rows}
    begun = min((cohort for cohort, _ in counts), default=end)
    cohorts, hidden = list[dict[str, Any]](), 0
    for cohort in range(max(begun, end - periods), end):
        size = counts.get((cohort, 0), 0)
        back = np.array([counts.get((cohort, age), 0) for age in range(min(periods, end - cohort))])
        masked = few(back) | complement_few(back, size) | few(size)
        hidden += int(masked.sum())
        cohorts.append({
            "start": name(grain, cohort),
            "began_before": cohort == begun,
            "users": None if few(size) else size,
            "cells": [
                _cell(age, None if masked[age] else int(back[age]), size)
                for age in range(len(back))
            ],
        })  # fmt: skip
    return {
        **moment.head(hidden), "type": event_type, "grain": grain, "cohorts": cohorts,
        "curve": _curve(cohorts),
    }  # fmt: skip


def _cell(age: int, back: int | None, size: int) -> dict[str, Any]:
    if back is None:
        return {"age": age, "users": None, "share": None, "interval": None}
    low, high = share(back, size)
    return {
        "age": age, "users": back, "share": round(back / size, 4),
        "interval": [round(float(low), 4), round(float(high), 4)],
    }  # fmt: skip


def _curve(cohorts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ages = max((len(cohort["cells"]) for cohort in cohorts), default=0)
    curve = []
    for age in range(ages):
        cells = [
            (cohort["cells"][age]["users"], cohort["users"])
            for cohort in cohorts
            if age < len(cohort["cells"]) and cohort["cells"][age]["users"] is not None
        ]
        back, size = sum(users for users, _ in cells), sum(whole for _, whole in cells)
        shown = _cell(age, back if cells else None, size)
        curve.append({**shown, "cohorts": len(cells), "of": size if cells else None})
    return curve
