"""Erasures as they are kept below the state folder: what was asked, how far it is, the receipt.

One file an erasure, written beside and renamed, so that whoever is killed leaves a whole one. It
names pseudonyms only; the ids themselves lie beside it until the erasure is done. Belongs here:
reading and writing them. Carrying them out is `worker`'s.
"""

import os
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from feature_repo.erasure import tombstones
from feature_repo.erasure.removal import Removal

FOLDER: Final = "requests"
BEGUN_MS: Final = 30_000
"""For so long it is still the gateway's to hand one over."""
ID: Final = re.compile(r"er-[0-9]{13}-[0-9a-f]{8}")


class StoredErasure(msgspec.Struct):
    """One erasure.

    Attributes
    ----------
    id
        Its name; the later one was asked for later.
    requested_ms, done_ms
        When it was asked for and done, epoch milliseconds; 0: not yet.
    suppress
        Whether the ids stay refused for ever.
    users
        Pseudonyms of the ids that were named: users, and visitors of the same names.
    linked
        Anonymous ids that were found to be theirs.
    stage
        ``asked``; ``removed`` once nothing of them is in the store and in files; ``done``.
    stores
        What was found and removed, by place.
    together
        How many erasures were carried out at once: what was found is that of all of them.
    named
        How many ids were named; 0 in older files, where it is as many as ``users``.
    took_s
        Seconds by stage: ``wait`` for a worker, ``log``, ``store``, ``files``, ``store_files``.
    """

    id: str
    requested_ms: int
    suppress: bool
    users: list[str]
    linked: list[str] = []
    stage: Literal["asked", "removed", "done"] = "asked"
    done_ms: int = 0
    stores: list[Removal] = []
    together: int = 1
    named: int = 0
    took_s: dict[str, float] = {}

    @property
    def entities(self) -> frozenset[str]:
        """All their pseudonyms."""
        return frozenset(self.users).union(self.linked)

    def note(self, removals: Iterable[Removal]) -> None:
        """Add to what was found: a step that is repeated finds what an earlier one left."""
        known = {one.store: one for one in self.stores}
        for one in removals:
            before = known.get(one.store)
            known[one.store] = one if before is None else Removal(
                one.store, before.found + one.found, before.removed + one.removed,
                one.waits_until_ms, one.note or before.note,
            )  # fmt: skip
        self.stores = list(known.values())

    def add_time(self, stage: str, seconds: float) -> None:
        """Add to what a stage took: one that is repeated takes as long again."""
        self.took_s[stage] = round(self.took_s.get(stage, 0.0) + seconds, 3)


def create(
    home: Path, users: Sequence[str], ids: Sequence[str], *, suppress: bool
) -> StoredErasure:
    """Keep a new erasure, durable when this returns, its tombstones too.

    Parameters
    ----------
    users
        Pseudonyms.
    ids
        The ids that were named, as long as it is not done.
    """
    now_ms = time.time_ns() // 1_000_000
    made = StoredErasure(
        f"er-{now_ms:013d}-{secrets.token_hex(4)}", now_ms, suppress, sorted(set(users)),
        named=len(set(ids)),
    )  # fmt: skip
    _write(_folder(home) / f"{made.id}.ids", msgspec.json.encode(sorted(set(ids))))
    write(home, made)
    tombstones.add(home, made.users)  # after what names them: see `list_settled`
    return made


def list_settled(home: Path) -> frozenset[str]:
    """Return the tombstones but those of a request that a gateway has just begun.

    It puts these into the store itself, and counts the rows that go with them.
    """
    gone, since_ms = tombstones.read(home), time.time_ns() // 1_000_000 - BEGUN_MS
    for name in names(home):
        found = read(home, name)
        if found is None or found.requested_ms < since_ms:
            break
        if found.stage == "asked" and not found.stores:
            gone -= found.entities
    return gone


def find_open(home: Path, since_ms: int) -> frozenset[str]:
    """Return whom erasures name that were requested since then and have removed nobody yet."""
    found = set[str]()
    for name in names(home):
        one = read(home, name)
        if one is not None and one.requested_ms < since_ms:
            break
        if one is not None and one.stage == "asked":
            found |= one.entities
    return frozenset(found)


def find_written(home: Path, since_ms: int) -> frozenset[str]:
    """Return whom erasures name of which something was written down since a moment.

    Before tombstones are lifted that a run has put, it writes down how far it is.
    """
    found = set[str]()
    for path in (home / tombstones.FOLDER / FOLDER).glob("er-*.json"):
        if path.stat().st_mtime_ns // 1_000_000 >= since_ms:
            one = read(home, path.stem)
            found |= one.entities if one is not None else frozenset()
    return frozenset(found)


def write(home: Path, erasure: StoredErasure) -> None:
    """Keep an erasure as it is now; of one that is done the ids go."""
    if erasure.stage == "done":
        (_folder(home) / f"{erasure.id}.ids").unlink(missing_ok=True)
    _write(_folder(home) / f"{erasure.id}.json", msgspec.json.encode(erasure))


def read(home: Path, name: str) -> StoredErasure | None:
    """Return an erasure by its id, None if there is none."""
    if not ID.fullmatch(name):
        return None
    try:
        data = (home / tombstones.FOLDER / FOLDER / f"{name}.json").read_bytes()
    except FileNotFoundError:
        return None
    return msgspec.json.decode(data, type=StoredErasure)


def read_ids(home: Path, name: str) -> frozenset[str]:
    """Return the ids that an erasure named; none once it is done."""
    try:
        data = (home / tombstones.FOLDER / FOLDER / f"{name}.ids").read_bytes()
    except FileNotFoundError:
        return frozenset()
    return msgspec.json.decode(data, type=frozenset[str])


def names(home: Path) -> list[str]:
    """Return the ids of all erasures, the latest first."""
    found = (home / tombstones.FOLDER / FOLDER).glob("er-*.json")
    return sorted((path.stem for path in found), reverse=True)


def list_done(home: Path) -> list[tuple[int, int]]:
    """Return of each erasure that is done when that was, and how many ids it named."""
    found = (read(home, name) for name in names(home))
    return [(one.done_ms, one.named or len(one.users)) for one in found if one and one.done_ms]


def _folder(home: Path) -> Path:
    folder = home / tombstones.FOLDER / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _write(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
