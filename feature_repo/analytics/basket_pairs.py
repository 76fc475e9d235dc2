"""Pairs of categories in one basket, month by month, laid out for `affinities`.

A basket is a purchase event; categories are those of the second level with the most buyers.
Belongs here: counting. What follows from the counts is `affinities`'.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_repo.analytics.calendar import SQL
from feature_repo.audiences.index import Index

MOST_CATEGORIES: Final = 80
GROUPS: Final = 20
"""Users are split at random into so many groups, from which intervals are had."""

_CATEGORIES: Final = """
SELECT shelf, path FROM shelf_totals JOIN shelves USING (shelf)
WHERE level = 2 AND type = 'purchase' GROUP BY shelf, path
ORDER BY count(*) DESC, path LIMIT $most
"""
_LINES: Final = f"""
SELECT month, basket, u, place FROM (
    SELECT {SQL["month"]} AS month, e AS basket, u, (list_position($shelves, shelf) - 1)::SMALLINT
        AS place
    FROM shelf_events
    WHERE type = 'purchase' AND e NOT IN (SELECT e FROM retold) AND list_contains($shelves, shelf)
) ORDER BY month, u, basket
"""
_BASKETS: Final = f"""
SELECT month, u % {GROUPS} AS part, count(*) FROM (
    SELECT {SQL["month"]} AS month, u FROM events WHERE is_order
) GROUP BY ALL
"""


class BasketPairs:
    """Counts of pairs of categories.

    Attributes
    ----------
    categories
        S paths.
    months
        M numbers of months (`buckets`), in order.
    baskets
        (M, groups) all baskets.
    both
        (M, groups, S, S) baskets with both categories; with one, on the diagonal.
    users
        (M, S, S) people with such a basket in the month.
    without
        (M, S, S) people with a basket with the first category and not the second.
    """

    def __init__(self, index: Index) -> None:
        chosen = index.rows(_CATEGORIES, {"most": MOST_CATEGORIES})
        self.categories = [str(path) for _, path in chosen]
        lines = index.columns(_LINES, {"shelves": [int(shelf) for shelf, _ in chosen]})
        totals = index.rows(_BASKETS, {})
        self.months = sorted({int(month) for month, _, _ in totals})
        row_of = {month: number for number, month in enumerate(self.months)}
        num, size = len(self.months), len(chosen)
        self.baskets = np.zeros((num, GROUPS), dtype=np.int64)
        for month, part, count in totals:
            self.baskets[row_of[int(month)], int(part)] = count
        self.both = np.zeros((num, GROUPS, size, size), dtype=np.int64)
        self.users = np.zeros((num, size, size), dtype=np.int64)
        self.without = np.zeros((num, size, size), dtype=np.int64)
        for month, number in row_of.items():
            low, high = np.searchsorted(lines["month"], [month, month + 1])
            self._count(number, {name: column[low:high] for name, column in lines.items()})

    def _count(self, number: int, lines: dict[str, npt.NDArray[Any]]) -> None:
        if not len(lines["u"]):
            return
        new = np.ones(len(lines["u"]), dtype=bool)
        new[1:] = lines["basket"][1:] != lines["basket"][:-1]
        row = np.cumsum(new) - 1
        has = np.zeros((int(row[-1]) + 1, len(self.categories)), dtype=np.uint8)
        has[row, lines["place"]] = 1
        u = lines["u"][new]
        for part in range(GROUPS):
            own = has[u % GROUPS == part].astype(np.float32)
            self.both[number, part] = np.rint(own.T @ own)
        for category in range(len(self.categories)):
            with_it = np.flatnonzero(has[:, category])
            if not with_it.size:
                continue
            rows, owner = has[with_it], u[with_it]
            begins = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
            self.users[number, category] = np.maximum.reduceat(rows, begins).sum(axis=0)
            self.without[number, category] = np.maximum.reduceat(1 - rows, begins).sum(axis=0)
