"""Which items stand near each other: same category, same brand, like price.

What there is to go by for an item without any event. Belongs here: nearness of items as the
catalogue describes them. Not here: nearness by what shoppers did (the model's embeddings).
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from services.recommend.assortment import Assortment, Rows

Floats = npt.NDArray[np.floating]
NEIGHBOURS: Final = 10
_CATEGORY, _BRAND, _PRICE = 0.7, 0.2, 0.1


def nearness(items: Assortment, row: int) -> Floats:
    """Return how near each row is to ``row``, 0–1, shape (M,); without a shared shelf or brand 0.

    ``0.7 · shared levels / levels + 0.2 · [same brand] + 0.1 · min(price) / max(price)``.
    """
    path = items.categories.of[items.category[row]].split("/")
    levels = np.array([_shared(path, name.split("/")) for name in items.categories.of], float)
    near: Floats = _CATEGORY * levels[items.category] / len(path)
    if items.brand[row]:
        near = near + _BRAND * (items.brand == items.brand[row])
    price = items.price[row]
    if price > 0:
        low, high = np.minimum(items.price, price), np.maximum(items.price, price)
        near = near + np.where(near > 0, _PRICE * np.nan_to_num(low / high), 0.0)
    return near


class Neighbours:
    """The nearest items of the vocabulary for items that the model does not know.

    Found once for an item, and again after it was edited.
    """

    def __init__(self, items: Assortment) -> None:
        self._items = items
        self._layouts = items.layouts
        self._found: dict[int, tuple[tuple[int, int, float], Rows, Floats]] = {}

    def of(self, row: int) -> tuple[Rows, Floats]:
        """Return up to `NEIGHBOURS` rows of the vocabulary and their weights, adding up to 1.

        Empty if nothing of the vocabulary stands near.
        """
        items = self._items
        if self._layouts != items.layouts:  # rows are others now
            self._layouts, self._found = items.layouts, {}
        mark = (int(items.category[row]), int(items.brand[row]), float(items.price[row]))
        found = self._found.get(row)
        if found is None or found[0][:2] != mark[:2] or not _same(found[0][2], mark[2]):
            near = nearness(items, row)[: items.known]
            best = np.argsort(-near, kind="stable")[:NEIGHBOURS]
            best = best[near[best] > 0]
            weight = near[best]
            found = self._found[row] = (mark, best, weight / max(weight.sum(), 1e-9))
        return found[1], found[2]

    def mean(self, rows: Rows, values: Floats, default: float) -> Floats:
        """Return the weighted mean of ``values`` (of the vocabulary) over each row's neighbours."""
        out = np.full(len(rows), default)
        for n, row in enumerate(rows.tolist()):
            near, weight = self.of(row)
            if len(near):
                out[n] = values[near] @ weight
        return out


def _same(one: float, other: float) -> bool:
    return one == other or (one != one and other != other)  # NaN: both unknown


def _shared(path: list[str], other: list[str]) -> int:
    count = 0
    for a, b in zip(path, other, strict=False):
        if not a or a != b:
            break
        count += 1
    return count
