"""Feature tables: what is known about users and items at midnights, from the archive.

DuckDB reads the archive once, stages it, and fills each batch view's folder below
``home/features``; Feast reads those folders. A row of midnight D follows from events before
D only. How each view is computed is said in `behaviour`, `profile_rows`, `interests` and
`item_stats`; the columns are `feature_repo.features`'.
"""

import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from feature_repo import behaviour, interests, item_stats, profile_rows
from feature_repo.archive import write_part
from feature_repo.features import BATCH_VIEWS, VIEWS, WINDOWS_DAYS

LATE_DAYS: Final = 4
"""An incremental build makes the rows of this many days before ``since`` again: live events
may come 72 h late."""
KEEP_S: Final = 3600.0
"""Parts that a full build replaced stay this long, for readers that have listed them."""
MEMORY_LIMIT: Final = "3GB"
THREADS: Final = 2

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps in all."""

_ARROW: Final = {
    "int": pa.int64(), "float": pa.float64(), "str": pa.string(), "bytes": pa.binary(),
    "list[str]": pa.list_(pa.string()), "list[float]": pa.list_(pa.float64()),
}  # fmt: skip
_SQL: Final = {
    "int": "BIGINT", "float": "DOUBLE", "str": "VARCHAR", "bytes": "BLOB",
    "list[str]": "VARCHAR[]", "list[float]": "DOUBLE[]",
}  # fmt: skip
_MOMENT: Final = pa.timestamp("us", tz="UTC")

_TOUCHES: Final = (
    "view_item", "select_item", "add_to_cart", "add_to_wishlist", "purchase", "rate_item", "share",
)  # fmt: skip
"""Event types that say a user took notice of an item (an impression does not)."""
_NOT_OWN: Final = ("message_sent",)
"""Event types that are the shop's doing, not the user's."""


def build(
    home: Path,
    *,
    until: datetime,
    since: datetime | None = None,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Compute the feature tables from the archive.

    Parameters
    ----------
    home
        State folder (``PORTRAIT_HOME``).
    until
        Only events before it count; the newest rows are of the midnight at or before it.
    since
        Add only rows from `LATE_DAYS` before this moment on, as one new part of each view;
        None makes everything anew.
    progress
        Told each step.

    Returns
    -------
    dict[str, int]
        Rows written, by view.

    Notes
    -----
    A part appears whole or not at all. Where two parts hold a row of the same user and
    time, readers take the one ``created`` last.
    """
    until = until.astimezone(UTC)
    last = _day(until)
    first = 0 if since is None else max(0, _day(since.astimezone(UTC)) - LATE_DAYS)
    created = datetime.now(UTC)
    tell = _Steps(progress, 2 + len(BATCH_VIEWS))
    counts: dict[str, int] = {}
    with duckdb.connect() as connection:
        tell("reading the archive")
        _stage(connection, home, until)
        tell("counting interests")
        connection.execute(interests.stage(last))
        for view in BATCH_VIEWS:
            tell(view)
            table = _table(connection, view, _rows(view, first, last), created)
            counts[view] = table.num_rows
            _write(home / "features" / view, table, created, full=since is None)
    prepare(home)
    return counts


def prepare(home: Path) -> None:
    """Give every feature folder that has no part an empty one, so that Feast can read it."""
    for view in VIEWS:
        folder = home / "features" / view
        if next(folder.glob("*.parquet"), None) is None:
            write_part(folder / "empty.parquet", schema(view).empty_table())


def schema(view: str) -> pa.Schema:
    """Return the columns of a view's parts."""
    key = "item_id" if view == "item" else "user"
    return pa.schema(
        [
            (key, pa.string()),
            ("event_timestamp", _MOMENT),
            ("created", _MOMENT),
            *((f.name, _ARROW[f.dtype]) for f in VIEWS[view]),
        ]
    )


class _Steps:
    """Counts steps for a progress callback that may be absent."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, what: str) -> None:
        if self._progress is not None:
            self._progress(what, self._done, self._total)
        self._done += 1


def _day(moment: datetime) -> int:
    return moment.date().toordinal() - date(1970, 1, 1).toordinal()


def _rows(view: str, first: int, last: int) -> str:
    if view == "profile":
        return profile_rows.rows(first, last)
    if view == "item":
        return item_stats.rows(first, last)
    return behaviour.rows(int(view.removeprefix("behaviour_").removesuffix("d")), first, last)


def _stage(connection: duckdb.DuckDBPyConnection, home: Path, until: datetime) -> None:
    connection.execute(f"SET threads = {THREADS}; SET memory_limit = '{MEMORY_LIMIT}'")
    connection.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
    connection.execute("SET enable_progress_bar = false")
    micros = int(until.timestamp() * 1_000_000)
    connection.execute(_EVENTS, [_files(home / "archive" / "events", _EVENT_STUB), micros])
    connection.execute(_LINES)
    connection.execute(_WEEKS, [_day(until)])
    connection.execute(_CATALOGUE, [_files(home / "archive" / "items", _ITEM_STUB)])
    connection.execute(behaviour.STAGE)
    connection.execute(profile_rows.STAGE)
