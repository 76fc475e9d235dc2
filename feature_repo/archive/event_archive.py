"""The archive: the event log's long memory, as Parquet parts.

A part appears whole or not at all, and no event comes in twice, whoever writes what again.
Each row holds the event as columns (for Feast and DuckDB) and, in ``record``, the log entry
itself (for folds). Small parts are merged in the background (`feature_repo.archive.compaction`);
`Archive.parts` and `Archive.glob` give a set of files that stays as it is (`part_set`).
"""

from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from feature_repo.archive.event_table import SCHEMA, to_table
from feature_repo.archive.log_span import LogPosition, Span
from feature_repo.archive.part_set import PartSet, write_part
from feature_repo.events.schema import EventRecord

__all__ = ["SCHEMA", "Archive", "LogPosition", "Span", "to_table", "write_part"]


class Archive:
    """Parquet parts of events below ``root`` (``HOME/archive/events``), made when absent."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.part_set = PartSet(root)

    def append(self, name: str, entries: Sequence[tuple[LogPosition, EventRecord]]) -> Path:
        """Write one part called ``name``; a part of that name already there is kept as it is.

        Parameters
        ----------
        name
            Unique for its content.
        """
        with self.part_set.adding() as folder:
            path = folder / f"{name}.parquet"
            if not path.exists():
                write_part(path, to_table(entries), replace=False)
        return path

    def extend(self, span: Span, entries: Sequence[tuple[LogPosition, EventRecord]]) -> int:
        """Add those of a span's log entries that the archive does not hold, as one part.

        The archive may hold some already: in a part that an archiver wrote before it could
        say so, in one that was merged since, or in one that outlived a store which lost its
        last writes. Two that extend by the same span at once add each entry once.

        Parameters
        ----------
        span
            Part of one partition's log.
        """
        with self.part_set.adding() as folder:
            while True:
                path = next(p for n in span.file_names() if not (p := folder / n).exists())
                archived = _read_archived(folder, span)
                fresh = [e for e in entries if (e[0].ms, e[0].seq, e[1].id) not in archived]
                # A name taken since it was found free is another's part: look again.
                if not fresh or write_part(path, to_table(fresh), replace=False):
                    return len(fresh)

    def parts(self) -> list[Path]:
        """Return all parts, sorted by name: a consistent set, to be read within an hour."""
        return self.part_set.parts()

    def parts_of(self, partition: int, after: LogPosition | None = None) -> list[Path]:
        """Return the parts that may hold a partition's events, chosen by their names.

        Those that end at or before ``after`` are left out, imported history with them.
        """
        chosen = []
        for part in self.parts():
            span = Span.of(part)
            if span is None:
                wanted = after is None
            else:
                wanted = span.partition == partition and (after is None or span.until > after)
            if wanted:
                chosen.append(part)
        return chosen

    def glob(self) -> str:
        """Return the pattern that DuckDB's ``read_parquet`` takes; see also `empty`.

        It names a consistent set of parts, to be read within an hour.
        """
        return str(self.part_set.folder() / "*.parquet")

    def empty(self) -> bool:
        """Say whether no part exists yet."""
        return next(self.part_set.folder().glob("*.parquet"), None) is None

    def users(self) -> list[str]:
        """Return everyone of whom there is an event, sorted."""
        if self.empty():
            return []
        with duckdb.connect() as connection:
            connection.execute("SET threads = 2; SET enable_progress_bar = false")
            found = connection.execute(
                'SELECT DISTINCT "user" FROM read_parquet(?) ORDER BY 1', [self.glob()]
            ).fetchnumpy()
        names: list[str] = found["user"].tolist()
        return names

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
            Pseudonyms to read; None reads everyone.
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
            columns = (map(pa.Array.to_pylist, batch.columns) for batch in reader)
            rows = chain.from_iterable(zip(*each, strict=True) for each in columns)
            for user, group in groupby(rows, key=itemgetter(0)):
                yield user, [EventRecord.decode(record) for _, record in group]


def _read_archived(folder: Path, span: Span) -> set[tuple[int, int, str]]:
    """Return position and event id of every archived event within ``span``, or close to it."""
    parts = [
        str(part)
        for part in folder.glob(f"p{span.partition:03d}-*.parquet")
        if (other := Span.of(part)) and other.after < span.until and other.until > span.after
    ]
    if not parts:
        return set()
    try:
        with duckdb.connect() as connection:
            connection.execute("SET threads = 1; SET enable_progress_bar = false")
            rows = connection.execute(
                "SELECT log_ms, log_seq, event_id FROM read_parquet(?) "
                "WHERE log_ms BETWEEN ? AND ?",
                [parts, span.after.ms, span.until.ms],
            ).fetchall()
    except duckdb.Error as error:
        raise OSError(f"the archive's parts of {span} cannot be read: {error}") from error
    return set(rows)
