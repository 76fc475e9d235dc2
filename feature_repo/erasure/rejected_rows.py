"""Rows that an import did not accept and that were kept whole: blank where they name the erased.

The row's number and the reason stay, so that the counts of the import add up.
"""

from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.erasure.raw_ids import RawIds

_PLAIN: Final = ("reason", "kind", "column", "detail")
"""Columns that are the importer's own words."""


def count_raw_rows(path: Path, ids: RawIds) -> int:
    """Return how many rows of a file name somebody."""
    with pq.ParquetFile(path) as file:
        groups = map(file.read_row_group, range(file.num_row_groups))
        return sum(sum(_find_named(table, ids)) for table in groups)


def blank_rows(table: pa.Table, ids: RawIds) -> pa.Table:
    """Return a table in which rows that name somebody are empty but for number and reason."""
    named = _find_named(table, ids)
    for at, field in enumerate(table.schema):
        if pa.types.is_string(field.type) and field.name not in _PLAIN:
            values = zip(table[field.name].to_pylist(), named, strict=True)
            blank = pa.array([None if theirs else value for value, theirs in values], field.type)
            table = table.set_column(at, field, blank)
    return table


def _find_named(table: pa.Table, ids: RawIds) -> list[bool]:
    told = [
        table[field.name].to_pylist()
        for field in table.schema
        if pa.types.is_string(field.type) and field.name not in _PLAIN
    ]
    if not told:
        return [False] * table.num_rows
    return [any(value and ids.stand_in(value) for value in row) for row in zip(*told, strict=True)]
