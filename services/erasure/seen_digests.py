"""Digests of event ids of the erased: a store that is restored forgets these ids once more by them.

An event id often holds a user's own, and the store knows ids for some days. A backup of these days
knows them too, when neither log nor archive can say any more whose they were. Keyed with the key of
``tenant.json``, as pseudonyms are; gone when no store can know the ids any more.
"""

import hmac
import os
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from feature_repo.erasure import tombstones
from feature_repo.events.pseudonyms import Pseudonyms
from services.erasure import ledger
from services.event_log.keys import SEEN_TTL_S

_SUFFIX: Final = ".seen"
_LETTERS: Final = 32


class SeenDigests:
    """Those of erasures that are carried out together.

    Parameters
    ----------
    home
        State folder.
    names
        Ids of the erasures; what is added is kept with the first.
    """

    def __init__(self, home: Path, names: Collection[str]) -> None:
        self._key = Pseudonyms.load(home).key
        self._path = _path(home, min(names))
        self.known = frozenset(line for name in names for line in _read(_path(home, name)))
        """What earlier runs removed; empty the first time."""

    def add(self, ids: Iterable[bytes]) -> None:
        """Keep the digests of ids that are about to be removed; durable when this returns."""
        new = {self._digest(each) for each in ids} - self.known
        if not new:
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"\n" + b"\n".join(sorted(new)) + b"\n")  # behind half a line of a kill too
            file.flush()
            os.fsync(descriptor)

    def holds(self, known_id: bytes) -> bool:
        """Say whether an earlier run removed this id."""
        return bool(self.known) and self._digest(known_id) in self.known

    def _digest(self, known_id: bytes) -> bytes:
        return hmac.digest(self._key, b"seen:" + known_id, "sha256").hex().encode()[:_LETTERS]


def drop_old(home: Path) -> None:
    """Remove the digests of ids that no store knows any more, however old its backup is."""
    until_s = time.time() - SEEN_TTL_S
    for path in (home / tombstones.FOLDER / ledger.FOLDER).glob(f"er-*{_SUFFIX}"):
        if path.stat().st_mtime < until_s:
            path.unlink(missing_ok=True)


def _path(home: Path, name: str) -> Path:
    return home / tombstones.FOLDER / ledger.FOLDER / f"{name}{_SUFFIX}"


def _read(path: Path) -> list[bytes]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [line for line in lines if len(line) == _LETTERS]
