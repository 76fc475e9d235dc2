"""The archive: the event log's long memory, as append-only Parquet parts.

A part is written to a temporary file, fsynced and renamed, so a reader sees it whole or
not at all, and writing the same part twice changes nothing. Each row holds the event as
columns (for Feast and DuckDB) and, in ``record``, the log entry itself (for folds).
"""

import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.events import EventRecord

_ITEM = pa.struct(
    [
        ("item_id", pa.string()),
        ("quantity", pa.float64()),
        ("price", pa.float64()),
        ("category", pa.string()),
        ("brand", pa.string()),
        ("currency", pa.string()),
        ("variant", pa.string()),
        ("position", pa.int64()),
        ("discount", pa.float64()),
        ("coupon", pa.string()),
    ]
)
_SCALARS: tuple[tuple[str, pa.DataType], ...] = (
    ("source", pa.string()),
    ("session_id", pa.string()),
    ("order_id", pa.string()),
    ("value", pa.float64()),
    ("currency", pa.string()),
    ("coupon", pa.string()),
    ("query", pa.string()),
    ("url", pa.string()),
    ("device", pa.string()),
    ("channel", pa.string()),
    ("tz", pa.string()),
    ("rating", pa.float64()),
    ("recommendation_id", pa.string()),
    ("campaign_id", pa.string()),
    ("placement", pa.string()),
    ("linked", pa.string()),
)
SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("user", pa.string()),
        ("type", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("received", pa.timestamp("us", tz="UTC")),
        ("log_ms", pa.int64()),
        ("log_seq", pa.int64()),
        ("anonymous", pa.bool_()),
        *_SCALARS,
        ("items", pa.list_(_ITEM)),
        ("consent", pa.string()),
        ("properties", pa.string()),
        ("record", pa.binary()),
    ]
)
"""Columns of a part. ``(log_ms, log_seq)`` is the stream id; imported history has ``log_ms``
0 and ``log_seq`` its event time, so it sorts before everything live, by time."""


@dataclass(frozen=True, slots=True)
class LogPosition:
    """Where an event stands in its partition's log (a stream id); orders the fold."""

    ms: int
    seq: int

    @classmethod
    def imported(cls, time_ms: int) -> "LogPosition":
        """Return the position of a history event: before everything live, by event time."""
        return cls(0, time_ms)


class Archive:
    """Parquet parts of events below ``root`` (``PORTRAIT_HOME/archive/events``).

    Parameters
    ----------
    root
        Folder of the parts; made when absent.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def append(self, name: str, entries: Sequence[tuple[LogPosition, EventRecord]]) -> Path:
        """Write one part called ``name``; a part of that name already there is kept as it is.

        Parameters
        ----------
        name
            Unique for its content, e.g. ``p003-1700000000000-0-1700000009999-4``.
        entries
            Events with their log positions, in fold order.

        Returns
        -------
        Path
            The part's file.
        """
        path = self.root / f"{name}.parquet"
        if not path.exists():
            write_part(path, to_table(entries))
        return path

    def parts(self) -> list[Path]:
        """Return all complete parts, sorted by name."""
        return sorted(self.root.glob("*.parquet"))

    def glob(self) -> str:
        """Return the pattern that DuckDB's ``read_parquet`` takes; see also `empty`."""
        return str(self.root / "*.parquet")

    def empty(self) -> bool:
        """Say whether no part exists yet."""
        return next(self.root.glob("*.parquet"), None) is None

    def histories(
        self,
        users: Sequence[str] | None = None,
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> Iterator[tuple[str, list[EventRecord]]]:
        """Yield ``(user, events in fold order)``, users sorted.

        Parameters
        ----------
        users
            Entity ids to read; None reads everyone.
        since_ms, until_ms
            Event time bounds ``since <= time < until``, epoch milliseconds.
        """
        if self.empty():
            return
        where, values = ["true"], list[Any]()
        if users is not None:
            where.append('"user" IN (SELECT unnest(?))')
            values.append(list(users))
        if since_ms is not None:
            where.append("time >= make_timestamptz(? * 1000)")
            values.append(since_ms)
        if until_ms is not None:
            where.append("time < make_timestamptz(? * 1000)")
            values.append(until_ms)
        with duckdb.connect() as connection:
            connection.execute("SET threads = 2; SET enable_progress_bar = false")
            reader = connection.sql(
                f'SELECT "user", record FROM read_parquet(?) WHERE {" AND ".join(where)} '  # noqa: S608
                'ORDER BY "user", log_ms, log_seq, event_id',
                params=[self.glob(), *values],
            ).to_arrow_reader(50_000)
            current, events = "", list[EventRecord]()
            for batch in reader:
                for user, record in zip(
                    batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True
                ):
                    if user != current:
                        if events:
                            yield current, events
                        current, events = user, []
                    events.append(EventRecord.decode(record))
            if events:
                yield current, events


def write_part(path: Path, table: pa.Table) -> None:
    """Write a Parquet file so that it appears whole or not at all (tmp, fsync, rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd", row_group_size=50_000)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def to_table(entries: Sequence[tuple[LogPosition, EventRecord]]) -> pa.Table:
    """Return events as an Arrow table of `SCHEMA`."""
    records = [record for _, record in entries]
    lines = [item for record in records for item in record.items]
    offsets = [0]
    for record in records:
        offsets.append(offsets[-1] + len(record.items))
    items = pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()),
        pa.StructArray.from_arrays(
            [pa.array([getattr(i, field.name) for i in lines], field.type) for field in _ITEM],
            fields=list(_ITEM),
        ),
    )
    moments = SCHEMA.field("time").type
    columns: dict[str, Any] = {
        "event_id": [r.id for r in records],
        "user": [r.user for r in records],
        "type": [r.type for r in records],
        "time": pa.array([r.time_ms * 1000 for r in records], pa.int64()).cast(moments),
        "received": pa.array([r.received_ms * 1000 for r in records], pa.int64()).cast(moments),
        "log_ms": [position.ms for position, _ in entries],
        "log_seq": [position.seq for position, _ in entries],
        "anonymous": [r.anonymous for r in records],
        "items": items,
        "consent": [
            None if r.consent is None else orjson.dumps(r.consent).decode() for r in records
        ],
        "properties": [
            None if r.properties is None else orjson.dumps(r.properties).decode() for r in records
        ],
        "record": [r.encode() for r in records],
    }
    for name, _ in _SCALARS:
        columns[name] = [getattr(r, name) for r in records]
    return pa.table(
        [
            pa.array(columns[f.name], f.type)
            if isinstance(columns[f.name], list)
            else columns[f.name]
            for f in SCHEMA
        ],
        schema=SCHEMA,
    )
