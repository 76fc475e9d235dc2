"""Text below the state folder without the erased: files of events, one a line, and logs.

Lines of events are left out. What stands in a log is written over in place, letter for letter: its
writers have it open.
"""

import os
import re
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

import orjson

from feature_repo.archive.part_set import sync
from feature_repo.erasure.raw_ids import RawIds
from feature_repo.erasure.tombstones import alone

_NOT_LINES: Final = (
    "archive", "audit", "erasures", "features", "models", "rejects", "run", "store",
)  # fmt: skip
"""Folders without files of event lines; the audit's name nobody, and are chained by digests."""
_NAMES: Final = re.compile(rb"\{p\d{3}\}[a-z2-7]{26}|[^\s\"',;{}\[\]()<>=:]{6,}")
"""Pseudonyms, and words long enough to be somebody's id and nothing else."""


def list_lines(home: Path) -> Iterator[Path]:
    """Yield the files below ``home`` that begin with an event in the API's form."""
    for above, folders, names in os.walk(home):
        top = Path(above) == home
        folders[:] = [
            name
            for name in folders
            if not (top and name in _NOT_LINES)
            and not (Path(above) / name / "tenant.json").exists()
        ]
        yield from (path for name in sorted(names) if _has_lines(path := Path(above) / name))


def count_lines(path: Path, ids: RawIds) -> int:
    """Return how many lines name somebody."""
    with path.open("rb") as file:
        return sum(_change(line, ids) != line for line in file)


def drop_lines(home: Path, path: Path, ids: RawIds) -> None:
    """Replace a file by one without the lines of somebody's events, with the same mode."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with alone(home), path.open("rb") as old:
            beside.touch(mode=0o600)
            with beside.open("wb") as new:
                new.writelines(_change(line, ids) for line in old)
                new.flush()
                os.fsync(new.fileno())
            beside.chmod(path.stat().st_mode & 0o777)
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync(path.parent)


def overwrite_names(path: Path, names: Collection[bytes]) -> int:
    """Write over every one of ``names`` in a file, in place; return how many there were."""
    found = 0
    with path.open("r+b") as file:
        for match in list(_NAMES.finditer(file.read())):
            if match[0] in names:
                os.pwrite(file.fileno(), b"x" * len(match[0]), match.start())
                found += 1
        if found:
            os.fsync(file.fileno())
    return found


def _has_lines(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.readline(1 << 20)
    return "type" in _object(first)


def _object(line: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(line)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _change(line: bytes, ids: RawIds) -> bytes:
    body = _object(line)
    if not body:
        return b"" if ids.stand_in(line.decode(errors="replace")) else line
    user, anonymous = body.get("user_id"), body.get("anonymous_id")
    theirs = anonymous is not None and ids.is_anonymous(str(anonymous))
    if user is None:
        return b"" if theirs else line
    if ids.is_user(str(user)):
        return b""
    if not theirs:
        return line
    return orjson.dumps({k: v for k, v in body.items() if k != "anonymous_id"}) + b"\n"
