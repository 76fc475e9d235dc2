"""The data sets by name, and how any table of events becomes histories."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import pandas as pd

from feature_repo.errors import InvalidInputError
from feature_repo.events import EventRecord, ItemRecord
from feature_repo.importers import complete_journey
from feature_repo.importers.complete_journey import FIRST_MS, LAST_MS
from feature_repo.importers.lines import MARK
from training.compare.shop import Shop, Split
from training.prepare import History, read_histories
from training.vocabulary import DAY_MS

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

    kinds = column("event_type", "purchase" if "order_id" in frame.columns else "view_item")
    raw = pd.Series(kinds, index=frame.index).astype("string").str.strip().str.lower()
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
    for at, (user, item, kind, order, category, brand) in enumerate(zip(*columns, strict=True)):
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
                type=kind,
                user=user,
                time_ms=int(ms[at]),
                received_ms=int(ms[at]),
                items=[line],
                order_id=None if order is pd.NA else order,
            )
        )
    return found


def by_time(histories: list[History], *, train: float = 0.8, choose: float = 0.9) -> Split:
    """Return the global split at two quantiles of the events' times."""
    times = np.sort(np.array([e.time_ms for _, h in histories for e in h], np.int64))
    first, second = (int(times[min(len(times) - 1, int(len(times) * q))]) for q in (train, choose))
    rest = f"{train:.0%} / {choose - train:.0%} / {1 - choose:.0%}"
    return Split(
        first, second, int(times[-1]) + 1,
        f"events by time, {rest}; every test event is predicted, then applied",
    )  # fmt: skip


def leave_last(histories: list[History]) -> Split:
    """Return the split that tests each user's last event and chooses on the one before."""
    end = max(h[-1].time_ms for _, h in histories)
    return Split(
        end - WEEK_MS - DAY_MS, end - DAY_MS, end + 1,
        "each user's last event is the test, the one before it for choosing", by_time=False,
    )  # fmt: skip


def open_shop(name: str, data: Path | None) -> Shop:
    """Return a data set of `DATASETS`, or the table ``data`` for ``events``.

    Raises
    ------
    InvalidInputError
        If there is no such data set, its file is not there, or too little is in it.
    """
    if name == "events":
        if data is None:
            raise InvalidInputError("events needs --data FILE, a Parquet or CSV table")
        return events(data)
    if name not in DATASETS:
        raise InvalidInputError(
            f"{name!r} is no data set: choose {', '.join(DATASETS)}, or events with --data"
        )
    return DATASETS[name](data)


def events(path: Path) -> Shop:
    """Return any table of events: by time where it has times, else leave-last-out.

    Raises
    ------
    InvalidInputError
        If the file is not there, or is no such table.
    """
    found, timed = histories_of(_read(path))
    return Shop(path.stem, found, by_time(found) if timed else leave_last(found), support=None)


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InvalidInputError(f"{path} is not there: pass the table with --data")
    try:
        return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise InvalidInputError(f"{path} is no Parquet or CSV table: {error}") from None


def _file(data: Path | None, name: str) -> pd.DataFrame:
    if data is None:
        raise InvalidInputError(f"pass --data, the folder of {name} or the file itself")
    return _read(data if data.is_file() else data / name)


def ml100k(data: Path | None) -> Shop:
    """MovieLens-100K: ratings by time, no film twice; all films of the training period."""
    found, _ = histories_of(_file(data, "ml100k.parquet"))
    return Shop("ml100k", found, by_time(found), support=1)


def ml1m(data: Path | None) -> Shop:
    """MovieLens-1M: order only, leave-last-out."""
    found, _ = histories_of(_file(data, "ml1m_order.parquet").sort_values(["user_id", "position"]))
    return Shop("ml1m", found, leave_last(found), support=1)


def amazon_beauty(data: Path | None) -> Shop:
    """Amazon Beauty 5-core: order only, leave-last-out."""
    frame = _file(data, "amazon_beauty.parquet").sort_values(["user_id", "position"])
    found, _ = histories_of(frame)
    return Shop("amazon_beauty", found, leave_last(found), support=1)


def online_retail(data: Path | None) -> Shop:
    """UCI Online Retail: next basket by time; known customers, products only."""
    frame = _file(data, "online_retail.parquet")
    found, _ = histories_of(frame[frame["is_product"] & frame["user_id"].notna()])
    return Shop("online_retail", found, by_time(found))


def tafeng(data: Path | None) -> Shop:
    """Ta-Feng: baskets in order, leave-last-out."""
    frame = _file(data, "tafeng.parquet")
    named = frame.assign(order_id=frame["user_id"].astype(str) + "-" + frame["basket"].astype(str))
    found, _ = histories_of(named.sort_values(["user_id", "basket"], kind="stable"))
    return Shop("tafeng", found, leave_last(found))


def taobao(data: Path | None) -> Shop:
    """Taobao: favourites, carts and purchases of nine days, by time; purchases are predicted."""
    found, _ = histories_of(_file(data, "taobao_cart_fav_purchase.parquet"))
    return Shop("taobao", found, by_time(found))


def completejourney(data: Path | None) -> Shop:
    """Complete Journey: next basket of all product lines, fuel and the like among them."""
    lines = pd.concat(chunk.lines for chunk in complete_journey.open_source(data).chunks)
    frame = lines[lines[MARK].isin(["", "non_merchandise", "no_value"])]
    found, _ = histories_of(frame.rename(columns={"time_ms": "timestamp", "type": "event_type"}))
    return Shop("completejourney", found, _weeks(), support=100)


def completejourney_merchandise(data: Path | None) -> Shop:
    """Complete Journey as the product imports it: merchandise only, coupons and mailings kept."""
    return Shop("completejourney_merchandise", _complete_journey(data), _weeks(), support=100)


def _weeks() -> Split:
    # The publisher's weeks end on Mondays at 05:00, the first one on 2 January.
    first = FIRST_MS + DAY_MS + 5 * 3_600_000
    return Split(
        first + 44 * WEEK_MS, first + 47 * WEEK_MS, LAST_MS,
        "weeks 1-45 / 46-48 / 49-53 of 2017; every basket is predicted, then applied",
    )  # fmt: skip


def _complete_journey(data: Path | None) -> list[History]:
    """Read the archive of the state folder ``data``, else import the data set for the purpose."""
    from feature_repo.importers import run

    if data is not None:
        return read_histories(data)
    with TemporaryDirectory(prefix="portrait-compare-") as folder:
        run("completejourney", home=Path(folder))
        return read_histories(Path(folder))


DATASETS: Final[dict[str, Callable[[Path | None], Shop]]] = {
    "ml100k": ml100k,
    "completejourney": completejourney,
    "completejourney_merchandise": completejourney_merchandise,
    "online_retail": online_retail,
    "amazon_beauty": amazon_beauty,
    "ml1m": ml1m,
    "tafeng": tafeng,
    "taobao": taobao,
}
