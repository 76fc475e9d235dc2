"""All items that can be recommended, as columns, so that a rule is a few vector operations.

Rows are the model's vocabulary first, in its order, then the catalogue's other items, then
items known from events alone. An edit of the catalogue changes its row in place; everything
is laid out anew only when the catalogue was loaded in bulk, aside, while the old rows serve.
Belongs here: what an item *is*. Not here: who should see it.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from services.catalogue.catalogue import Catalogue, Entry
from services.catalogue.vectors import Vectors
from services.recommend.title_words import TitleWords

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

MAX_UNLISTED: Final = 100_000
"""Items known from events alone that are kept, beside vocabulary and catalogue."""
ASIDE_ITEMS: Final = 5_000
"""From so many items on, a new layout is made in a thread; fewer take some milliseconds."""
MOST_EDITS: Final = 1_000
"""Edits taken up at once; the others come with the next answers."""
_CHUNK: Final = 2_000
UNKNOWN_MS: Final = -1
_COLUMNS: Final[tuple[tuple[str, type[Any], Any], ...]] = (
    ("fit", np.bool_, False), ("listed", np.bool_, False), ("in_stock", np.bool_, True),
    ("from_ms", np.int64, 0), ("added_ms", np.int64, UNKNOWN_MS), ("price", np.float64, np.nan),
    ("category", np.int64, 0), ("brand", np.int64, 0), ("title", np.object_, ""),
)  # fmt: skip
_EMPTY: Final = tuple(empty for _, _, empty in _COLUMNS)
_LAID_OUT: Final = (
    "ids", "row", "categories", "brands", "words", "_whole", "_unlisted", "_changes"
)  # fmt: skip


class NameIndex:
    """Names and their numbers; 0 is "none".

    Attributes
    ----------
    of
        Names by number.
    lines
        By number, the name and what it lies below, the nearest first: A/x/1, A/x, A.
    """

    def __init__(self) -> None:
        self.of: list[str] = [""]
        self.lines: list[tuple[str, ...]] = [("",)]
        self._numbers = {"": 0}
        self._below: dict[str, list[int]] = {"": [0]}

    def add(self, name: str | None) -> int:
        """Return the number of a name; a new name gets the next one."""
        key = name or ""
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = len(self.of)
            self.of.append(key)
            self.lines.append(_line(key))
            for name in self.lines[found]:
                self._below.setdefault(name, []).append(found)
        return found

    def number(self, name: str) -> int:
        """Return the number of a name, 0 if it has none."""
        return self._numbers.get(name, 0)

    def within(self, wanted: Iterable[str]) -> Mask:
        """Return which names, by number, are one of these or lie below one; from any thread."""
        found = [number for name in wanted for number in self._below.get(name, ())]
        mask = np.zeros(len(self.lines), bool)  # afterwards: others may be named meanwhile
        mask[found] = True
        return mask


class Assortment:
    """Items as columns; empty until the first `refresh`.

    Parameters
    ----------
    catalogue
        Followed: `refresh` takes its edits up.
    vocabulary
        Item ids of the model in score order; they are the first rows.

    Attributes
    ----------
    ids
        Item id of each row.
    categories, brands
        Names by the numbers in the columns ``category`` and ``brand``.
    words
        Rows by the words of their titles.
    edits, layouts
        Grow with every change, and with every new layout, in which rows are others.
    fit, listed, in_stock, from_ms, added_ms, price, category, brand, title
        Columns: whether it may be shown at all; whether the catalogue has it; in stock;
        available from and first put (epoch ms); price (NaN unknown); numbers of names; title
        ("" unknown).
    """

    fit: Mask
    listed: Mask
    in_stock: Mask
    from_ms: Rows
    added_ms: Rows
    price: npt.NDArray[np.float64]
    category: Rows
    brand: Rows
    title: npt.NDArray[np.object_]
    words: TitleWords

    def __init__(self, catalogue: Catalogue, vocabulary: Sequence[str] = ()) -> None:
        self._catalogue = catalogue
        self.known = len(vocabulary)
        self.ids = list(vocabulary)
        self.row = {item: n for n, item in enumerate(self.ids)}
        self.edits = 0
        self.layouts = 0
        self._vocabulary = vocabulary
        self._aside: Future[Assortment] | None = None
        self._changes = -1
        self._unlisted = 0
        self._offered: tuple[int, Rows, Mask, Mask] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def refresh(self) -> None:
        """Take up what changed in the catalogue since the last time.

        After a bulk load of many items what is answered stays as it was until they are laid out;
        edits meanwhile are taken up at once, there and here.
        """
        if self._aside is not None and self._aside.done():
            self._adopt(self._aside.result())
            self._aside = None
        if self._catalogue.changes == self._changes:
            return
        changed = self._catalogue.since(self._changes)
        if changed is not None:
            some = changed[:MOST_EDITS]
            for item in some:
                self._set(self._add_row(item, cut=False), item)
            self._trim_columns()
            self._changes += len(some)
            self.edits += 1
            if self.words.worn:
                self._lay_out()
        else:
            self._lay_out()

    def _lay_out(self) -> None:
        """Lay everything out, aside if it is much."""
        if self._changes < 0 or len(self._catalogue.entries) < ASIDE_ITEMS:
            self._build(self.ids[self.known :])
        elif self._aside is None:
            other = Assortment(self._catalogue, self._vocabulary)
            self._aside = _aside.submit(other._rebuild, self.ids[self.known :])
            self._changes = self._catalogue.changes

    def _rebuild(self, unlisted: Sequence[str]) -> "Assortment":
        self._build(unlisted)
        return self

    def _adopt(self, other: "Assortment") -> None:
        """Take the rows of a layout that was made aside; what was edited meanwhile comes next."""
        for name in _LAID_OUT:
            setattr(self, name, getattr(other, name))
        self._trim_columns()
        self.edits += 1
        self.layouts += 1

    @property
    def vectors(self) -> Vectors:
        """The catalogue's vectors of items, as they are now."""
        return self._catalogue.vectors

    def find_row(self, item: str) -> int | None:
        """Return the row of an item, made if there is room; None otherwise."""
        row = self.row.get(item)
        if row is None and self._unlisted < MAX_UNLISTED:
            self._unlisted += 1
            row = self._add_row(item)
            self._set(row, item)
            self.edits += 1
        return row

    def names(self, rows: Rows) -> list[str]:
        """Return the item ids of some rows."""
        return [self.ids[row] for row in rows.tolist()]

    def rows(self, items: Iterable[str]) -> Rows:
        """Return the rows of the items that have one."""
        row = self.row
        return np.array([row[item] for item in items if item in row], np.int64)

    def mask_offered(self, now_ms: int, *, in_stock: bool = True) -> Mask:
        """Return which items may be recommended at ``now_ms``; not to be changed.

        Where there is a catalogue, only what it has: anybody's events can name anything.
        """
        if self._offered is None or self._offered[0] != self.edits:
            shown = self.fit & self.listed if self.listed.any() else self.fit.copy()
            dated = np.flatnonzero(self.from_ms > 0)
            self._offered = self.edits, dated, shown, shown & self.in_stock
        _, dated, shown, there = self._offered
        mask = there if in_stock else shown
        later = dated[self.from_ms[dated] > now_ms]
        if len(later):
            mask = mask.copy()
            mask[later] = False
        return mask

    def since_ms(self, row: int | Rows | slice) -> Any:
        """Return when items came: available from, else first put; `UNKNOWN_MS` if neither."""
        start = self.from_ms[row]
        return np.where(start > 0, start, self.added_ms[row])

    def _build(self, unlisted: Sequence[str]) -> None:
        """Lay everything out; ``unlisted`` are items known from events alone.

        In steps of Python, between which other threads run: no single call takes long.
        """
        changes, listed = self._catalogue.changes, self._catalogue.entries
        row = {item: n for n, item in enumerate(self._vocabulary)}
        others = _sort_items([item for item in list(listed) if item not in row])
        kept = [item for item in unlisted if item not in listed and item not in row]
        ids = [*self._vocabulary, *others, *kept]
        self.categories, self.brands = NameIndex(), NameIndex()
        self._whole = self._columns(len(ids))
        for start in range(0, len(ids), _CHUNK):
            some = ids[start : start + _CHUNK]
            for column, given in zip(
                self._whole, zip(*map(self._values, some), strict=True), strict=False
            ):
                column[start : start + len(some)] = given
        for n in range(self.known, len(ids)):
            row[ids[n]] = n
        self.ids, self.row = ids, row
        self._trim_columns()
        self.words = TitleWords(self.title)
        self._unlisted = len(kept)
        self._changes = changes  # of before: what was edited meanwhile is taken up next
        self.edits += 1
        self.layouts += 1

    def _add_row(self, item: str, *, cut: bool = True) -> int:
        row = self.row.get(item)
        if row is None:
            row = self.row[item] = len(self.ids)
            self.ids.append(item)
            if row >= len(self._whole[0]):
                before, self._whole = self._whole, self._columns(row + 1)
                for column, kept in zip(self._whole, before, strict=True):
                    column[: len(kept)] = kept
            if cut:
                self._trim_columns()
        return row

    def _columns(self, rows: int) -> list[npt.NDArray[Any]]:
        """Return empty columns with room for ``rows`` and a quarter more."""
        size = rows + rows // 4 + 64
        return [np.full(size, empty, dtype) for _, dtype, empty in _COLUMNS]

    def _trim_columns(self) -> None:
        for (name, _, _), column in zip(_COLUMNS, self._whole, strict=True):
            setattr(self, name, column[: len(self.ids)])

    def _set(self, row: int, item: str) -> None:
        title = self._whole[-1][row]
        for column, value in zip(self._whole, self._values(item), strict=True):
            column[row] = value
        if self._whole[-1][row] != title:
            self.words.change(row, self._whole[-1][row])

    def _values(self, item: str) -> tuple[Any, ...]:
        entry: Entry | None = self._catalogue.entries.get(item)
        if entry is None:
            # Without a catalogue everything may be shown; what was deleted from one may not.
            return item not in self._catalogue.removed, *_EMPTY[1:]
        return (
            entry.is_merchandise,
            True,
            entry.in_stock,
            entry.available_from or 0,
            self._catalogue.added_ms.get(item, UNKNOWN_MS),
            np.nan if entry.price is None else entry.price,
            self.categories.add(entry.category),
            self.brands.add(entry.brand),
            entry.title or "",
        )


class AssortmentRows:
    """Rows of an assortment as they stand now, to be read from any thread while it goes on.

    Parameters
    ----------
    rows
        Ascending; None: all.

    Attributes
    ----------
    vocabulary
        Those of the rows that the model knows.
    """

    def __init__(self, items: Assortment, rows: Rows | None = None) -> None:
        self.categories, self.brands = items.categories, items.brands
        self.known = items.known if rows is None else int(np.searchsorted(rows, items.known))
        self.category, self.brand = items.category, items.brand
        self.vectors = items.vectors
        self._ids, self._rows = items.ids, rows
        self.vocabulary: Rows | slice = slice(self.known)
        if rows is not None:
            if self.known < items.known:
                self.vocabulary = rows[: self.known]
            self.category, self.brand = items.category[rows], items.brand[rows]

    def names(self, rows: Rows) -> list[str]:
        """Return the item ids of some of these rows."""
        own = rows if self._rows is None else self._rows[rows]
        return [self._ids[row] for row in own.tolist()]


Items = Assortment | AssortmentRows

_aside: Final = ThreadPoolExecutor(1, thread_name_prefix="layout")


def _line(name: str) -> tuple[str, ...]:
    parts = name.split("/")
    return tuple("/".join(parts[:level]) for level in range(len(parts), 0, -1))


def _sort_items(items: list[str]) -> list[str]:
    """Return items in order, of many without holding up other threads."""
    if len(items) < ASIDE_ITEMS:
        return sorted(items)
    parts = [pa.array(items[n : n + _CHUNK]) for n in range(0, len(items), _CHUNK)]
    order = pc.sort_indices(pa.chunked_array(parts)).to_numpy()
    found = list[str]()
    for start in range(0, len(order), _CHUNK):
        found += [items[n] for n in order[start : start + _CHUNK].tolist()]
    return found
