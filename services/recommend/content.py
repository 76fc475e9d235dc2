"""Content of items as terms, and how much of it two items share.

What there is to go by for an item without any event. An item's terms are the levels of its
category, its brand, its price and the words of its title; a term counts by its rarity::

    idf(t) = log((2 + M) / (1 + items with t))
    near(i, j) = Σ_{t ∈ i, t ∈ j} idf(t) / Σ_{t ∈ i} idf(t)

(Spärck Jones, "A statistical interpretation of term specificity", 1972). Prices are shared
within a factor of √2. Of two items with vectors, a third of the nearness is the vectors' cosine
(0 where that is negative). Belongs here: nearness of items as the catalogue describes them. Not
here: nearness by what users did (the model's embeddings).
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.catalogue.vectors import NONE
from services.recommend.assortment import Assortment, Rows
from services.recommend.diversify import best

Floats = npt.NDArray[np.floating[Any]]
NEIGHBOURS: Final = 10
MAX_WORDS: Final = 20
"""Words of a title that are looked at."""
_WORD: Final = re.compile(r"[^\W_]{2,}")
_FACTOR: Final = 2**0.5
MAX_WANTED: Final = 1_000
"""Items that may wait for their neighbours; what is left out is asked for again."""
_NOBODY: Final = np.zeros(0, np.int64)
_NOTHING: Final = np.zeros(0)

_thread: Final = ThreadPoolExecutor(1, thread_name_prefix="neighbours")


def words(title: str) -> list[str]:
    """Return the distinct words of a title, lower case, the first `MAX_WORDS`.

    Examples
    --------
    >>> words("Jumbo BAG, red & jumbo")
    ['jumbo', 'bag', 'red']
    """
    return list(dict.fromkeys(_WORD.findall(title.lower())))[:MAX_WORDS]


def nearness(items: Assortment, row: int, among: int | None = None) -> Callable[[], Floats]:
    """Return what finds how near each row is to ``row``, 0–1; 0 where they share nothing.

    The call that is returned is for any thread but the event loop's.

    Parameters
    ----------
    among
        Only the first so many rows, M of them; None: all.
    """
    size = len(items) if among is None else among
    return partial(_Sight(items, size).nearness, _Described.of(items, row))


class _Described(NamedTuple):
    """What the catalogue says of an item; a price of 0 is none; the row of its vector."""

    category: str
    brand: int
    price: float
    title: str
    vector: int

    @classmethod
    def of(cls, items: Assortment, row: int) -> "_Described":
        category, price = items.categories.of[items.category[row]], float(items.price[row])
        vector = items.vectors.row.get(items.ids[row], NONE)
        brand = int(items.brand[row])
        return cls(category, brand, price if price > 0 else 0.0, items.title[row], vector)


class _Sight:
    """The first rows of this layout of an assortment: to be looked at from any thread."""

    def __init__(self, items: Assortment, size: int) -> None:
        self._size = size
        self._category, self._brand = items.category[:size], items.brand[:size]
        self._price = items.price[:size]
        self._categories, self._words = items.categories, items.words
        self._vectors = items.vectors
        self._ids = items.ids[:size] if self._vectors.row else []

    def nearness(self, item: _Described) -> Floats:
        near, whole = np.zeros(self._size), 0.0
        for rows in self._terms(item):
            idf = np.log((2 + self._size) / (1 + len(rows)))
            near[rows] += idf
            whole += idf
        if whole > 0:
            near /= whole
        if item.vector == NONE:
            return near
        cosines = self._vectors.cosines(self._vectors.at(item.vector), self._vector_rows)
        return np.where(self._vector_rows == NONE, near, (2 * near + cosines.clip(0)) / 3)

    @cached_property
    def _vector_rows(self) -> Rows:
        return self._vectors.rows(self._ids)

    def _terms(self, item: _Described) -> Iterator[Rows]:
        """Yield the rows that share each of an item's terms."""
        path = item.category.split("/")
        for level in range(1, len(path) + 1):
            if path[level - 1]:
                within = self._categories.within(["/".join(path[:level])])
                yield np.flatnonzero(within[self._category])
        if item.brand:
            yield np.flatnonzero(self._brand == item.brand)
        if item.price > 0:
            low, high = item.price / _FACTOR, item.price
            yield np.flatnonzero((self._price >= low) & (self._price / _FACTOR <= high))
        for word in words(item.title):
            rows = self._words.rows(word)
            yield rows[: np.searchsorted(rows, self._size)]


class Neighbours:
    """The nearest items of the vocabulary for items that the model does not know.

    Found aside, once for an item and again after it was edited; until then an item has none, or
    those of before. Whoever asks never waits.
    """

    def __init__(self, items: Assortment) -> None:
        self._items = items
        self._layouts = items.layouts
        self._found: dict[int, tuple[_Described, Rows, Floats]] = {}
        self._wanted: dict[int, _Described] = {}
        self._looking: Future[None] | None = None

    def of(self, row: int) -> tuple[Rows, Floats]:
        """Return up to `NEIGHBOURS` rows of the vocabulary and their weights, adding up to 1.

        Weights go with the square of the nearness. Empty if nothing of the vocabulary is near, or
        it is not known yet.
        """
        items = self._items
        if self._layouts != items.layouts:  # rows are others now
            self._layouts, self._found, self._wanted = items.layouts, {}, {}
        found, described = self._found.get(row), _Described.of(items, row)
        if found is None or found[0] != described:
            self._want(row, described)
            found = found or (described, _NOBODY, _NOTHING)
        return found[1], found[2]

    def mean(self, rows: Rows, values: Floats, default: float) -> Floats:
        """Return the weighted mean of ``values`` (of the vocabulary) over each row's neighbours."""
        out = np.full(len(rows), default)
        for n, row in enumerate(rows.tolist()):
            near, weight = self.of(row)
            if len(near):
                out[n] = values[near] @ weight
        return out

    def settle(self) -> None:
        """Wait until what has been asked for is found."""
        while self._looking is not None:
            self._looking.result()
            if not self._wanted:
                return
            self._look()

    def _want(self, row: int, described: _Described) -> None:
        if len(self._wanted) < MAX_WANTED:
            self._wanted[row] = described
        if self._looking is None or self._looking.done():
            self._look()

    def _look(self) -> None:
        """Take up what is wanted in the thread."""
        sight = _Sight(self._items, self._items.known)
        self._looking = _thread.submit(self._find, sight, self._wanted, self._found)

    @staticmethod
    def _find(
        sight: _Sight,
        wanted: dict[int, _Described],
        found: dict[int, tuple[_Described, Rows, Floats]],
    ) -> None:
        while wanted:  # what is asked for meanwhile, too
            row, described = wanted.popitem()
            near = sight.nearness(described)
            nearest = best(near, NEIGHBOURS)
            nearest = nearest[near[nearest] > 0]
            weight = near[nearest] ** 2
            found[row] = (described, nearest, weight / max(weight.sum(), 1e-9))
