"""Caps: how many items of a brand or a category a list may still take."""

from collections import Counter
from typing import Any

import numpy as np

from services.recommend.assortment import Items, Mask, Rows
from services.recommend.rules import ListCap


class Caps:
    """Which rows of a pool a list may still take, as it grows.

    Parameters
    ----------
    cap
        See `services.recommend.rules.ListCap`; items without a brand or category are not counted.

    Attributes
    ----------
    open
        Whether each of the pool may be taken, shape (P,).
    """

    def __init__(self, items: Items, pool: Rows, cap: ListCap) -> None:
        self.open: Mask = np.ones(len(pool), np.bool_)
        self._columns: list[tuple[Any, int, Counter[Any]]] = []
        if cap.brand is not None:
            self._columns.append((items.brand[pool], cap.brand, Counter()))
        if cap.category is not None:
            names = items.categories.of
            shelves = ["/".join(names[c].split("/")[: cap.depth]) for c in items.category[pool]]
            self._columns.append((np.array(shelves, object), cap.category, Counter()))

    def take(self, at: int) -> None:
        """Take the pool's item at this index into the list."""
        self.open[at] = False
        for column, cap, counted in self._columns:
            counted[column[at]] += 1
            if column[at] and counted[column[at]] >= cap:
                self.open &= column != column[at]
