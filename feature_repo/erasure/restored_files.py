"""Files that were put back from a backup: Parquet files in which somebody erased is again.

Not here: what is done then (`files`).
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa

from feature_repo.erasure.parquet_rows import OWNERS, count_rows, list_parquet

_FOLDERS: Final = ("archive", "features", "audiences")
_UNPUBLISHED: Final = ".rebuild-"
"""Folders of what is being made: who publishes it asks the tombstones."""


class RestoredFiles:
    """Looks for them; a file that was looked through is not read again."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._looked = frozenset[tuple[int, int, int]]()

    def find(self, gone: Collection[str]) -> list[Path]:
        """Return the files that name one of those who are gone, none of whom is being erased."""
        clean, found = set[tuple[int, int, int]](), list[Path]()
        for path in self._list() if gone else ():
            try:
                status = path.stat()
                stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
                if stamp not in self._looked and count_rows(path, gone, (*OWNERS, "linked")):
                    found.append(path)
                else:
                    clean.add(stamp)
            except (FileNotFoundError, pa.ArrowException):
                continue
        self._looked = frozenset(clean)
        return found

    def _list(self) -> Iterator[Path]:
        for folder in _FOLDERS:
            for path in list_parquet(self._home / folder):
                if not any(part.startswith(_UNPUBLISHED) for part in path.parts):
                    yield path
