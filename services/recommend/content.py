"""Which items are described alike: the content of an item as terms, and how much of it is shared.

What there is to go by for an item without any event. An item's terms are the levels of its
category, its brand, its price and the words of its title; a term counts by its rarity::

    idf(t) = log((2 + M) / (1 + items with t))
    near(i, j) = Σ_{t ∈ i, t ∈ j} idf(t) / Σ_{t ∈ i} idf(t)

(Spärck Jones, "A statistical interpretation of term specificity", 1972). Prices are shared
within a factor of √2. Belongs here: nearness of items as the catalogue describes them. Not
here: nearness by what shoppers did (the model's embeddings).
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from services.recommend.assortment import Assortment, Mask, Rows

Floats = npt.NDArray[np.floating[Any]]
NEIGHBOURS: Final = 10
MAX_WORDS: Final = 20
"""Words of a title that are looked at."""
_WORD: Final = re.compile(r"[^\W_]{2,}")
_FACTOR: Final = 2**0.5


def words(title: str) -> list[str]:
    """Return the distinct words of a title, lower case, the first `MAX_WORDS`.

    Examples
    --------
    >>> words("Jumbo BAG, red & jumbo")
    ['jumbo', 'bag', 'red']
    """
    return list(dict.fromkeys(_WORD.findall(title.lower())))[:MAX_WORDS]


def nearness(items: Assortment, row: int, among: int | None = None) -> Floats:
    """Return how near each row is to ``row``, 0–1; 0 where they share nothing.

    Parameters
    ----------
    among
        Only the first so many rows, M of them; None: all.
    """
    size = len(items) if among is None else among
    near, whole = np.zeros(size), 0.0
    for mask in _terms(items, row, size):
        idf = np.log((2 + size) / (1 + int(mask.sum())))
        near += idf * mask
        whole += idf
    return near / whole if whole > 0 else near


def _terms(items: Assortment, row: int, size: int) -> Iterator[Mask]:
    """Yield which of the first rows share each of a row's terms, shape (size,)."""
    path = items.categories.of[items.category[row]].split("/")
    for level in range(1, len(path) + 1):
        if path[level - 1]:
            yield items.within("/".join(path[:level]))[items.category[:size]]
    if items.brand[row]:
        yield items.brand[:size] == items.brand[row]
    if items.price[row] > 0:
        ratio = items.price[:size] / items.price[row]
        yield (ratio >= 1 / _FACTOR) & (ratio <= _FACTOR)
    found = words(items.title[row])
    if found:
        titles = pc.utf8_lower(pa.array(items.title[:size], pa.string()))
        for word in found:
            pattern = rf"(^|[^\pL\pN]){re.escape(word)}($|[^\pL\pN])"
            yield pc.match_substring_regex(titles, pattern).to_numpy(zero_copy_only=False)


class Neighbours:
    """The nearest items of the vocabulary for items that the model does not know.

    Found once for an item, and again after it was edited.
    """

    def __init__(self, items: Assortment) -> None:
        self._items = items
        self._layouts = items.layouts
        self._found: dict[int, tuple[tuple[Any, ...], Rows, Floats]] = {}

    def of(self, row: int) -> tuple[Rows, Floats]:
        """Return up to `NEIGHBOURS` rows of the vocabulary and their weights, adding up to 1.

        Weights go with the square of the nearness. Empty if nothing of the vocabulary is near.
        """
        items = self._items
        if self._layouts != items.layouts:  # rows are others now
            self._layouts, self._found = items.layouts, {}
        mark = (
            int(items.category[row]), int(items.brand[row]), repr(items.price[row]),
            items.title[row],
        )  # fmt: skip
        found = self._found.get(row)
        if found is None or found[0] != mark:
            near = nearness(items, row, items.known)
            best = np.argsort(-near, kind="stable")[:NEIGHBOURS]
            best = best[near[best] > 0]
            weight = near[best] ** 2
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
