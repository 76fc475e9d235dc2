"""Parquet as rows: every type as exact text, without a way through floats.

Belongs here: Arrow types. Not here: what the cells mean.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as types

from feature_repo.importers.csv_rows import index_of
from feature_repo.importers.json_rows import float_text
from feature_repo.importers.mapping import Mapping
from feature_repo.importers.rows import FileRow, Refused

_BATCH_ROWS: Final = 65_536
_FLOAT_BITS: Final = {16: 2**11, 32: 2**24, 64: 2**53}
"""Bits of a float type and from where on it no longer tells whole numbers apart."""

_Cell = str | Refused | None


def read_parquet(
    path: Path, mapping: Mapping, names: Sequence[str], *, raw: bool
) -> Iterator[FileRow]:
    """Yield the rows of a Parquet file; ``outer.inner`` is a field of a struct.

    Parameters
    ----------
    path
        File.
    mapping
        Names the field of a column that lacks.
    names
        Columns wanted.
    raw
        Whether each row comes whole as well.
    """
    with pq.ParquetFile(path) as file:
        schema = _flat(file.schema_arrow.empty_table()).schema
        for name in names:
            index_of(name, schema.names, path, mapping)
        roots = None if raw else _roots(file.schema_arrow.names, names)
        for batch in file.iter_batches(_BATCH_ROWS, columns=roots):
            flat = _flat(pa.Table.from_batches([batch]))
            told = {
                name: _cells(flat.column(index).combine_chunks(), name)
                for index, name in _name_columns(flat.column_names)
                if raw or name in names
            }
            for at, row in enumerate(zip(*(told[name] for name in names), strict=True)):
                yield _row(row, _json(told, at) if raw else None)


def _name_columns(names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield index and name; a name again gets its index, as a column not mapped may."""
    for index, name in enumerate(names):
        yield index, name if names.index(name) == index else f"{name} ({index + 1})"


def _row(cells: tuple[_Cell, ...], raw: str | None) -> FileRow:
    plain = tuple([cell for cell in cells if not isinstance(cell, Refused)])
    if len(plain) < len(cells):
        return FileRow((), next(cell for cell in cells if isinstance(cell, Refused)), raw)
    return FileRow(plain, None, raw)


def _json(told: dict[str, list[_Cell]], at: int) -> str:
    cells = {name: column[at] for name, column in told.items()}
    return orjson.dumps({n: c if isinstance(c, str) else None for n, c in cells.items()}).decode()


def _roots(top: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the columns of the file that hold the columns wanted."""
    return [r for r in top if any(name == r or name.startswith(f"{r}.") for name in names)]


def _flat(table: pa.Table) -> pa.Table:
    while any(types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    return table


def _cells(column: pa.Array, name: str) -> list[_Cell]:
    """Return text, None or a refusal for every value of a column."""
    column = _bare(column)
    of = column.type
    if types.is_boolean(of):
        return [None if value is None else str(value) for value in column.to_pylist()]
    if types.is_floating(of):
        return [_float(value, of.bit_width) for value in _float_texts(column)]
    if types.is_timestamp(of) and of.tz is not None:
        # By its count since 1970: naming the zone would need a time zone database.
        plain = column.cast(pa.int64()).cast(pa.timestamp(of.unit))
        moments = _cells(plain, name)
        return [f"{moment}Z" if isinstance(moment, str) else moment for moment in moments]
    if _is_bytes(of):
        return [_decode(value, name) for value in column.cast(pa.large_binary()).to_pylist()]
    if types.is_temporal(of):
        beyond = Refused("not_text", name, f"a {of} beyond the calendar")
        dates = column.cast(pa.string()).to_pylist()
        return [beyond if text and text.startswith("<") else text for text in dates]
    try:
        texts: list[_Cell] = column.cast(pa.string()).to_pylist()
    except pa.ArrowNotImplementedError:
        refused = Refused("nested_value", name, f"values of type {of} are not read")
        return [refused if there else None for there in column.is_valid().to_pylist()]
    return texts


def _bare(column: pa.Array) -> pa.Array:
    """Return the values themselves: without dictionary, run ends or extension."""
    if isinstance(column, pa.ExtensionArray):
        if column.type.extension_name == "arrow.uuid":
            return pa.array(
                [None if v is None else str(v) for v in column.to_pylist()], pa.string()
            )
        return _bare(column.storage)
    if types.is_dictionary(column.type):
        return _bare(column.dictionary_decode())
    if types.is_run_end_encoded(column.type):
        return _bare(pc.run_end_decode(column))
    return column


def _is_bytes(of: pa.DataType) -> bool:
    return any(
        is_it(of)
        for is_it in (
            types.is_string, types.is_large_string, types.is_string_view, types.is_binary,
            types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary,
        )
    )  # fmt: skip


def _decode(value: bytes | None, name: str) -> _Cell:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return Refused("not_text", name, "bytes that are no UTF-8")


def _float_texts(column: pa.Array) -> list[str | None]:
    if column.type == pa.float16():  # has no text of its own
        column = column.cast(pa.float32())
    texts: list[str | None] = column.cast(pa.string()).to_pylist()
    return texts


def _float(text: str | None, bits: int) -> str | None:
    if text is None or math.isnan(float(text)):
        return None
    return float_text(text, _FLOAT_BITS[bits])
