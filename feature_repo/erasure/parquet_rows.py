"""Rows of the erased in Parquet files: counted, and left out of a file that replaces the old one.

A file appears whole or not at all, with the mode that it had. One that has none of them is not
written again; row groups are passed over by their statistics. Not here: which files.
"""

import os
import secrets
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.archive.part_set import part_writer, sync

OWNERS: Final = ("user", "entity")
"""Columns that say by pseudonym whose a row is."""


def count_rows(path: Path, entities: Collection[str], columns: Sequence[str] = OWNERS) -> int:
    """Return how many rows name one of ``entities`` in one of ``columns``."""
    wanted = sorted(entities)
    with pq.ParquetFile(path) as file:
        names = [name for name in columns if _is_text(file.schema_arrow, name)]
        if not names:
            return 0
        return sum(
            _count(file.read_row_group(number, names), wanted)
            for number in range(file.num_row_groups)
            if any(_may_hold(file, number, name, wanted) for name in names)
        )


def drop_owned(table: pa.Table, entities: Collection[str]) -> pa.Table:
    """Return a table without the rows that are somebody's of ``entities``."""
    for name in OWNERS:
        if entities and _is_text(table.schema, name):
            table = table.filter(pc.invert(is_in(table[name], entities)))
    return table


def replace_file(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Put a changed file into the place of a Parquet file."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        write_changed(path, beside, change)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync(path.parent)


def write_changed(path: Path, target: Path, change: Callable[[pa.Table], pa.Table]) -> int:
    """Write a durable copy of a Parquet file, changed row group by row group; return its rows."""
    target.touch(mode=0o600)
    rows = 0
    with pq.ParquetFile(path) as file, part_writer(target, file.schema_arrow) as writer:
        for number in range(file.num_row_groups):
            table = change(file.read_row_group(number))
            writer.write_table(table)
            rows += table.num_rows
    target.chmod(path.stat().st_mode & 0o777)
    return rows


def is_in(column: pa.ChunkedArray, entities: Collection[str]) -> Any:
    """Return for each value whether it is one of ``entities``; nothing never is."""
    values = pa.array(sorted(entities), pa.string())
    return pc.is_in(column.cast(pa.string()), value_set=values)


def list_parquet(folder: Path) -> Iterator[Path]:
    """Yield the Parquet files below a folder, but not those of another state folder in it."""
    for above, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not (Path(above) / f / "tenant.json").exists()]
        yield from (Path(above) / n for n in sorted(names) if n.endswith(".parquet"))


def _is_text(schema: pa.Schema, name: str) -> bool:
    """Say whether there is such a column, of a type that pseudonyms have."""
    if name not in schema.names:
        return False
    kept = schema.field(name).type
    kept = kept.value_type if pa.types.is_dictionary(kept) else kept
    return bool(pa.types.is_string(kept) or pa.types.is_large_string(kept))


def _count(table: pa.Table, wanted: Sequence[str]) -> int:
    masks = [is_in(column, wanted) for column in table.columns]
    mask = masks[0] if len(masks) == 1 else pc.or_(*masks)
    return int(pc.sum(mask).as_py() or 0)


def _may_hold(file: pq.ParquetFile, number: int, name: str, wanted: Sequence[str]) -> bool:
    group = file.metadata.row_group(number)
    at = next((n for n in range(group.num_columns) if group.column(n).path_in_schema == name), None)
    known = None if at is None else group.column(at).statistics
    if known is None or not known.has_min_max:
        return at is None or known is None or known.null_count != group.num_rows
    first = bisect_left(wanted, known.min)
    return first < len(wanted) and wanted[first] <= known.max
