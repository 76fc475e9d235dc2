"""Popular and trending items, by row.

Belongs here: the store's two sorted sets (`services.catalogue.popularity`) as columns beside the
assortment's. Not here: how they are counted.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from services.catalogue.popularity import fading
from services.recommend.assortment import Assortment, Rows

Floats = npt.NDArray[np.floating[Any]]
Pairs = Iterable[tuple[str, float]]


class Popular:
    """Popularity and trend of every row, the best 1."""

    def __init__(self, items: Assortment) -> None:
        self._items = items
        self.scores: dict[str, float] = {}
        self._trend: dict[str, float] = {}
        self._most = 0.0
        self._edits = -1
        self._columns: tuple[Floats, Rows] = (np.zeros(0), np.zeros(0, np.int64))

    def take(self, popular: Pairs, trending: Pairs = ()) -> None:
        """Take up new scores, best first."""
        popular = list(popular)
        self._most = popular[0][1] if popular else 0.0
        self.scores, self._trend = _scale(popular), _scale(trending)
        self._edits = -1

    def count_users(self, items: Iterable[str], now_ms: int) -> Floats:
        """Return how many users items had lately, as of ``now_ms``; 0: not popular."""
        faded = self._most * fading(now_ms)
        return np.array([self.scores.get(item, 0.0) * faded for item in items])

    def column(self) -> Floats:
        """Return popularity plus trend of each row, shape (M,); not to be changed."""
        return self._current()[0]

    def trending(self) -> Rows:
        """Return the rows that are trending, best first."""
        return self._current()[1]

    def _current(self) -> tuple[Floats, Rows]:
        items = self._items
        if self._edits != items.edits:
            placed = [
                [(row, score) for item, score in scores.items()
                 if (row := items.find_row(item)) is not None]
                for scores in (self.scores, self._trend)
            ]  # fmt: skip
            column = np.zeros(len(items))
            for pairs in placed:
                for row, score in pairs:
                    column[row] += score
            hot = np.array([row for row, _ in placed[1]], np.int64)
            self._columns, self._edits = (column, hot), items.edits
        return self._columns


def _scale(pairs: Pairs) -> dict[str, float]:
    found = list(pairs)
    top = found[0][1] if found else 1.0
    return {item: score / top if top > 0 else 0.0 for item, score in found}
