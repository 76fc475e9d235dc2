"""The archive without the erased: its present parts, the older generations, and unfinished files.

Present parts are exchanged for rewritten ones in one step, as compaction does it. Older generations
are for readers that have listed them: there each file is replaced under its name, so that none of
them misses a file. Nothing else rewrites parts meanwhile.
"""

import os
import secrets
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.archive.part_set import PartSet, sync
from feature_repo.erasure.parquet_rows import count_rows, is_in, replace_file, write_changed
from feature_repo.erasure.removal import Removal
from feature_repo.events.schema import EventRecord, now_ms

STORE: Final = "archive"
_COLUMNS: Final = ("user", "linked")
_ATTEMPTS: Final = 30
AGAIN_MS: Final = 60_000


Count = Callable[[Path], int]
"""Returns how many rows of a part are to be changed or left out."""
Change = Callable[[pa.Table], pa.Table]


def erase_archive(home: Path, entities: Collection[str]) -> Removal:
    """Rewrite the archive's parts without the events of ``entities``.

    An event of somebody else that names one of them as an anonymous id stays, without it.
    """
    count = partial(count_rows, entities=entities, columns=_COLUMNS)
    return rewrite_archive(home, count, partial(_leave_out, entities=entities))


def rewrite_archive(
    home: Path, count: Count, change: Change, progress: Callable[[int, int], None] | None = None
) -> Removal:
    """Replace every part in which there is something to change; one left without rows goes.

    Parameters
    ----------
    progress
        Told parts rewritten and in all.
    """
    root = home / "archive" / "events"
    if not root.exists():
        return Removal(STORE, 0, 0)
    parts, removed = PartSet(root), 0
    count = _count_once(count)
    rewritten = dict[int, Path]()
    with parts.rewriting():
        parts.sweep_drafts()
        for _ in range(_ATTEMPTS):
            found = _find(parts.folder(), count)
            if not found:
                break
            numbers = {path.stat().st_ino: path.name for path in found}
            if _exchange(parts, list(found), change, progress):
                removed += sum(found.values())
                rewritten |= {n: parts.folder() / name for n, name in numbers.items()}
        left = sum(found.values())
        for folder in parts.older():
            _rewrite_older(folder, parts.folder(), rewritten, count, change)
    if not left:
        return Removal(STORE, removed, removed)
    return Removal(
        STORE, removed + left, removed, now_ms() + AGAIN_MS, "others go on adding parts to it"
    )


def _count_once(count: Count) -> Count:
    """Return ``count`` that reads a file once, in however many generations it stands."""
    known = dict[tuple[int, int, int], int]()

    def count_known(path: Path) -> int:
        status = path.stat()
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)  # a number may be taken again
        if stamp not in known:
            known[stamp] = count(path)
        return known[stamp]

    return count_known


def _find(folder: Path, count: Count) -> dict[Path, int]:
    counted = {path: count(path) for path in sorted(folder.glob("*.parquet"))}
    return {path: rows for path, rows in counted.items() if rows}


def _exchange(
    parts: PartSet,
    found: Sequence[Path],
    change: Change,
    progress: Callable[[int, int], None] | None,
) -> bool:
    if not parts.prepare():  # no links here: each part by itself
        for path in found:
            replace_file(path, change)
        return True
    drafts, rows = {path.name: parts.scratch() for path in found}, dict[str, int]()
    try:
        for number, path in enumerate(found):
            if progress is not None:
                progress(number, len(found))
            rows[path.name] = write_changed(path, drafts[path.name], change)
        # Who listed a folder that was no link reads through it: no name of it goes.
        named = parts.was_plain()
        kept = {name: draft for name, draft in drafts.items() if rows[name] or named}
        return parts.exchange(list(drafts), kept, grace_s=0)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


def _rewrite_older(
    folder: Path, present: Path, rewritten: dict[int, Path], count: Count, change: Change
) -> None:
    """Replace files of an older generation, by the present ones where these were made of them."""
    before, sound = folder.stat(), {path.stat().st_ino for path in present.glob("*.parquet")}
    for path in sorted(folder.glob("*.parquet")):
        number = path.stat().st_ino
        if number in sound:
            continue
        new = rewritten.get(number)
        if new is not None and new.exists():
            beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
            beside.hardlink_to(new)
            beside.replace(path)
        elif count(path):
            replace_file(path, change)
            rewritten[number] = path  # it stands in other generations too
    sync(folder)
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))  # it goes when it would have


def _leave_out(table: pa.Table, entities: Collection[str]) -> pa.Table:
    table = table.filter(pc.invert(is_in(table["user"], entities)))
    if "linked" not in table.column_names:
        return table
    return unlink_rows(table, is_in(table["linked"], entities))


def unlink_rows(table: pa.Table, named: Any) -> pa.Table:
    """Return a table of events of which those of a mask name no anonymous id any more."""
    if not pc.any(named).as_py():
        return table
    at = table.column_names.index("linked")
    linked = pc.if_else(named, pa.scalar(None, pa.string()), table["linked"])
    records = [
        _unlink(record) if theirs else record
        for record, theirs in zip(table["record"].to_pylist(), named.to_pylist(), strict=True)
    ]
    table = table.set_column(at, table.schema.field(at), linked)
    at = table.column_names.index("record")
    return table.set_column(at, table.schema.field(at), pa.array(records, pa.binary()))


def _unlink(data: bytes) -> bytes:
    record = EventRecord.decode(data)
    record.linked = None
    return record.encode()
