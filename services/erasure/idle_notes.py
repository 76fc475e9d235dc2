"""Notes of who is about to leave the store as idle: by them a sweep finishes one that was killed.

The store forgets a profile in one step; its decisions, and its rows in tables, go after that. Not
here: who is idle (`idle`), and what is removed (`sweep`).
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from feature_repo.erasure import tombstones
from feature_repo.events.pseudonyms import is_pseudonym

_FILE: Final = "idle"


class IdleNotes:
    """A file of pseudonyms, there only while a sweep is under way or was killed."""

    def __init__(self, home: Path) -> None:
        self._path = home / tombstones.FOLDER / _FILE

    def add(self, names: Iterable[str]) -> None:
        """Note who may be gone soon; durable when this returns."""
        lines = "".join(f"{name}\n" for name in names)
        if not lines:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"\n" + lines.encode())  # behind half a line of a kill too
            file.flush()
            os.fsync(descriptor)

    def read(self) -> frozenset[str]:
        """Return who is noted."""
        try:
            lines = self._path.read_text("ascii", "replace").split("\n")
        except FileNotFoundError:
            return frozenset()
        return frozenset(filter(is_pseudonym, lines))

    def clear(self) -> None:
        """Forget them: everything of them is gone."""
        self._path.unlink(missing_ok=True)
