"""Feature tables: what is known about users and items at midnights, from the archive.

DuckDB reads the archive once, stages it, and fills each batch view's folder below
``home/features``; Feast reads those folders. A row of midnight D follows from events before
D only. How each view is computed is said in `features.sql`; the columns are
`feature_repo.features.catalogue`'s.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from feature_repo.archive import valid_events
from feature_repo.archive.event_archive import SCHEMA as EVENT_SCHEMA
from feature_repo.archive.event_archive import write_part
from feature_repo.erasure import tombstones
from feature_repo.erasure.parquet_rows import drop_owned
from feature_repo.events.types import LONG_HALF_LIFE_DAYS, TYPES, find_types
from feature_repo.features.catalogue import BATCH_VIEWS, VIEWS
from feature_repo.features.sql import behaviour, interests, items, profile
from feature_repo.user_profile.amounts import EVENT_M, IS_STATED
from feature_repo.user_profile.order_memory import told_again

LATE_DAYS: Final = 4
"""An incremental build makes the rows of this many days before ``since`` again: live events
may come 72 h late."""
KEEP_S: Final = 3600.0
"""Parts that a full build replaced stay this long, for readers that have listed them."""
MEMORY_LIMIT: Final = "3GB"
THREADS: Final = 2

_log = logging.getLogger(__name__)
_DAY_US: Final = 86_400_000_000

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

_TOUCHES: Final = tuple(name for name, each in TYPES.items() if each.interest > 0)
"""Event types that say a user took notice of an item (an impression does not)."""

_ITEM_SCHEMA: Final = pa.schema(
    [(name, pa.string()) for name in ("item_id", "category", "brand", "filename")]
)
"""Of an empty catalogue; the file's name says which part counts, as in `archive.catalogue`."""

_EVENTS: Final = f"""
CREATE TEMP TABLE events AS
SELECT *, event AS basket,
    (day + 7 - (day + 3) % 7)::INTEGER AS week  -- the Monday that first sees the day
FROM (
    SELECT "user", type, time, items, coalesce(len(items), 0) AS num_lines,
        coalesce(len(items), 0) AS order_lines, type = 'purchase' AS is_order,
        coalesce(order_id, event_id) AS order_key,
        row_number() OVER (ORDER BY log_ms, log_seq, event_id) AS event,
        (epoch_us(time) // {_DAY_US})::INTEGER AS day,
        hour(timezone(coalesce(tz, 'UTC'), time)) AS hour,
        isodow(timezone(coalesce(tz, 'UTC'), time)) - 1 AS weekday,
        type NOT IN {(*sorted(find_types("passive")),)} AS own,
        CASE WHEN type = 'purchase' THEN {EVENT_M} ELSE 0 END AS spend_m,
        {IS_STATED} AS is_stated,
        CASE WHEN type = 'purchase' THEN round(1000 * coalesce(list_sum(
            list_transform(items, lambda i: i.quantity * i.price)), 0))::BIGINT
            ELSE 0 END AS gross_m,
        CASE WHEN type = 'purchase' THEN round(1000 * coalesce(list_sum(
            list_transform(items, lambda i: CASE WHEN i.price IS NULL THEN 0
                ELSE least(coalesce(i.discount, 0), i.quantity * i.price) END)), 0))::BIGINT
            ELSE 0 END AS discount_m
    FROM archive_events WHERE time < make_timestamptz(?)
)
"""  # noqa: S608 - built from constants

_TOLD: Final = told_again(
    "(SELECT *, spend_m AS worth_m FROM events WHERE type = 'purchase')",
    user='"user"', order="time, event", day="day", event="event",
)  # fmt: skip
_RETOLD: Final = f"""
CREATE TEMP TABLE told AS
SELECT event, before_m, before_lines, takes_place, first_event FROM ({_TOLD}) WHERE NOT is_new;

UPDATE events SET is_order = false, basket = first_event, spend_m = spend_m - before_m,
    order_lines = order_lines - before_lines,
    gross_m = CASE WHEN takes_place THEN 0 ELSE gross_m END,
    discount_m = CASE WHEN takes_place THEN 0 ELSE discount_m END
FROM told WHERE told.event = events.event;
"""  # noqa: S608 - built from constants
"""By time, not as logged: what came late must change no row of a moment before it."""

_LINES: Final = f"""
CREATE TEMP TABLE lines AS
SELECT "user", type, time, event, basket, day, week, item.item_id AS item_id,
    item.category AS stated,
    array_to_string(string_split(item.category, '/')[1:2], '/') AS category,
    item.brand AS brand, item.price AS price
FROM (SELECT *, unnest(items) AS item FROM events WHERE type IN {_TOUCHES});

CREATE TEMP TABLE catalogue AS
SELECT item_id, arg_max(category, part) AS category, arg_max(brand, part) AS brand
FROM (SELECT *, parse_filename(filename, true) AS part FROM archive_items) GROUP BY item_id;
"""  # noqa: S608 - built from constants

_WEEKS: Final = f"""
CREATE TEMP TABLE weeks AS
SELECT snap::INTEGER AS snap, pow(2.0, (snap - last) / {LONG_HALF_LIFE_DAYS}.0) AS scale
FROM (
    SELECT last, unnest(range(first, last + 1, 7)) AS snap
    FROM (SELECT min(week)::BIGINT AS first, ?::BIGINT AS last FROM events)
)
"""  # noqa: S608 - built from a constant


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
    until
        Only events before it count; the newest rows are of the midnight at or before it.
    since
        Add only rows from `LATE_DAYS` before this moment on, as one new part of each view;
        None makes everything anew.

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
        odd = _stage(connection, home, until)
        if odd:
            _log.warning(
                "the archive has rows that count without an odd value: %s",
                valid_events.describe_odd(odd),
            )
        tell("counting interests")
        connection.execute(interests.stage(last))
        for view in BATCH_VIEWS:
            tell(view)
            table = _table(connection, view, _rows(view, first, last), created)
            with tombstones.publishing(home) as erased:
                table = drop_owned(table, erased)
                _write(home / "features" / view, table, created, full=since is None)
            counts[view] = table.num_rows
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
        return profile.rows(first, last)
    if view == "item":
        return items.rows(first, last)
    return behaviour.rows(int(view.removeprefix("behaviour_").removesuffix("d")), first, last)


def _stage(connection: Any, home: Path, until: datetime) -> dict[str, int]:
    connection.execute(f"SET threads = {THREADS}; SET memory_limit = '{MEMORY_LIMIT}'")
    connection.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
    _source(connection, "stored_events", home / "archive" / "events", EVENT_SCHEMA)
    valid_events.prepare(connection)
    connection.execute(
        f"CREATE VIEW archive_events AS {valid_events.select_sound('stored_events')}"
    )
    _source(connection, "archive_items", home / "archive" / "items", _ITEM_SCHEMA)
    connection.execute(_EVENTS, [round(until.timestamp() * 1_000_000)])
    connection.execute(_RETOLD)
    connection.execute(_LINES)
    connection.execute(_WEEKS, [_day(until)])
    connection.execute(behaviour.STAGE)
    connection.execute(profile.STAGE)
    return valid_events.count_odd(connection, "stored_events")


def _source(connection: Any, name: str, folder: Path, empty: pa.Schema) -> None:
    # Resolved: a link to the present generation of parts must not change under the query.
    parts = sorted(str(path) for path in folder.resolve().glob("*.parquet"))
    if parts:
        named = "filename" in empty.names
        found = connection.read_parquet(parts, union_by_name=True, filename=named)
        found.create_view(name)
    else:
        connection.register(name, empty.empty_table())


def _table(connection: Any, view: str, rows: str, created: datetime) -> pa.Table:
    wanted = schema(view)
    columns = ", ".join(f"{f.name}::{_SQL[f.dtype]} AS {f.name}" for f in VIEWS[view])
    table = connection.sql(
        f'SELECT "{wanted.names[0]}", make_timestamptz(snap * {_DAY_US}::BIGINT) '  # noqa: S608
        f"AS event_timestamp, make_timestamptz(?) AS created, {columns} "
        f"FROM ({rows}) ORDER BY 1, 2",
        params=[round(created.timestamp() * 1_000_000)],
    ).to_arrow_table()
    return table.cast(wanted)


def _write(folder: Path, table: pa.Table, created: datetime, *, full: bool) -> None:
    if not full:
        write_part(folder / f"{created:%Y%m%dT%H%M%S%f}.parquet", table)
        return
    write_part(folder / "base.parquet", table)
    for part in folder.glob("*.parquet"):
        if part.name != "base.parquet" and part.stat().st_mtime < time.time() - KEEP_S:
            part.unlink(missing_ok=True)
