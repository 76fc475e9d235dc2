"""The data sets by name, and how each is split."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import pandas as pd

from feature_repo.errors import InvalidInputError
from feature_repo.importers import complete_journey
from feature_repo.importers.complete_journey import FIRST_MS, LAST_MS
from feature_repo.importers.lines import MARK
from training.history.prepare import History, read_histories
from training.history.vocabulary import DAY_MS
from training.lab.comparison.shop import Shop, Split
from training.lab.comparison.tables import WEEK_MS, histories_of
from training.lab.targeting.profile_block import import_home


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


def histories_in(path: Path) -> list[History]:
    """Return the histories of any table of events, not split.

    Raises
    ------
    InvalidInputError
        As `events`.
    """
    return histories_of(_read(path))[0]


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
    """Ta-Feng: baskets in order, leave-last-out; all of the file's items."""
    frame = _file(data, "tafeng.parquet")
    named = frame.assign(order_id=frame["user_id"].astype(str) + "-" + frame["basket"].astype(str))
    found, _ = histories_of(named.sort_values(["user_id", "basket"], kind="stable"))
    return Shop("tafeng", found, leave_last(found), support=1)


def taobao(data: Path | None) -> Shop:
    """Taobao: favourites, carts and purchases of nine days, by time; purchases are predicted.

    Items of at least five training events.
    """
    found, _ = histories_of(_file(data, "taobao_cart_fav_purchase.parquet"))
    return Shop("taobao", found, by_time(found), support=5)


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
    """Read a state folder's archive, made if it is not there; without one, for the purpose."""
    with TemporaryDirectory(prefix="portrait-compare-") as folder:
        home = data or Path(folder)
        import_home(home, lambda line: None)
        return read_histories(home)


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
