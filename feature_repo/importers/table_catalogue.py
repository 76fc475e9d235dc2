"""Catalogue in a table: its lines' statements about items.

Belongs here: last title, category and brand, median price, what is no merchandise. Not here:
reading the table (`tabular`).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pydantic import ValidationError

from feature_repo.archive.catalogue import Item, complete_item
from feature_repo.importers.cells import flags
from feature_repo.importers.mapping import Mapping


class TableCatalogue:
    """Collects what a file says about its items.

    Last title, category and brand; median price in the currency that was named last.
    """

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._items = dict[str, Item]()

    def add(self, raw: pd.DataFrame, lines: pd.DataFrame) -> None:
        """Note the items of one chunk; one that the item schema refuses is left out."""
        frame = self._read_items(raw, lines)
        if frame is None:
            return
        last = frame.groupby("item_id", sort=True)[["title", "category", "brand"]].last()
        last["is_merchandise"] = frame.dropna(subset="sold").groupby("item_id")["sold"].any()
        prices = _prices(frame)
        columns = last.join(prices).reset_index()
        for row in columns.astype(object).where(columns.notna(), None).to_dict("records"):
            try:
                item = Item.model_validate({k: v for k, v in row.items() if v is not None})
            except ValidationError:
                continue
            self._items[item.item_id] = complete_item(item, self._items.get(item.item_id))

    def items(self) -> Sequence[Item]:
        """Return the items noted."""
        return list(self._items.values())

    def _read_items(self, raw: pd.DataFrame, lines: pd.DataFrame) -> pd.DataFrame | None:
        """Return what each line says of its item, or None where a file says nothing of items."""
        columns = self._mapping.columns
        if "item_id" not in lines or not (columns.category or columns.brand or columns.title):
            return None
        told = [c for c in ("category", "brand", "price", "currency") if c in lines]
        frame = lines[["item_id", *told]].reindex(
            columns=["item_id", "category", "brand", "price", "currency"]
        )
        titles = None if columns.title is None else self._cells(raw, columns.title)
        frame["title"] = np.array(titles, dtype=object)
        frame["sold"] = None
        if columns.is_merchandise is not None:
            cells = self._cells(raw, columns.is_merchandise)
            sold = zip(cells, flags(cells).tolist(), strict=True)
            frame["sold"] = np.array([None if c is None else yes for c, yes in sold], dtype=object)
        return frame[frame["item_id"].notna()]

    def _cells(self, raw: pd.DataFrame, column: str) -> list[str | None]:
        nothing = frozenset(self._mapping.null_words)
        return [None if cell in nothing else cell for cell in raw[column].tolist()]


def _prices(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the median price of each item, of the lines in the currency of its last price."""
    named = frame["currency"].astype(object).where(frame["currency"].notna(), "").astype(str)
    fine = (frame["price"] > 0) & ((named == "") | named.str.fullmatch("[A-Z]{3}"))
    priced = pd.DataFrame({"item_id": frame["item_id"], "price": frame["price"], "currency": named})
    priced = priced[fine]
    last = priced.groupby("item_id")["currency"].transform("last")
    grouped = priced[priced["currency"] == last].groupby("item_id")
    found = grouped.agg(price=("price", "median"), currency=("currency", "last"))
    found["price"] = found["price"].round(2)
    found["currency"] = found["currency"].astype(object).where(found["currency"] != "", None)
    return found
