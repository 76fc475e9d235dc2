"""Any table of events as histories: mixed ids, returns, orders, times in any form or none."""

from typing import Any, Final

import numpy as np
import pandas as pd

from feature_repo.errors import InvalidInputError
from feature_repo.events.schema import EventRecord, ItemRecord
from training.history.prepare import History
from training.history.vocabulary import DAY_MS

WEEK_MS: Final = 7 * DAY_MS
_TYPES: Final = {
    "purchase": "purchase", "buy": "purchase", "order": "purchase", "transaction": "purchase",
    "add_to_cart": "add_to_cart", "addtocart": "add_to_cart", "cart": "add_to_cart",
    "add_to_wishlist": "add_to_wishlist", "fav": "add_to_wishlist", "favorite": "add_to_wishlist",
    "favourite": "add_to_wishlist", "wishlist": "add_to_wishlist", "like": "add_to_wishlist",
    "rating": "rate_item", "rate": "rate_item", "rate_item": "rate_item", "review": "rate_item",
    "share": "share", "select_item": "select_item",
    "view": "view_item", "pv": "view_item", "click": "view_item", "view_item": "view_item",
    "browse": "view_item", "impression": "view_item_list", "view_item_list": "view_item_list",
}  # fmt: skip
_RETURNS: Final = frozenset({"return", "refund", "cancel", "cancellation"})
_REQUIRED: Final = ("user_id", "item_id")


def histories_of(frame: pd.DataFrame) -> tuple[list[History], bool]:
    """Turn a table of events into histories.

    Rows of one order, or purchases of one user at one time, are one event. Returns and rows
    without user or item are left out. Rows of equal time keep the order of the table. A table
    without times is in order; its events then lie a week apart and end together.

    Parameters
    ----------
    frame
        Columns ``user_id``, ``item_id``; optional ``event_type``, ``timestamp``, ``order_id``,
        ``quantity``, ``price``, ``discount`` (of the whole line), ``category``, ``brand``.

    Returns
    -------
    tuple
        The histories, and whether their times are real.

    Raises
    ------
    InvalidInputError
        If a column is missing or no row is left.
    """
    lacking = [name for name in _REQUIRED if name not in frame.columns]
    if lacking:
        raise InvalidInputError(
            f"the table has no column {' and '.join(lacking)}; it has {', '.join(frame.columns)}"
        )
    table = _rows(frame)
    if not len(table):
        raise InvalidInputError("the table holds no event with user and item that is no return")
    timed = "timestamp" in frame.columns and bool(table["ms"].notna().any())
    if timed:
        table = table[table["ms"].notna()]
        table = table.sort_values(["user", "ms"], kind="stable")
    else:
        table = table.sort_values(["user"], kind="stable")
    table["event"] = _events(table, timed=timed)
    if not timed:
        number = table.groupby("user", sort=False)["event"].transform(lambda e: e - e.max())
        table["ms"] = number.astype(np.int64) * WEEK_MS + 20_000 * DAY_MS
    return _assemble(table), timed


def _rows(frame: pd.DataFrame) -> pd.DataFrame:
    def column(name: str, default: Any) -> Any:
        return frame[name] if name in frame.columns else default

    types = column("event_type", "purchase" if "order_id" in frame.columns else "view_item")
    raw = pd.Series(types, index=frame.index).astype("string").str.strip().str.lower()
    table = pd.DataFrame(
        {
            "user": _id(frame["user_id"]),
            "item": _id(frame["item_id"]),
            "kind": raw.map(_TYPES).fillna("view_item"),
            "ms": _milliseconds(column("timestamp", pd.Series(pd.NaT, index=frame.index))),
            "order": _id(column("order_id", pd.Series(pd.NA, index=frame.index))),
            "quantity": pd.to_numeric(column("quantity", 1.0), errors="coerce"),
            "price": pd.to_numeric(column("price", np.nan), errors="coerce"),
            "discount": pd.to_numeric(column("discount", np.nan), errors="coerce"),
            "category": _id(column("category", pd.Series(pd.NA, index=frame.index))),
            "brand": _id(column("brand", pd.Series(pd.NA, index=frame.index))),
        },
        index=frame.index,
    )
    table["quantity"] = table["quantity"].fillna(1.0)
    kept = table["user"].notna() & table["item"].notna()
    kept &= ~raw.isin(_RETURNS).fillna(False) & (table["quantity"] > 0)
    return table[kept].reset_index(drop=True)


def _milliseconds(given: pd.Series) -> pd.Series:
    """Return times as epoch milliseconds, missing where there is none."""
    read: Any = pd.to_datetime  # its stubs know no column of unknown type
    if pd.api.types.is_numeric_dtype(given):
        unit = "ms" if float(given.max()) > 1e11 else "s"
        when = read(given, unit=unit, utc=True, errors="coerce")
    else:
        when = read(given, utc=True, errors="coerce", format="mixed")
    naive = pd.DatetimeIndex(when).tz_localize(None).as_unit("ms")
    out = pd.Series(naive.asi8, index=given.index, dtype="Int64")
    out[np.asarray(naive.isna())] = pd.NA
    return out


def _id(values: pd.Series) -> pd.Series:
    """Return ids as text; whole numbers without a fraction, empty ones as missing."""
    if pd.api.types.is_float_dtype(values):
        whole = values.dropna()
        if len(whole) and (whole == whole.round()).all():
            values = values.astype("Int64")
    text = values.astype("string").str.strip()
    return text.mask(text == "")


def _events(table: pd.DataFrame, *, timed: bool) -> Any:
    """Return the number of each row's event; the table is sorted by user and time."""
    new = table["user"].ne(table["user"].shift())
    order = table["order"]
    same = order.notna() & order.eq(order.shift())
    if timed:
        together = table["kind"].eq("purchase") & table["kind"].shift().eq("purchase")
        together &= table["ms"].eq(table["ms"].shift()) & order.isna()
        same |= together
    return (new | ~same.fillna(False)).cumsum()


def _assemble(table: pd.DataFrame) -> list[History]:
    columns = [
        table[name].to_numpy(object)
        for name in ("user", "item", "kind", "order", "category", "brand")
    ]
    price, discount = (
        table[name].where(table[name] >= 0).to_numpy(np.float64) for name in ("price", "discount")
    )
    quantity, ms = table["quantity"].to_numpy(np.float64), table["ms"].to_numpy(np.int64)
    event = table["event"].to_numpy(np.int64)
    found, last = list[History](), -1
    rows = enumerate(zip(*columns, strict=True))
    for at, (user, item, event_type, order, category, brand) in rows:
        line = ItemRecord(
            item_id=item, quantity=float(quantity[at]),
            price=None if np.isnan(price[at]) else float(price[at]),
            discount=None if np.isnan(discount[at]) else float(discount[at]),
            category=None if category is pd.NA else category,
            brand=None if brand is pd.NA else brand,
        )  # fmt: skip
        if event[at] == last:
            found[-1][1][-1].items.append(line)
            continue
        last = int(event[at])
        if not found or found[-1][0] != user:
            found.append((user, []))
        found[-1][1].append(
            EventRecord(
                id=str(last),
                type=event_type,
                user=user,
                time_ms=int(ms[at]),
                received_ms=int(ms[at]),
                items=[line],
                order_id=None if order is pd.NA else order,
            )
        )
    return found
