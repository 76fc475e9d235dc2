"""Compaction: many small archive parts become few large ones, without a reader noticing.

Belongs here: which parts are merged, and their merged form. That the merged part and the
parts it replaces change places in one step is `feature_repo.archive.part_set`'s. Only parts that
the store knows to be archived are touched (see `services.event_log.archiver`), so an archiver that
writes a part again still finds the one it wrote before.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

import duckdb
import pyarrow.parquet as pq

from feature_repo.archive.event_archive import SCHEMA, Archive, LogPosition, Span
from feature_repo.archive.part_set import GRACE_S, ROW_GROUP_ROWS, part_writer

MANY_PARTS: Final = 64
"""Compaction begins when so many parts can be merged."""
FEWEST: Final = 8
"""So many neighbours of similar size are merged at least: an event is rewritten only as often
as the logarithm of the archive's size says."""
MOST_BYTES: Final = 32 * 1024 * 1024
MOST_ROWS: Final = 200_000
"""Bounds of a merged part, and `MOST_BYTES` of what one run rewrites; a few seconds' work."""
_TIERS: Final = tuple(MOST_BYTES // FEWEST**n for n in (4, 3, 2, 1))
_MEMORY: Final = "256MB"


def compact(
    archive: Archive,
    archived: Mapping[int, LogPosition],
    *,
    many: int | None = None,
    grace_s: float = GRACE_S,
) -> int:
    """Merge small parts, if there are many, and remove what was merged long ago.

    Parameters
    ----------
    archive
        Its parts change; no event in it does.
    archived
        For each partition to look at, how far the store knows its log to be archived.
    many
        Parts that must be there to be merged, else nothing happens; default `MANY_PARTS`.
    grace_s
        How long readers may go on reading parts that were replaced.

    Returns
    -------
    int
        Parts that were replaced by larger ones.
    """
    with archive.part_set.rewriting_if_free() as alone:
        if not alone or not archive.part_set.prepare():
            return 0
        archive.part_set.sweep(grace_s)
        return _compact(archive, archived, MANY_PARTS if many is None else many, grace_s)


def _compact(
    archive: Archive, archived: Mapping[int, LogPosition], many: int, grace_s: float
) -> int:
    parts = archive.parts()
    groups = _groups(parts, archived)
    if sum(map(len, groups)) < many:
        return 0
    names, replaced = {part.name for part in parts}, set[str]()
    merged = dict[str, Path]()
    try:
        for group in _first(groups):
            path = archive.part_set.scratch()
            merged[_name(group, {*merged, *names})] = path
            _merge(group, path)
            replaced.update(part.name for part in group)
        done = archive.part_set.exchange(replaced, merged, grace_s)
    finally:
        for path in merged.values():
            path.unlink(missing_ok=True)
    return len(replaced) if done else 0


def _first(groups: Sequence[list[Path]]) -> Iterator[list[Path]]:
    """Yield as many groups as one run may rewrite, at least one."""
    left = MOST_BYTES
    for group in groups:
        yield group
        left -= sum(part.stat().st_size for part in group)
        if left <= 0:
            return


def _groups(parts: Sequence[Path], archived: Mapping[int, LogPosition]) -> list[list[Path]]:
    """Return the parts to merge: neighbours of one partition, the smallest first."""
    by_partition: dict[int, list[tuple[Span, int, Path]]] = defaultdict(list)
    for part in parts:
        span = Span.of(part)
        if span and span.partition in archived and span.until <= archived[span.partition]:
            by_partition[span.partition].append((span, part.stat().st_size, part))
    groups, taken = list[list[Path]](), set[Path]()
    for tier in _TIERS:
        for rows in by_partition.values():
            rows.sort()
            for run in _runs(rows, tier):
                for group in _cut_run(run):
                    if taken.isdisjoint(group):
                        groups.append(group)
                        taken.update(group)
    return groups


def _runs(rows: Sequence[tuple[Span, int, Path]], most: int) -> Iterator[list[tuple[int, Path]]]:
    """Yield the unbroken runs of parts of at most ``most`` bytes."""
    for small, run in groupby(rows, lambda row: row[1] <= most):
        if small:
            yield [(size, part) for _, size, part in run]


def _cut_run(run: Sequence[tuple[int, Path]]) -> Iterator[list[Path]]:
    """Cut a run of parts into groups that make one part each; too few are left out."""
    if len(run) < FEWEST:
        return
    group, size, rows = list[Path](), 0, 0
    for more, part in run:
        count = pq.read_metadata(part).num_rows
        if group and (size + more > MOST_BYTES or rows + count > MOST_ROWS):
            if len(group) >= FEWEST:
                yield group
            group, size, rows = [], 0, 0
        group.append(part)
        size, rows = size + more, rows + count
    if len(group) >= FEWEST:
        yield group


def _name(group: Sequence[Path], taken: set[str]) -> str:
    spans = [span for part in group if (span := Span.of(part))]
    whole = Span(spans[0].partition, min(s.after for s in spans), max(s.until for s in spans))
    return next(name for name in whole.file_names() if name not in taken)


def _merge(group: Sequence[Path], path: Path) -> None:
    """Write one file with the rows of ``group``, by user, so that one user is found quickly."""
    with duckdb.connect() as connection:
        connection.execute(f"SET threads = 1; SET memory_limit = '{_MEMORY}'")
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("nothing", SCHEMA.empty_table())  # older parts lack newer columns
        connection.execute(f"SET temp_directory = '{path.parent / (path.stem + '.spill')}'")
        reader = connection.sql(
            "SELECT * FROM read_parquet(?, union_by_name = true) "
            'UNION ALL BY NAME SELECT * FROM nothing ORDER BY "user", log_ms, log_seq, event_id',
            params=[[str(part) for part in group]],
        ).to_arrow_reader(ROW_GROUP_ROWS)
        with part_writer(path, SCHEMA) as writer:
            for batch in reader:
                writer.write_batch(batch.select(SCHEMA.names).cast(SCHEMA))
    rows, expected = (
        sum(pq.read_metadata(part).num_rows for part in parts) for parts in ([path], group)
    )
    if rows != expected:
        raise OSError(f"{path.name} holds {rows} of {expected} events: kept the small parts")
