"""Interests of the last profile of each month, laid out for `drift`.

Belongs here: the columns, and how far each user's moved since the month before, which no question
changes.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_repo.analytics.calendar import DAY_MS, SQL
from feature_repo.audiences.index import Index

_LOAD: Final = f"""
SELECT month, u, dense_rank() OVER (ORDER BY category) - 1 AS place, category,
    weight / sum(weight) OVER (PARTITION BY month, u) AS share
FROM (
    SELECT month, u, unnest(interest_categories) AS category,
        unnest(interest_category_weights) AS weight
    FROM (
        SELECT u, {SQL["month"]} AS month, interest_categories, interest_category_weights
        FROM (
            SELECT u, epoch_ms(event_timestamp) - {DAY_MS} AS time_ms, created,
                interest_categories, interest_category_weights
            FROM feature_rows_profile JOIN users ON entity = "user"
        )
        QUALIFY row_number() OVER (
            PARTITION BY u, {SQL["month"]} ORDER BY time_ms DESC, created DESC) = 1
    )
) WHERE weight > 0 ORDER BY month, u, place
"""
"""A profile of a midnight holds what was before it: it belongs to the month of the day before."""

_COLUMNS: Final = "SELECT month, u, place::INTEGER AS place, share FROM interest_history"
_NAMES: Final = "SELECT DISTINCT place, category FROM interest_history ORDER BY place"


class InterestHistory:
    """Who is interested in what, month by month.

    Attributes
    ----------
    categories
        C paths, in order.
    months
        Numbers of the months (`buckets`) with profiles, in order.
    moved
        Of each month that follows another: half of Σ |Δ share| of every user in both.
    """

    def __init__(self, index: Index) -> None:
        index.make(f"CREATE TABLE interest_history AS {_LOAD}")
        self.categories = [str(category) for _, category in index.rows(_NAMES, {})]
        columns = index.columns(_COLUMNS)
        self.months = [int(month) for month in np.unique(columns["month"])]
        self._parts = dict[int, tuple[Any, Any, Any]]()
        for month in self.months:
            low, high = np.searchsorted(columns["month"], [month, month + 1])
            u, category = columns["u"][low:high].astype(np.int64), columns["place"][low:high]
            self._parts[month] = u, u * len(self.categories) + category, columns["share"][low:high]
        self.users = index.num_users
        self.moved = {
            month: self._moves(month - 1, month)
            for month in self.months
            if month - 1 in self._parts
        }

    def both(self, first: int, last: int) -> npt.NDArray[np.bool_]:
        """Say of each user whether they have a profile in both months."""
        return self._has_profile(first) & self._has_profile(last)

    def shares(self, month: int, users: npt.NDArray[np.bool_]) -> tuple[Any, Any]:
        """Return keys (user · C + category, in order) and shares of a month, of some users."""
        u, key, share = self._parts[month]
        chosen = users[u]
        return key[chosen], share[chosen]

    def _has_profile(self, month: int) -> npt.NDArray[np.bool_]:
        has = np.zeros(self.users, dtype=bool)
        has[self._parts[month][0]] = True
        return has

    def _moves(self, first: int, last: int) -> npt.NDArray[np.float64]:
        users = self.both(first, last)
        (key, share), (old_key, old) = self.shares(last, users), self.shares(first, users)
        at, there = match(key, old_key)
        change, size = np.abs(share - np.where(there, old[at], 0)), len(self.categories)
        gone = np.ones(len(old), dtype=bool)
        gone[at[there]] = False
        total = np.bincount(key // size, change, self.users)
        total += np.bincount(old_key[gone] // size, old[gone], self.users)
        return np.asarray(total[users] / 2)


def match(keys: Any, among: Any) -> tuple[Any, Any]:
    """Return where each of some keys stands among others, in order, and whether it does.

    Examples
    --------
    >>> match(np.array([2, 5]), np.array([1, 5, 7]))
    (array([1, 1]), array([False,  True]))
    """
    if not len(among):
        return np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=bool)
    at = np.minimum(np.searchsorted(among, keys), len(among) - 1)
    return at, among[at] == keys
