"""Arrow columns to the bytes of Feast's ``Value`` protobufs, a whole column at a time.

Pure encoding: a column in, as many byte strings out, each what ``Value.SerializeToString``
gives for that row. Which view a column belongs to, and where the bytes go, is said in
`materialize_engine`.
"""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Bytes: TypeAlias = pa.LargeBinaryArray

_VARINT_BYTES: Final = 10
_EMPTY: Final = pa.scalar(b"", pa.large_binary())


def values(column: pa.Array) -> Bytes:
    r"""Return each row of a column as a serialized ``feast.types.Value``.

    Parameters
    ----------
    column
        Int64, float64, string, binary, or lists of float64 or string.

    Returns
    -------
    pyarrow.LargeBinaryArray
        One value a row, none null: null and NaN become the empty ``Value``, as with Feast.

    Raises
    ------
    TypeError
        If there is no encoding for the column's type.

    Examples
    --------
    >>> import pyarrow as pa
    >>> values(pa.array([1, 300, None])).to_pylist()
    [b' \x01', b' \xac\x02', b'']
    """
    encode = _ENCODERS.get(column.type)
    if encode is None:
        raise TypeError(f"no encoding for a column of {column.type}")
    return pc.fill_null(encode(column), _EMPTY)


def timestamps(column: pa.Array) -> Bytes:
    """Return each row of a timestamp column as a ``google.protobuf.Timestamp``.

    Parameters
    ----------
    column
        Timestamps of any unit, with a zone or in UTC, none null.
    """
    zone = pa.timestamp("ns", column.type.tz)
    nanos = column.cast(zone, safe=True).cast(pa.int64()).to_numpy()
    seconds, rest = np.divmod(nanos, 1_000_000_000)
    # proto3 leaves out a field that is 0
    parts = [
        pc.if_else(pa.array(number != 0), join_parts(tag, varints(number)), _EMPTY)
        for tag, number in ((b"\x08", seconds), (b"\x10", rest))
    ]
    return join_parts(*parts)


def varints(numbers: npt.NDArray[Any]) -> Bytes:
    """Return integers, shape (n,), as protobuf varints; negative ones take ten bytes."""
    left: npt.NDArray[np.uint64] = numbers.astype(np.int64, copy=False).view(np.uint64)
    most = int(left.max(initial=0))
    width = max(1, -(-most.bit_length() // 7))
    if width == 1:
        return _pack(np.arange(len(left) + 1), left.astype(np.uint8))
    shifts = np.arange(0, 7 * width, 7, dtype=np.uint64)
    groups = left[:, None] >> shifts
    more = np.zeros(groups.shape, dtype=bool)
    more[:, :-1] = groups[:, 1:] != 0
    made = (groups & np.uint64(0x7F) | more.astype(np.uint64) << np.uint64(7)).astype(np.uint8)
    there = np.ones(groups.shape, dtype=bool)
    there[:, 1:] = more[:, :-1]
    return _pack(np.concatenate([[0], np.cumsum(there.sum(axis=1))]), made[there])


def frame_values(column: Bytes) -> Bytes:
    """Return each byte string behind its length as a varint; null stays null."""
    lengths = pc.fill_null(pc.binary_length(column), 0).to_numpy()
    return join_parts(varints(lengths), column)


def join_parts(*parts: Bytes | bytes) -> Bytes:
    """Return, for each row, the parts behind one another; bytes stand in every row.

    A row with a null part is null.
    """
    arrow_type = pa.large_binary()
    made = (pa.scalar(part, arrow_type) if isinstance(part, bytes) else part for part in parts)
    return pc.binary_join_element_wise(*made, _EMPTY)


def _pack(offsets: npt.NDArray[Any], data: npt.NDArray[np.uint8]) -> Bytes:
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(),
        len(offsets) - 1,
        [None, pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(np.ascontiguousarray(data))],
    )


def _make_tagger(tag: bytes) -> Callable[[pa.Array], Bytes]:
    def encode(column: pa.Array) -> Bytes:
        return join_parts(tag, frame_values(column.cast(pa.large_binary())))

    return encode


def _integers(column: pa.Array) -> Bytes:
    made = join_parts(b"\x20", varints(pc.fill_null(column, 0).to_numpy()))
    return _where(column.is_valid(), made)


def _doubles(column: pa.Array) -> Bytes:
    numbers = pc.fill_null(column, 0.0)
    fixed = pa.Array.from_buffers(
        pa.binary(8), len(numbers), [None, pa.py_buffer(_little_endian(numbers))]
    )
    made = join_parts(b"\x29", fixed.cast(pa.large_binary()))
    return _where(pc.fill_null(pc.invert(pc.is_nan(column)), fill_value=False), made)


def _double_lists(column: pa.Array) -> Bytes:
    flat, ends = _flatten(column)
    packed = _pack(ends * 8, _little_endian(flat).view(np.uint8))
    inner = join_parts(b"\x0a", frame_values(packed))
    return _list(column, b"\x7a", _where(pa.array(np.diff(ends) > 0), inner))


def _string_lists(column: pa.Array) -> Bytes:
    flat, ends = _flatten(column)
    elements = join_parts(b"\x0a", frame_values(flat.cast(pa.large_binary())))
    offsets = np.frombuffer(elements.buffers()[1], dtype=np.int64)[: len(elements) + 1]
    data = np.frombuffer(elements.buffers()[2] or b"", dtype=np.uint8)
    return _list(column, b"\x62", _pack(offsets[ends], data))


def _list(column: pa.Array, tag: bytes, inner: Bytes) -> Bytes:
    made = join_parts(tag, frame_values(pc.fill_null(inner, _EMPTY)))
    return _where(column.is_valid(), made)


def _flatten(column: pa.Array) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Return the lists' elements and where each list begins and ends, shape (n + 1,)."""
    flat = column.flatten()
    if flat.null_count:  # as Feast's local engine does
        flat = pc.fill_null(flat, "" if pa.types.is_string(flat.type) else float("nan"))
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    return flat, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _little_endian(numbers: pa.Array) -> npt.NDArray[np.float64]:
    return np.ascontiguousarray(numbers.to_numpy(zero_copy_only=False), dtype="<f8")


def _where(there: pa.Array, made: Bytes) -> Bytes:
    return pc.if_else(there, made, pa.scalar(None, pa.large_binary()))


_ENCODERS: Final[dict[pa.DataType, Callable[[pa.Array], Bytes]]] = {
    pa.int64(): _integers,
    pa.float64(): _doubles,
    pa.string(): _make_tagger(b"\x12"),
    pa.large_string(): _make_tagger(b"\x12"),
    pa.binary(): _make_tagger(b"\x0a"),
    pa.large_binary(): _make_tagger(b"\x0a"),
    pa.list_(pa.float64()): _double_lists,
    pa.list_(pa.string()): _string_lists,
}
