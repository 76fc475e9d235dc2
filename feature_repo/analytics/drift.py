"""Interest drift: how far profiles move from month to month, and which interests rise and fall.

Belongs here: the answer. A profile's interests are those of the feature store's last snapshot of
the month, its weights as shares of their sum.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.analytics.calendar import name
from feature_repo.analytics.cube import Moment
from feature_repo.analytics.interest_history import InterestHistory, match
from feature_repo.analytics.intervals import LEVEL, quantile
from feature_repo.analytics.suppression import K, few, line


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
    history = moment.cube.interest_history
    begun, end = moment.whole("month", "purchase", months)
    whole = [month for month in history.months if begun <= month < end]
    first, last = (whole[0], whole[-1]) if whole else (end, end)
    moved = [_month(month, history.moved[month]) for month in whole[1:] if month in history.moved]
    people = int(history.both(first, last).sum()) if first < last else 0
    changed, hidden = _changes(history, first, last) if people >= K else ([], 0)
    hidden += sum(each["users"] is None for each in moved)
    rising = [each for each in changed if each["interval"][0] > 0]
    falling = [each for each in changed if each["interval"][1] < 0]
    return {
        **moment.head(hidden),
        "period": {"from": name("month", first), "to": name("month", last)},
        "users": people if people >= K else None,
        "compared": len(changed),
        "months": moved,
        "rising": sorted(rising, key=lambda each: -each["change"])[:most],
        "falling": sorted(falling, key=lambda each: each["change"])[:most],
    }


def _month(month: int, moved: npt.NDArray[np.float64]) -> dict[str, Any]:
    start, users = name("month", month), len(moved)
    if users < K:
        return {"start": start, "users": None, "mean": None, "interval": None, "quartiles": None}
    mean = float(moved.mean())
    half = quantile(LEVEL, users - 1) * float(moved.std(ddof=1)) / users**0.5
    return {
        "start": start,
        "users": users,
        "mean": round(mean, 4),
        "interval": [round(max(0.0, mean - half), 4), round(min(1.0, mean + half), 4)],
        "quartiles": [round(float(q), 4) for q in np.quantile(moved, [0.25, 0.5, 0.75])],
    }


def _changes(history: InterestHistory, first: int, last: int) -> tuple[list[dict[str, Any]], int]:
    """Return the categories that may be shown, and how many may not.

    All shares add up to one, so that of a single hidden category would follow from the others.
    """
    users, size = history.both(first, last), len(history.categories)
    (key, after), (old_key, before) = history.shares(last, users), history.shares(first, users)
    at, there = match(key, old_key)

    def sum_up(keys: Any, weights: Any = None) -> Any:
        return np.bincount(keys % size, weights, size)

    has, had = sum_up(key), sum_up(old_key)
    interested = has + had - sum_up(key[there])
    squares = sum_up(key, after**2) + sum_up(old_key, before**2)
    squares -= 2 * sum_up(key[there], after[there] * before[at[there]])
    sums = sum_up(old_key, before), sum_up(key, after)
    seen = np.flatnonzero(interested)
    hidden, _ = line(interested[seen], few(interested[seen]))
    shown = seen[~hidden].tolist()
    return [
        _change(
            history.categories[index], (int(had[index]), int(has[index])),
            (float(sums[0][index]), float(sums[1][index])), float(squares[index]),
            int(users.sum()), len(shown),
        )
        for index in shown
    ], int(hidden.sum())  # fmt: skip


def _change(
    category: str, counts: tuple[int, int], sums: tuple[float, float], squares: float, users: int,
    compared: int,
) -> dict[str, Any]:  # fmt: skip
    change = (sums[1] - sums[0]) / users
    variance = max(0.0, squares / users - change**2) / max(1, users - 1)
    half = quantile(1 - (1 - LEVEL) / compared, users - 1) * variance**0.5
    return {
        "category": category,
        "users_before": counts[0] if counts[0] >= K else None,
        "users_after": counts[1] if counts[1] >= K else None,
        "share_before": round(sums[0] / users, 5),
        "share_after": round(sums[1] / users, 5),
        "change": round(change, 5),
        "interval": [round(change - half, 5), round(change + half, 5)],
    }
