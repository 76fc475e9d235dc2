"""A folder of Parquet parts: written whole or not at all, and exchanged all at once.

Belongs here: files and their names, nothing of what is in them. A plain listing cannot
show several files replaced by one in the same instant, so a `PartSet` has generations. Its
``root`` is a link to the newest one, a folder of hard links; a new generation is filled
beside it and takes its place by one rename of the link. Older generations stay for
`GRACE_S`, so whoever has listed one still finds every file of it.

::

    archive/events -> .events/000007
    archive/.events/000006/*.parquet     until its last readers are done
    archive/.events/000007/*.parquet
    archive/.events.lock                 held shared to add a part, alone to exchange parts
    archive/.events.rewriting            held by the one who rewrites parts
"""

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

GRACE_S: Final = 3600.0
"""How long files that are no longer part of the set can still be read."""
ROW_GROUP_ROWS: Final = 10_000
LOCK_WAIT_S: Final = 2.0
"""How long `PartSet.exchange` waits for those who are adding a part."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_RENAME_EXCHANGE: Final = 2


class PartSet:
    """The parts below ``root``.

    Parameters
    ----------
    root
        Folder of the parts, or the link to it; made when absent.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.generations = root.with_name(f".{root.name}")
        if not root.exists():
            first = self._name_generation(1)
            first.mkdir(parents=True, exist_ok=True)
            try:
                root.symlink_to(first.relative_to(root.parent))
            except OSError:  # another process was first, or there are no links here
                root.mkdir(exist_ok=True)

    def folder(self) -> Path:
        """Return the folder of the present generation: what it holds stays for `GRACE_S`."""
        return self.root.resolve()

    def parts(self) -> list[Path]:
        """Return a consistent set of parts, sorted by name."""
        return sorted(self.folder().glob("*.parquet"))

    @contextmanager
    def adding(self) -> Iterator[Path]:
        """Hold off exchanges while parts are added to the folder that this yields."""
        with self._lock(fcntl.LOCK_SH):
            yield self.folder()

    @contextmanager
    def rewriting(self) -> Iterator[None]:
        """Be the only one to rewrite parts; who adds parts may go on."""
        with self._lock(fcntl.LOCK_EX, name="rewriting"):
            yield

    @contextmanager
    def rewriting_if_free(self) -> Iterator[bool]:
        """Be the only one to rewrite parts, or yield False at once."""
        with self._lock(fcntl.LOCK_EX, 0, name="rewriting") as locked:
            yield locked

    def prepare(self) -> bool:
        """Make ``root`` a link if it is a folder, with the same parts; say whether it is one.

        False where the file system cannot exchange two names in one step: parts can then
        be added but not exchanged.
        """
        if self.root.is_symlink():
            return True
        with self._lock(fcntl.LOCK_EX):
            if self.root.is_symlink():
                return True
            folder = self._name_generation(0)
            folder.parent.mkdir(exist_ok=True)
            folder.unlink(missing_ok=True)
            # The link is made in the folder's future place, as it must read in its own; then
            # the two change places.
            folder.symlink_to(folder.relative_to(self.root.parent))
            try:
                _swap(self.root, folder)
            except OSError:
                folder.unlink()
                return False
            sync(self.generations, self.root.parent)
        return True

    def exchange(
        self, out: Collection[str], into: Mapping[str, Path], grace_s: float = GRACE_S
    ) -> bool:
        """Take some parts out and put others in, as one change; say whether it was done.

        Parameters
        ----------
        out
            File names of parts.
        into
            New file names and the (complete, synced) files to link there.
        grace_s
            As for `sweep`: who listed a plain folder before `prepare` reads through the link,
            and is given as long.

        Returns
        -------
        bool
            False, and nothing is changed, if one of ``out`` is no longer a part, if
            `prepare` was not called or was called just now, or if others go on adding parts.
        """
        with self._lock(fcntl.LOCK_EX, LOCK_WAIT_S) as locked:
            old = self.folder()
            names = {part.name for part in old.glob("*.parquet")}
            kept = names - set(out)
            if not locked or not names.issuperset(out) or not self._linked_for(grace_s):
                return False
            if not kept.isdisjoint(into):
                raise FileExistsError(errno.EEXIST, "parts of these names exist", *into)
            taken = [int(path.name) for path in self.generations.iterdir() if path.name.isdigit()]
            new = self._name_generation(max(taken) + 1)
            new.mkdir()
            for name in kept:
                (new / name).hardlink_to(old / name)
            for name, path in into.items():
                (new / name).hardlink_to(path)
            sync(new, self.generations)
            os.utime(old)  # from now on nobody lists it; `sweep` counts from here
            link = self.root.with_name(f".{self.root.name}.{secrets.token_hex(4)}.link")
            link.symlink_to(new.relative_to(self.root.parent))
            link.replace(self.root)
            sync(self.root.parent)
        return True

    def scratch(self) -> Path:
        """Return a path for a file to be put in by `exchange`; `sweep` removes it some day."""
        self.generations.mkdir(exist_ok=True)
        return self.generations / f"{secrets.token_hex(8)}.parquet"

    def sweep(self, grace_s: float = GRACE_S) -> None:
        """Remove what has not been part of the set for ``grace_s`` seconds."""
        if not self.root.is_symlink():
            return
        with self._lock(fcntl.LOCK_EX, LOCK_WAIT_S) as locked:
            if not locked:
                return
            present, before_s = self.folder(), time.time() - grace_s
            for path in self.generations.iterdir():
                if path != present and path.lstat().st_mtime <= before_s:
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
            for link in self.root.parent.glob(f".{self.root.name}.*.link"):
                link.unlink()

    def was_plain(self) -> bool:
        """Say whether the present parts were a folder, which readers may have listed by name."""
        return self.folder().name == self._name_generation(0).name

    def older(self) -> list[Path]:
        """Return the folders of all generations but the present one."""
        if not self.generations.is_dir():
            return []
        folders = (path for path in self.generations.iterdir() if path.name.isdigit())
        return sorted(f for f in folders if f != self.folder() and not f.is_symlink())

    def sweep_drafts(self) -> None:
        """Remove what killed writers left unfinished; to be called under `rewriting`."""
        with self._lock(fcntl.LOCK_EX):
            for folder in (self.folder(), *self.older()):
                for path in folder.glob(".*.tmp"):
                    path.unlink()
            for path in self.generations.glob("*"):
                if path.is_dir() and not path.name.isdigit():
                    shutil.rmtree(path)
                elif path.suffix == ".parquet":
                    path.unlink()

    def _name_generation(self, number: int) -> Path:
        """Return a generation's folder; 0 is one that was a plain folder before."""
        return self.generations / f"{number:06d}"

    def _linked_for(self, seconds: float) -> bool:
        if not self.root.is_symlink():
            return False
        return not self.was_plain() or self.root.lstat().st_mtime <= time.time() - seconds

    @contextmanager
    def _lock(
        self, lock_type: int, wait_s: float | None = None, name: str = "lock"
    ) -> Iterator[bool]:
        """Hold one of the set's locks; yields False if it was not had within ``wait_s``."""
        path = self.root.with_name(f".{self.root.name}.{name}")
        with path.open("a") as file:
            if wait_s is None:
                fcntl.flock(file, lock_type)
                yield True
                return
            until_s = time.monotonic() + wait_s
            while True:
                try:
                    fcntl.flock(file, lock_type | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until_s:
                        yield False
                        return
                    time.sleep(0.02)
            yield True


def write_part(path: Path, table: pa.Table, *, replace: bool = True) -> bool:
    """Write a Parquet file so that it appears whole or not at all (tmp, fsync, rename).

    Parameters
    ----------
    path
        Its place; the folder is made when absent.
    replace
        Whether a file in that place is replaced; else it stays.

    Returns
    -------
    bool
        Whether the file is this one; False if another was kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with part_writer(temporary, table.schema) as writer:
            writer.write_table(table, ROW_GROUP_ROWS)
        if replace:
            temporary.replace(path)
        else:
            path.hardlink_to(temporary)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)
    return True


@contextmanager
def part_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Yield a writer of one durable file; it gets a name among the parts only afterwards."""
    with path.open("wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            yield writer
        file.flush()
        os.fsync(file.fileno())


def sync(*folders: Path) -> None:
    """Make the names in ``folders`` durable."""
    for path in folders:
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _swap(one: Path, other: Path) -> None:
    """Exchange two names in one step (Linux)."""
    names = os.fsencode(one), os.fsencode(other)
    if _LIBC.renameat2(-100, names[0], -100, names[1], _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one))
