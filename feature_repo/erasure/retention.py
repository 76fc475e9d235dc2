"""Retention: raw events and rejects older than a bound leave the state folder.

A part that is wholly older goes, the part at the edge is rewritten. Profiles keep what they have
counted: a rebuild leaves a profile as it is whose history is no longer whole.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.erasure.archive_parts import rewrite_archive
from feature_repo.erasure.parquet_rows import list_parquet
from feature_repo.erasure.removal import Removal

_TIME = pa.timestamp("us", tz="UTC")


def sweep_old(
    home: Path, before_ms: int, progress: Callable[[int, int], None] | None = None
) -> list[Removal]:
    """Remove events before a moment from the archive, and rejects of imports before it.

    Parameters
    ----------
    before_ms
        Epoch milliseconds: what is older goes.
    progress
        Told parts rewritten and in all.
    """
    bound = pa.scalar(datetime.fromtimestamp(before_ms / 1000, UTC), _TIME)
    count, change = partial(_count_old, bound=bound), partial(_keep_young, bound=bound)
    archive = rewrite_archive(home, count, change, progress)
    old = [p for p in list_parquet(home / "rejects") if p.stat().st_mtime * 1000 < before_ms]
    for path in old:
        path.unlink(missing_ok=True)
    return [archive, Removal("rejects", len(old), len(old), note="files of earlier imports")]


def _count_old(path: Path, bound: pa.Scalar) -> int:
    with pq.ParquetFile(path) as file:
        return sum(
            _count(file.read_row_group(number, ["time"]), bound)
            for number in range(file.num_row_groups)
            if _may_be_older(file.metadata.row_group(number), bound)
        )


def _count(table: pa.Table, bound: pa.Scalar) -> int:
    return int(pc.sum(pc.less(table["time"], bound)).as_py() or 0)


def _may_be_older(group: pq.RowGroupMetaData, bound: pa.Scalar) -> bool:
    columns = map(group.column, range(group.num_columns))
    known = next(each for each in columns if each.path_in_schema == "time").statistics
    return known is None or not known.has_min_max or known.min < bound.as_py()


def _keep_young(table: pa.Table, bound: pa.Scalar) -> pa.Table:
    return table.filter(pc.fill_null(pc.greater_equal(table["time"], bound), True))
