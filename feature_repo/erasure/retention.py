"""Retention: raw events and rejects older than a bound leave the state folder.

A part that is wholly older goes, the part at the edge is rewritten. Profiles keep what they have
counted: a rebuild leaves a profile as it is whose history is no longer whole. What old events say
about consent stays (`old_statements`): a denial does not end with the event that states it.
"""

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.archive.event_archive import Archive
from feature_repo.erasure import old_statements
from feature_repo.erasure.archive_parts import STORE, Change, Count, rewrite_archive
from feature_repo.erasure.old_statements import Position
from feature_repo.erasure.parquet_rows import is_in, list_parquet
from feature_repo.erasure.removal import Removal
from feature_repo.events.schema import EventRecord

_TIME = pa.timestamp("us", tz="UTC")
_OWNED = ("user", "linked", "time")


def sweep_old(
    home: Path,
    before_ms: int,
    progress: Callable[[int, int], None] | None = None,
    *,
    rejects_before_ms: int | None = None,
    sessions_before_ms: int | None = None,
    dry_run: bool = False,
) -> list[Removal]:
    """Remove events before a moment from the archive, and rejects of imports.

    Parameters
    ----------
    before_ms
        Epoch milliseconds: what is older goes.
    progress
        Told parts rewritten and in all.
    rejects_before_ms
        The same for rejects; None: as ``before_ms``.
    sessions_before_ms
        Events before it lose their ``session_id``; None: they keep it.
    dry_run
        Whether it is only counted.
    """
    bound = _to_time(before_ms)
    links = old_statements.read_first_links(Archive(home / "archive" / "events"), before_ms)
    count = partial(_count_old, bound=bound, links=links)
    change = partial(_keep_young, bound=bound, links=links)
    found = [_rewrite(home, count, change, progress, dry_run=dry_run)]
    if sessions_before_ms is not None:
        edge = _to_time(sessions_before_ms)
        count = partial(_count_sessions, start=bound if dry_run else None, end=edge)
        one = _rewrite(home, count, partial(_drop_sessions, end=edge), progress, dry_run=dry_run)
        found.append(Removal("sessions", one.found, one.removed, one.waits_until_ms, one.note))
    edge_ms = before_ms if rejects_before_ms is None else rejects_before_ms
    old = [p for p in list_parquet(home / "rejects") if p.stat().st_mtime * 1000 < edge_ms]
    for path in old if not dry_run else ():
        path.unlink(missing_ok=True)
    return [*found, Removal("rejects", len(old), len(old), note="files of earlier imports")]


def _to_time(moment_ms: int) -> pa.Scalar:
    return pa.scalar(datetime.fromtimestamp(moment_ms / 1000, UTC), _TIME)


def _rewrite(
    home: Path,
    count: Count,
    change: Change,
    progress: Callable[[int, int], None] | None,
    *,
    dry_run: bool,
) -> Removal:
    if not dry_run:
        return rewrite_archive(home, count, change, progress)
    rows = sum(map(count, Archive(home / "archive" / "events").parts()))
    return Removal(STORE, rows, rows)


def _count_sessions(path: Path, start: pa.Scalar | None, end: pa.Scalar) -> int:
    with pq.ParquetFile(path) as file:
        total = 0
        for number in range(file.num_row_groups):
            if not _may_be_older(file.metadata.row_group(number), end):
                continue
            table = file.read_row_group(number, ["time", "session_id"])
            named = _is_named(table, end)
            if start is not None:  # older ones go as a whole
                named = pc.and_(named, pc.greater_equal(table["time"], start))
            total += int(pc.sum(named).as_py() or 0)
        return total


def _is_named(table: pa.Table, end: pa.Scalar) -> pa.ChunkedArray:
    return pc.and_(pc.fill_null(pc.less(table["time"], end), False), table["session_id"].is_valid())


def _drop_sessions(table: pa.Table, end: pa.Scalar) -> pa.Table:
    named = _is_named(table, end)
    if not pc.any(named).as_py():
        return table
    at = table.column_names.index("session_id")
    kept = pc.if_else(named, pa.scalar(None, table["session_id"].type), table["session_id"])
    records = [
        _without_session(record) if old else record
        for record, old in zip(table["record"].to_pylist(), named.to_pylist(), strict=True)
    ]
    table = table.set_column(at, table.schema.field(at), kept)
    at = table.column_names.index("record")
    return table.set_column(at, table.schema.field(at), pa.array(records, pa.binary()))


def _without_session(data: bytes) -> bytes:
    record = EventRecord.decode(data)
    record.session_id = None
    return record.encode()


def _count_old(path: Path, bound: pa.Scalar, links: Collection[Position]) -> int:
    with pq.ParquetFile(path) as file:
        return sum(
            _count(file, number, bound, links)
            for number in range(file.num_row_groups)
            if _may_be_older(file.metadata.row_group(number), bound)
        )


def _count(file: pq.ParquetFile, number: int, bound: pa.Scalar, links: Collection[Position]) -> int:
    """Return how many rows of a group are old and not yet what is to stay of them."""
    table = file.read_row_group(number, ["time", "type"])
    old = _is_old(table, bound)
    stating = pc.and_(old, pc.equal(table["type"], old_statements.TYPE))
    total = int(pc.sum(old).as_py() or 0)
    if not pc.any(stating).as_py():
        return total
    some = file.read_row_group(number, [*old_statements.COLUMNS]).filter(stating)
    return total - old_statements.count_bare(some, links)


def _is_old(table: pa.Table, bound: pa.Scalar) -> pa.ChunkedArray:
    return pc.fill_null(pc.less(table["time"], bound), False)


def _may_be_older(group: pq.RowGroupMetaData, bound: pa.Scalar) -> bool:
    columns = map(group.column, range(group.num_columns))
    known = next(each for each in columns if each.path_in_schema == "time").statistics
    return known is None or not known.has_min_max or known.min < bound.as_py()


def _keep_young(table: pa.Table, bound: pa.Scalar, links: Collection[Position]) -> pa.Table:
    old = _is_old(table, bound)
    kept = old_statements.reduce(table.filter(old), links)
    young = table.filter(pc.invert(old))
    if not kept.num_rows:
        return young
    order = [(name, "ascending") for name in ("user", "log_ms", "log_seq", "event_id")]
    return pa.concat_tables([young, kept]).sort_by(order)


def drop_statements(home: Path, entities: Collection[str], before_ms: int) -> Removal:
    """Remove what a sweep has left of people whose profiles are gone."""
    bound = _to_time(before_ms)

    def theirs(table: pa.Table) -> pa.ChunkedArray:
        named = is_in(table["user"], entities)
        if "linked" in table.column_names:  # older parts lack it
            named = pc.or_(named, is_in(table["linked"], entities))
        return pc.and_(_is_old(table, bound), named)

    def count(path: Path) -> int:
        return int(pc.sum(theirs(pq.read_table(path, columns=[*_OWNED]))).as_py() or 0)

    one = rewrite_archive(home, count, lambda table: table.filter(pc.invert(theirs(table))))
    return Removal("statements", one.found, one.removed, one.waits_until_ms, one.note)
