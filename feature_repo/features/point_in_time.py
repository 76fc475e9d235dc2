"""The point-in-time join on Parquet parts: what was known of each entity at each moment.

Belongs here: the join itself, and the newest row of every entity, both by DuckDB in two
passes: one over keys and times that finds the number of the row, one that fetches its columns.
How Feast asks for it is said in `feast_stores.offline`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.errors import PointInTimeError

FEW_MOMENTS: Final = 4
"""Up to so many moments an entity, every earlier row of it is looked at; beyond, both sides
are sorted, which costs the same whatever the number."""

_ATTEMPTS: Final = 5

_ROW_ID: Final = "file_index::BIGINT * 4294967296 + file_row_number"


@dataclass(frozen=True)
class Parts:
    """Rows of one feature view.

    Attributes
    ----------
    rows
        Parquet files, or folders of them; or a table.
    keys
        Columns of the entity.
    time
        Column of the moment from which a row holds; without a zone it is in UTC.
    created
        Column that says which of two rows of one moment holds: the one created last.
    ttl
        How long a row holds; 0 for ever.
    """

    rows: tuple[str, ...] | pa.Table
    keys: tuple[str, ...]
    time: str
    created: str | None = None
    ttl: timedelta = timedelta()


def join(
    moments: pa.Table,
    parts: Parts,
    columns: Sequence[str],
    *,
    keys: Sequence[str],
    time: str,
    known: bool = False,
) -> pa.Table:
    """Return, for each row of ``moments``, the newest row that was valid at its moment.

    A row is valid from its own moment, included, until that and ``ttl``, included.

    Parameters
    ----------
    moments
        Entities and moments.
    parts
        Rows to choose from.
    columns
        Columns of them that are wanted.
    keys, time
        Columns of ``moments``, in the order of ``parts.keys``.
    known
        Whether a row must also have been created by the moment.

    Returns
    -------
    pyarrow.Table
        ``columns``, row by row for ``moments``; null where nothing was valid.
    """
    requested = [pc.cast(moments[name], _wide(moments[name].type)) for name in keys]
    numbers = pa.array(np.arange(len(moments), dtype=np.int64))
    names = [*(f"k{n}" for n in range(len(keys))), "moment", "place"]
    requested_at = moments[time].cast(pa.timestamp("us", "UTC"), safe=False)
    table = pa.table([*requested, requested_at, numbers], names=names)

    def look() -> pa.Table:
        with _open_parts(parts) as connection:
            connection.register("asked", table)
            _find(connection, parts, few=_few(table, len(keys)), known=known)
            return _fetch(connection, parts, columns)

    found = _read_unchanged(parts, look)
    rows = np.full(len(moments), -1, dtype=np.int64)
    rows[found["asked"].to_numpy()] = np.arange(len(found))
    return found.select(list(columns)).take(pa.array(rows, mask=rows < 0))


def newest(parts: Parts, columns: Sequence[str], start: datetime, end: datetime) -> pa.Table:
    """Return the newest row of every entity whose moment lies in a span, both ends included.

    Parameters
    ----------
    columns
        Columns wanted; keys and times are given only when named.
    """
    bounds = [_micros(start), _micros(end)]

    def look() -> pa.Table:
        with _open_parts(parts) as connection:
            keys = ", ".join(f"k{n}" for n in range(len(parts.keys)))
            connection.execute(
                f"CREATE TEMP TABLE held AS SELECT 0 AS asked, {keys}, moment, created, place "
                f"FROM rows WHERE moment BETWEEN make_timestamptz(?) AND make_timestamptz(?)",
                bounds,
            ).fetchall()
            _choose(connection, keys)
            return _fetch(connection, parts, columns).select(list(columns))

    return _read_unchanged(parts, look)


def files(given: Sequence[str]) -> list[str]:
    """Return the files of ``Parts.rows``: folders become the Parquet files in them."""
    found = list[str]()
    for name in given:
        path = Path(name)
        found += sorted(map(str, path.glob("*.parquet"))) if path.is_dir() else [name]
    return found


def _read_unchanged(parts: Parts, look: Callable[[], pa.Table]) -> pa.Table:
    """Return what is found while no file is replaced: rows are known by their numbers."""
    for _ in range(_ATTEMPTS):
        before = _stamp(parts)
        try:
            found = look()
        except duckdb.Error:
            if before == _stamp(parts):
                raise
            continue
        if before == _stamp(parts):
            return found
    raise PointInTimeError(
        f"the files of {parts.rows} were replaced {_ATTEMPTS} times while they were read: again"
    )


def _stamp(parts: Parts) -> list[tuple[str, int, int]]:
    """Return which files there are; others after each change of one."""
    if isinstance(parts.rows, pa.Table):
        return []
    found = list[tuple[str, int, int]]()
    for name in files(parts.rows):
        with suppress(FileNotFoundError):
            status = Path(name).stat()
            found.append((name, status.st_ino, status.st_mtime_ns))
    return found


@contextmanager
def _open_parts(parts: Parts) -> Iterator[Any]:
    """Open a connection with the parts' keys, times and row numbers as the view ``rows``."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false").fetchall()
        keys = ", ".join(f"{_quote(name)} AS k{n}" for n, name in enumerate(parts.keys))
        created = f"{_quote(parts.created)}::TIMESTAMPTZ" if parts.created else "NULL::TIMESTAMPTZ"
        time = f"{_quote(parts.time)}::TIMESTAMPTZ"
        if isinstance(parts.rows, pa.Table):
            connection.register("given", _number_rows(parts.rows))
        connection.execute(
            f"CREATE TEMP VIEW rows AS SELECT {keys}, {time} AS moment, {created} AS created, "
            f"{_ROW_ID} AS place FROM {_read(parts)}"
        ).fetchall()
        yield connection


def _find(connection: Any, parts: Parts, *, few: bool, known: bool) -> None:
    keys = " AND ".join(f"e.k{n} = f.k{n}" for n in range(len(parts.keys)))
    limits = ""
    if parts.ttl:
        limits += f" AND f.moment + to_microseconds({parts.ttl // timedelta(microseconds=1)})"
        limits += " >= e.moment"
    if known:
        limits += " AND f.created <= e.moment"
    source = f"asked AS e JOIN rows AS f ON {keys} AND f.moment <= e.moment{limits}"
    if not (few or known):
        named = ", ".join(f"e.k{n}" for n in range(len(parts.keys)))
        connection.execute(
            f"CREATE TEMP TABLE matched AS SELECT e.place, {named}, f.moment FROM asked AS e "
            f"ASOF JOIN rows AS f ON {keys} AND f.moment <= e.moment WHERE true{limits}"
        ).fetchall()
        source = f"matched AS e JOIN rows AS f ON {keys} AND f.moment = e.moment"
    connection.execute(
        f"CREATE TEMP TABLE held AS SELECT e.place AS asked, f.moment, f.created, f.place "
        f"FROM {source}"
    ).fetchall()
    _choose(connection, "asked")


def _choose(connection: Any, by: str) -> None:
    """Keep, of the rows ``held``, the newest of each group; of one moment the last created."""
    connection.execute(
        f"CREATE TEMP TABLE chosen AS SELECT any_value(asked) AS asked, "
        f"max_by(place, (coalesce(created, '-infinity'::TIMESTAMPTZ), place)) AS place FROM held "
        f"JOIN (SELECT {by}, max(moment) AS moment FROM held GROUP BY {by}) "
        f"USING ({by}, moment) GROUP BY {by}"
    ).fetchall()


def _fetch(connection: Any, parts: Parts, columns: Sequence[str]) -> pa.Table:
    wanted = "".join(f", p.{_quote(name)}" for name in columns)
    return connection.sql(
        f"SELECT chosen.asked{wanted} FROM {_read(parts)} AS p "
        f"JOIN chosen ON chosen.place = {_ROW_ID}"
    ).to_arrow_table()


def _few(requested: pa.Table, keys: int) -> bool:
    """Say whether the entities have few moments each."""
    entities = requested.select(list(range(keys))).group_by([f"k{n}" for n in range(keys)])
    return bool(len(requested) <= FEW_MOMENTS * max(1, entities.aggregate([]).num_rows))


def _read(parts: Parts) -> str:
    if isinstance(parts.rows, pa.Table):
        return "given"
    listed = ", ".join("'" + name.replace("'", "''") + "'" for name in files(parts.rows))
    return f"read_parquet([{listed}], file_row_number = true, union_by_name = true)"


def _number_rows(table: pa.Table) -> pa.Table:
    """Return a table with the columns that DuckDB gives the rows of a file."""
    rows = np.arange(len(table))
    return table.append_column("file_row_number", pa.array(rows)).append_column(
        "file_index", pa.array(np.zeros_like(rows))
    )


def _wide(data_type: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_dictionary(data_type) else data_type


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _micros(moment: datetime) -> int:
    return (moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
