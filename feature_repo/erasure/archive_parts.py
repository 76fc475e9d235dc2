"""The archive without the erased: its present parts, the older generations, and unfinished files.

Present parts are exchanged for rewritten ones in one step, as compaction does it. Older generations
are for readers that have listed them: there each file is replaced under its name, so that none of
them misses a file. Nothing else rewrites parts meanwhile.
"""

import os
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.archive.part_set import PartSet
from feature_repo.erasure.parquet_rows import count_rows, is_in, replace_file, write_changed
from feature_repo.erasure.removal import Removal
from feature_repo.events.schema import EventRecord, now_ms

STORE: Final = "archive"
_COLUMNS: Final = ("user", "linked")
_ATTEMPTS: Final = 30
AGAIN_MS: Final = 60_000


def erase_archive(home: Path, entities: Collection[str]) -> Removal:
    """Rewrite the archive's parts without the events of ``entities``.

    An event of somebody else that names one of them as an anonymous id stays, without it.
    """
    root = home / "archive" / "events"
    if not root.exists():
        return Removal(STORE, 0, 0)
    parts, removed = PartSet(root), 0
    with parts.rewriting():
        parts.sweep_drafts()
        for _ in range(_ATTEMPTS):
            found = _find(parts.folder(), entities)
            if not found:
                break
            if _exchange(parts, list(found), entities):
                removed += sum(found.values())
        left = sum(found.values())
        for folder in parts.older():
            _rewrite_older(folder, entities)
    if not left:
        return Removal(STORE, removed, removed)
    return Removal(
        STORE, removed + left, removed, now_ms() + AGAIN_MS, "others go on adding parts to it"
    )


def _find(folder: Path, entities: Collection[str]) -> dict[Path, int]:
    counted = {p: count_rows(p, entities, _COLUMNS) for p in sorted(folder.glob("*.parquet"))}
    return {path: rows for path, rows in counted.items() if rows}


def _exchange(parts: PartSet, found: list[Path], entities: Collection[str]) -> bool:
    change = partial(_leave_out, entities=entities)
    if not parts.prepare():  # no links here: each part by itself
        for path in found:
            replace_file(path, change)
        return True
    drafts = {path.name: parts.scratch() for path in found}
    try:
        rows = {path.name: write_changed(path, drafts[path.name], change) for path in found}
        # Who listed a folder that was no link reads through it: no name of it goes.
        named = parts.was_plain()
        kept = {name: draft for name, draft in drafts.items() if rows[name] or named}
        return parts.exchange(list(drafts), kept, grace_s=0)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


def _rewrite_older(folder: Path, entities: Collection[str]) -> None:
    before = folder.stat()
    found = _find(folder, entities)
    for path in found:
        replace_file(path, partial(_leave_out, entities=entities))
    if found:  # it goes when it would have gone
        os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def _leave_out(table: pa.Table, entities: Collection[str]) -> pa.Table:
    table = table.filter(pc.invert(is_in(table["user"], entities)))
    if "linked" not in table.column_names:
        return table
    named = is_in(table["linked"], entities)
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
