"""Files: the parts of a path, unpacked and decoded, and one line about one that cannot be read.

Belongs here: folders of parts, compression, encodings. Not here: what stands in a file
(`csv_rows`, `json_rows`, `arrow_rows`).
"""

import codecs
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NoReturn, cast

import pyarrow as pa

from feature_repo.errors import InvalidSourceError

_FORMATS: Final = {
    ".csv": "csv", ".parquet": "parquet", ".ndjson": "ndjson", ".jsonl": "ndjson",
}  # fmt: skip
_PACKED: Final = (".gz", ".zst")
_ENDINGS: Final = (*_FORMATS, *_PACKED, ".txt", ".tsv", ".dat", ".json")
"""What is no part of a table's name."""
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_HEAD_BYTES: Final = 1 << 16
_STATED_ORDER: Final = ("utf-16-le", "utf-16-be")
_WHOLE_UNITS: Final = ("utf-16", "utf-32")
"""Encodings in which a wrong byte cannot be kept for a later look."""


def parts_of(path: Path) -> list[Path]:
    """Return the file, or the files of a folder by name; ``_…`` and ``.…`` are no parts.

    Links to files are followed, links to folders are not: they may lead round in a circle.

    Raises
    ------
    InvalidSourceError
        If there is no such file, or the folder has none, or something that cannot be read.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InvalidSourceError(f"{path} does not exist or is no file or folder: check the path")
    found = list[Path]()
    for folder, below, names in os.walk(path, onerror=_no_folder):
        below[:] = [name for name in below if not name.startswith(("_", "."))]
        parts = [Path(folder, name) for name in names if not name.startswith(("_", "."))]
        for part in (*parts, *(Path(folder, name) for name in below)):
            _check_part(part)
        found += parts
    if not found:
        raise InvalidSourceError(f"{path} is a folder without files: check the path")
    return sorted(found)


def _check_part(part: Path) -> None:
    if part.is_symlink() and not part.is_file():
        missing = "folder" if part.is_dir() else "file that is not there"
        raise InvalidSourceError(
            f"{part} is a link to a {missing}: put what it leads to in its place, or take it away"
        )
    if not part.is_file() and not part.is_dir():
        raise InvalidSourceError(f"{part} is neither file nor folder: take it away")


def name_of(path: Path) -> str:
    """Return the name of a table: that of its file or folder without the endings of a format.

    Examples
    --------
    >>> name_of(Path("shop.csv.gz")), name_of(Path("2024.01")), name_of(Path("a/b/.."))
    ('shop', '2024.01', 'a')
    """
    name = Path(os.path.abspath(path)).name  # noqa: PTH100 - a link keeps its own name
    while (ending := Path(name).suffix) and ending.lower() in _ENDINGS:
        name = name.removesuffix(ending)
    return name


def _no_folder(error: OSError) -> NoReturn:
    raise InvalidSourceError(
        f"{error.filename} cannot be read ({error.strerror}): "
        "its files would be missing; let it be read, or move it away"
    ) from None


def format_of(path: Path, stated: str | None) -> str:
    """Return ``csv``, ``parquet`` or ``ndjson``: what is stated, else by the name's ending."""
    name = Path(path.stem) if path.suffix.lower() in _PACKED else path
    found = stated or _FORMATS.get(name.suffix.lower())
    if found is None:
        raise InvalidSourceError(
            f"{path.name} ends in none of {', '.join(_FORMATS)} (nor those with "
            f"{' or '.join(_PACKED)} after them): set format in the mapping"
        )
    return found


@contextmanager
def open_text(path: Path, encoding: str) -> Iterator[io.TextIOWrapper]:
    """Open a file as text, unpacked; lines end at line feeds, or at returns if it has no other.

    A byte that the encoding does not know becomes a lone surrogate, so that the row that has it
    can be told from others; a byte order mark at the start is dropped.
    """
    with _unpack(path) as file:
        head = file.read(_HEAD_BYTES)
    if encoding == "utf-8" and head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InvalidSourceError(f"{path} begins like UTF-16: set encoding: utf-16 in the mapping")
    if encoding in _STATED_ORDER and head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"  # which drops the mark
    strict = encoding.startswith(_WHOLE_UNITS)
    with (
        _unpack(path) as file,
        io.TextIOWrapper(
            file,
            encoding="utf-8-sig" if encoding == "utf-8" else encoding,
            errors="strict" if strict else "surrogateescape",
            newline="\r" if b"\r" in head and b"\n" not in head else "\n",
        ) as text,
    ):
        yield text


def _unpack(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        magic = file.read(4)
    if magic.startswith(_GZIP):
        return cast("BinaryIO", gzip.open(path, "rb"))
    if magic == _ZSTD:
        return cast("BinaryIO", io.BufferedReader(pa.input_stream(str(path), compression="zstd")))
    return path.open("rb")


@contextmanager
def readable(path: Path, file_format: str, encoding: str) -> Iterator[None]:
    """Turn what goes wrong in reading a file into one line about it.

    Raises
    ------
    InvalidSourceError
        With the file and the cause.
    """
    try:
        yield
    except UnicodeError as error:
        raise InvalidSourceError(
            f"{path} is not {encoding}{_wrong_byte(path, encoding, error)}: "
            "set encoding in the mapping"
        ) from None
    except (OSError, EOFError, zlib.error, pa.ArrowException, ValueError) as error:
        detail = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise InvalidSourceError(f"{path} cannot be read as {file_format}: {detail}") from None


def _wrong_byte(path: Path, encoding: str, error: UnicodeError) -> str:
    """Say where: a reader's own error counts from the start of its buffer."""
    try:
        with _unpack(path) as file:
            file.read().decode(encoding)
    except UnicodeDecodeError as whole:
        return f" at byte {whole.start:,} ({whole.reason})"
    except UnicodeError as whole:
        return f" ({whole})"
    return f" ({error})"
