"""Event lines: NDJSON that already has the API's own event form, one event a line.

Belongs here: lines that are no event at all. Validation is the event schema's own.
Not here: tables (`tabular`).
"""

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import orjson
import pandas as pd

from feature_repo.errors import InvalidSourceError
from feature_repo.importers.assemble import USER_MARK, Made
from feature_repo.importers.files import format_of, parts_of, readable
from feature_repo.importers.json_rows import json_lines
from feature_repo.importers.rows import Refused
from feature_repo.importers.source import Chunk, Source, key_of

CHUNK_ROWS: Final = 250_000


def open_events(path: Path, *, keep_raw: bool = False) -> Source:
    """Open NDJSON that already has the API's event form, one event a line.

    Parameters
    ----------
    path
        File, or folder of files.
    keep_raw
        Whether rows can be had whole.

    Raises
    ------
    InvalidSourceError
        If there is no such file, or it is no NDJSON by its name.
    """
    parts = parts_of(path)
    if any(format_of(part, None) != "ndjson" for part in parts):
        raise InvalidSourceError(f"{path} needs --mapping: only NDJSON may go without one")

    def chunks() -> Iterator[Chunk]:
        lines, start = _lines(parts), 0
        while batch := list(islice(lines, CHUNK_ROWS)):
            yield _chunk(batch, start, keep_raw=keep_raw)
            start += len(batch)

    return Source("file", key_of("file", path), 0, chunks())


def _lines(parts: list[Path]) -> Iterator[str]:
    for part in parts:
        with readable(part, "ndjson", "utf-8"):
            yield from json_lines(part, "utf-8")


def _chunk(lines: list[str], start: int, *, keep_raw: bool) -> Chunk:
    made, refused = list[Made](), list[tuple[int, Refused]]()
    for row, line in enumerate(lines, start):
        found = _event(line)
        if isinstance(found, Refused):
            refused.append((row, found))
        else:
            made.append((found, [row]))

    def raw(row: int) -> str | None:
        line = lines[row - start].encode("utf-8", "backslashreplace").decode()
        return line if keep_raw else None

    return Chunk(len(lines), pd.DataFrame(), made, refused, raw=raw)


def _event(line: str) -> dict[str, Any] | Refused:
    try:
        body = orjson.loads(line.encode())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        return Refused("malformed_json", None, "the line is no JSON object")
    for name in ("id", "order_id"):
        if USER_MARK in str(body.get(name, "")):
            return Refused("control_character", name, "U+001E stands in it")
    body.setdefault("source", "file")
    if body.get("id") is None:
        digest = hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
        body["id"] = f"file-{digest[:32]}"
    return body
