"""Assembly: lines that belong together become one event.

Belongs here: grouping, splitting of long orders, the amount of an order. Validation is the
event schema's own. Not here: judging single lines (`lines`), writing (`publish`).
"""

import hashlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pandas as pd

from feature_repo.amounts import line_amount
from feature_repo.events.schema import MAX_ITEMS, ORDER_TYPES
from feature_repo.importers.lines import EVENT_COLUMNS, ITEM_COLUMNS

_ITEM_NAMES: Final = {"item_coupon": "coupon", "item_currency": "currency"}

GROUP_MARK: Final = "\x1f"
"""What follows it in an ``event_id`` takes part in the grouping but not in the id."""

USER_MARK: Final = "\x1e"
"""Stands for the user's pseudonym in an id that is made here."""

MAX_ID: Final = 128
"""Characters that the event schema lets an id have."""

Made = tuple[dict[str, Any], list[int]]
"""An event in the outside form and the source rows it was made of."""


def assemble(lines: pd.DataFrame, source: str) -> Iterator[Made]:
    """Yield events by time, then id; lines with the same ``event_id`` make one event.

    An event of more than 200 lines is split: the first part keeps the id, the others get
    ``-2``, ``-3`` … and all keep the order id.

    Parameters
    ----------
    lines
        Cleaned lines with ``event_id``.
    source
        Value of every event's ``source``.
    """
    if lines.empty:
        return
    first_ms = lines.groupby("event_id", sort=False, observed=True)["time_ms"].transform("min")
    ordered = lines.assign(time_ms=first_ms).sort_values(
        ["time_ms", "event_id", "source_row"], kind="stable"
    )
    if "currency" in ordered and ordered["currency"].nunique() > 1:
        stated = ordered.get("item_currency", ordered["currency"])
        ordered = ordered.assign(item_currency=stated.fillna(ordered["currency"]))
    ids = ordered["event_id"].to_numpy()
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    ends = np.r_[starts[1:], len(ids)]
    rows = ordered["source_row"].tolist()
    items = _item_dicts(ordered)
    heads = _dicts(ordered.iloc[starts], [c for c in EVENT_COLUMNS if c in ordered])
    for head, start, end in zip(heads, starts.tolist(), ends.tolist(), strict=True):
        head["id"] = head.pop("event_id").split(GROUP_MARK)[0]
        head["time"] = int(head.pop("time_ms"))
        head["source"] = source
        for part, at in enumerate(range(start, end, MAX_ITEMS)):
            stop = min(at + MAX_ITEMS, end)
            event = head if part == 0 else {**head, "id": _part_id(head["id"], part + 1)}
            event["items"] = [item for item in items[at:stop] if item is not None]
            for item in event["items"]:
                if item.get("currency") == event.get("currency"):
                    item.pop("currency", None)
            _add_value(event, split=end - start > MAX_ITEMS)
            yield event, rows[at:stop]


def bounded(made: str) -> str:
    """Return an id that is made here; the end of one that is too long becomes a hash of it."""
    if len(made) <= MAX_ID:
        return made
    return f"{made[: MAX_ID - 33]}-{hashlib.sha256(made.encode()).hexdigest()[:32]}"


def _part_id(whole: str, number: int) -> str:
    made = f"{whole}-{number}"
    # One with the mark is bounded when that is replaced; a stated one too long is refused whole.
    return made if USER_MARK in whole or len(whole) > MAX_ID else bounded(made)


def _add_value(event: dict[str, Any], *, split: bool) -> None:
    if event["type"] not in ORDER_TYPES or ("value" in event and not split):
        return
    if any("currency" in item for item in event["items"]):
        event.pop("value", None)  # no sum of two currencies: each line is converted by itself
    elif all("price" in item for item in event["items"]):
        amount = sum(
            line_amount(item.get("quantity", 1.0), item["price"], item.get("discount"))
            for item in event["items"]
        )
        event["value"] = round(amount, 3)
    else:
        event.pop("value", None)


def _item_dicts(lines: pd.DataFrame) -> list[dict[str, Any] | None]:
    columns = [c for c in ITEM_COLUMNS if c in lines]
    if "item_id" not in columns:
        return [None] * len(lines)
    return [item if "item_id" in item else None for item in _dicts(lines, columns)]


def _dicts(lines: pd.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
    """Return rows as dictionaries without their empty cells."""
    names = [_ITEM_NAMES.get(c, c) for c in columns]
    values = [_plain(lines[c]) for c in columns]
    return [
        {name: cell for name, cell in zip(names, row, strict=True) if cell is not None}
        for row in zip(*values, strict=True)
    ]


def _plain(column: "pd.Series[Any]") -> list[Any]:
    missing = column.isna().to_numpy()
    values = column.tolist()
    if missing.any():
        for at in np.flatnonzero(missing).tolist():
            values[at] = None
    return values
