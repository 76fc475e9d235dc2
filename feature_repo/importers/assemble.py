"""Assembly: lines that belong together become one event.

Belongs here: grouping, splitting of long orders, the amount of an order. Validation is the
event schema's own. Not here: judging single lines (`lines`), writing (`publish`).
"""

import hashlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pandas as pd

from feature_repo.events.schema import MAX_ITEMS, ORDER_TYPES
from feature_repo.importers.lines import EVENT_COLUMNS, ITEM_COLUMNS
from feature_repo.user_profile.amounts import line_amount

_ITEM_NAMES: Final = {"item_coupon": "coupon", "item_currency": "currency"}

GROUP_MARK: Final = "\x1f"
"""What follows it in an ``event_id`` takes part in the grouping but not in the id."""

USER_MARK: Final = "\x1e"
"""Stands for the user's pseudonym in an id that is made here."""

MARK_LENGTH: Final = 16
"""Characters of the pseudonym that takes the mark's place."""

MAX_ID: Final = 128
"""Characters that the event schema lets an id have."""

Made = tuple[dict[str, Any], list[int]]
"""An event in the outside form and the source rows it was made of."""


def assemble(lines: pd.DataFrame, source: str) -> Iterator[Made]:
    """Yield events by time, then id; lines with the same ``event_id`` make one event.

    An event of more than 200 lines is split (see `_parts`).

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
    if "currency" in ordered and ordered["currency"].nunique(dropna=False) > 1:
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
        own = [item for item in items[start:end] if item is not None]
        for item in own:
            if item.get("currency") == head.get("currency"):
                item.pop("currency", None)
        if end - start <= MAX_ITEMS:
            head["items"] = own
            if head["type"] in ORDER_TYPES and "value" not in head:
                _state_value(head, _amount(own))
            yield head, rows[start:end]
        else:
            yield from _parts(head, items[start:end], rows[start:end])


def _parts(
    head: dict[str, Any], items: list[dict[str, Any] | None], rows: list[int]
) -> Iterator[Made]:
    """Yield an event of too many lines as several, with one order id.

    The first keeps the id, the others get ``-2``, ``-3`` … behind it, so that they sort after it.
    Their values add up to that of the whole: a stated one is the first's, less what the lines of
    the others come to.
    """
    starts = range(0, len(items), MAX_ITEMS)
    lines = [[item for item in items[at : at + MAX_ITEMS] if item is not None] for at in starts]
    amounts = [_amount(part) if head["type"] in ORDER_TYPES else None for part in lines]
    stated = head.pop("value", None)
    if stated is not None:
        for part in range(len(amounts) - 1, 0, -1):
            amounts[part] = min(amounts[part] or 0.0, stated)
            stated = round(stated - (amounts[part] or 0.0), 6)
        amounts[0] = stated
    base = _base_id(head["id"], len(lines))
    for part, at in enumerate(starts):
        event = {**head, "id": base if part == 0 else f"{base}-{part + 1}", "items": lines[part]}
        _state_value(event, amounts[part])
        yield event, rows[at : at + MAX_ITEMS]


def bound_id(made: str, room: int = MAX_ID) -> str:
    """Return an id that is made here; the end of one that is too long becomes a hash of it."""
    if len(made) <= room:
        return made
    return f"{made[: room - 33]}-{hashlib.sha256(made.encode()).hexdigest()[:32]}"


def _base_id(whole: str, parts: int) -> str:
    """Return the id of the first part: one that the numbers of the others fit behind."""
    if USER_MARK not in whole and len(whole) > MAX_ID:
        return whole  # a stated id that is too long is refused
    mark = f"-{USER_MARK}" if USER_MARK in whole else ""
    grows = len(mark) and MARK_LENGTH - 1
    room = MAX_ID - len(f"-{parts}") - grows
    return whole if len(whole) <= room else bound_id(whole, room - len(mark)) + mark


def _state_value(event: dict[str, Any], value: float | None) -> None:
    if value is not None:
        event["value"] = value


def _amount(items: list[dict[str, Any]]) -> float | None:
    """Return what lines come to; None where some have no price or another currency."""
    # No sum of two currencies: each line is converted by itself.
    if any("currency" in item or "price" not in item for item in items):
        return None
    return round(
        sum(
            line_amount(item.get("quantity", 1.0), item["price"], item.get("discount"))
            for item in items
        ),
        3,
    )


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
