"""A search for what must be gone: every byte below a folder, and all that can be unpacked from it.

Parquet columns (nested ones and bytes too), zip members (``.npz``, ``.pt``), gzip and zstd streams
are searched as what they hold, at any depth; names of files and folders as well.
"""

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_ENCODINGS = ("utf-8", "utf-16-le", "utf-32-le")  # numpy keeps text in the last


def search(folder: Path, needles: Iterable[str | bytes]) -> list[str]:
    """Return where below ``folder`` a needle stands, as ``file: needle``, sorted."""
    wanted = dict[bytes, str]()
    for needle in needles:
        if isinstance(needle, bytes):
            wanted[needle] = repr(needle)
        else:
            wanted |= {needle.encode(encoding): needle for encoding in _ENCODINGS}
    found = set[str]()
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found |= {f"{name}: {said}" for data, said in wanted.items() if data in name.encode()}
        if path.is_file():
            try:
                whole = path.read_bytes()
            except FileNotFoundError:  # of somebody who still writes
                continue
            for data in unpack(whole):
                found |= {f"{name}: {said}" for needle, said in wanted.items() if needle in data}
    return sorted(found)


def unpack(data: bytes, depth: int = 4) -> Iterator[bytes]:
    """Yield bytes as they stand, and everything that is packed in them."""
    yield data
    if depth:
        for inner in _inner(data):
            yield from unpack(inner, depth - 1)


def _inner(data: bytes) -> Iterator[bytes]:
    if data[:4] == b"PAR1" and data[-4:] == b"PAR1":
        file = pq.ParquetFile(pa.BufferReader(data))
        for group in range(file.num_row_groups):
            for column in file.read_row_group(group).columns:
                for chunk in column.chunks:
                    yield from (bytes(buffer) for buffer in chunk.buffers() if buffer is not None)
                if pa.types.is_binary(column.type):
                    yield from filter(None, column.to_pylist())
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            yield from (packed.read(name) for name in packed.namelist())
    elif data[:2] == b"\x1f\x8b":
        try:
            yield gzip.decompress(data)
        except (OSError, EOFError, zlib.error):  # cut off: what can be read of it
            yield zlib.decompressobj(31).decompress(data)
    elif data[:4] == b"\x28\xb5\x2f\xfd":
        yield pa.input_stream(pa.BufferReader(data), compression="zstd").read()
