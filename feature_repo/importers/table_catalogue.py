"""What a table says about its items, as a catalogue.

Belongs here: last title, category and brand, median price. Not here: reading the table
(`tabular`).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pydantic import ValidationError

from feature_repo.archive.catalogue import Item, completed
from feature_repo.importers.lines import MARK
from feature_repo.importers.mapping import Mapping


class TableCatalogue:
    """Collects what a file says about its items: last title, category and brand, median price."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._seen = list[pd.DataFrame]()

    def add(self, raw: pd.DataFrame, lines: pd.DataFrame) -> None:
        """Note the items of one chunk."""
        told = [c for c in ("category", "brand") if c in lines]
        title = self._mapping.columns.title
        if "item_id" not in lines or not (told or title):
            return
        frame = lines[["item_id", *told, *(c for c in ("price", MARK) if c in lines)]].copy()
        frame["title"] = None if title is None else raw[title].to_numpy()
        frame["aside"] = frame.pop(MARK) == "non_merchandise"
        if "price" not in frame:
            frame["price"] = np.nan
        frame["price"] = frame["price"].where(frame["price"] > 0)
        for column in ("category", "brand"):
            if column not in frame:
                frame[column] = None
        grouped = frame[frame["item_id"].notna()].groupby("item_id", sort=True)
        self._seen.append(
            grouped.agg(
                title=("title", "last"), category=("category", "last"), brand=("brand", "last"),
                price=("price", "median"), aside=("aside", "all"),
            ).reset_index()
        )  # fmt: skip

    def items(self) -> Sequence[Item]:
        """Return the items noted; one that the item schema refuses is left out."""
        made = dict[str, Item]()
        for frame in self._seen:
            for item_id, title, category, brand, price, aside in frame.itertuples(index=False):
                body = {
                    "item_id": item_id, "title": title, "category": category, "brand": brand,
                    "price": None if pd.isna(price) else round(float(price), 2),
                    "currency": self._mapping.currency, "is_merchandise": not aside,
                }  # fmt: skip
                try:
                    item = Item.model_validate({k: v for k, v in body.items() if v is not None})
                except ValidationError:
                    continue
                made[item_id] = completed(item, made.get(item_id))
        return list(made.values())
