"""Tombstones: the pseudonyms of the erased, the one thing that stays of them.

They stand below the state folder too, so that neither an import nor a restored backup brings
anybody back. Whoever writes people into a file does it under `publishing`: what was begun before an
erasure is then in its place, and found, before `settle` returns.
"""

import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final

from feature_repo.events.pseudonyms import is_pseudonym

FOLDER: Final = "erasures"
FILE: Final = "tombstones"
"""One pseudonym a line; a last line that a crash cut off counts for nothing."""


def read(home: Path) -> frozenset[str]:
    """Return the pseudonyms of everybody erased below ``home``.

    Examples
    --------
    >>> read(Path("no-such-home"))
    frozenset()
    """
    path = home / FOLDER / FILE
    try:
        status = path.stat()
    except FileNotFoundError:
        return frozenset()
    return _read(path, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, *_stamp: int) -> frozenset[str]:
    lines = path.read_bytes().decode("ascii", "replace").split("\n")
    return frozenset(filter(is_pseudonym, lines))


def add(home: Path, entities: Iterable[str]) -> None:
    """Add pseudonyms; when this returns they are durable.

    Raises
    ------
    ValueError
        If one is no pseudonym.
    """
    with _writing(home) as path:
        new = sorted(_check(entities) - read(home))
        if not new:
            return
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            file.write(("\n" * torn + "".join(f"{one}\n" for one in new)).encode())
            file.flush()
            os.fsync(descriptor)
        _sync(path.parent)


def remove(home: Path, entities: Iterable[str]) -> None:
    """Take pseudonyms out: who comes under one from now on is a new person."""
    gone = frozenset(entities)
    with _writing(home) as path:
        known = read(home)
        if known.isdisjoint(gone):
            return
        beside = path.with_name(f".{FILE}.{secrets.token_hex(8)}.tmp")
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write("".join(f"{one}\n" for one in sorted(known - gone)).encode())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        _sync(path.parent)


@contextmanager
def publishing(home: Path) -> Iterator[frozenset[str]]:
    """Hold `settle` off while a file with people is put in its place; yields who is erased.

    Who is yielded must not be in the file. Held only while it is filtered and put down.
    """
    with _lock(home, ".publishing", fcntl.LOCK_SH):
        yield read(home)


def settle(home: Path) -> None:
    """Wait until everything is in place that was put down without today's tombstones."""
    with alone(home):
        pass


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Hold everybody off who publishes: a file of people is rewritten."""
    with _lock(home, ".publishing", fcntl.LOCK_EX):
        yield


@contextmanager
def _writing(home: Path) -> Iterator[Path]:
    with _lock(home, ".writing", fcntl.LOCK_EX) as folder:
        for left in folder.glob(f".{FILE}.*.tmp"):  # by a process that was killed
            left.unlink()
        yield folder / FILE


@contextmanager
def _lock(home: Path, name: str, lock_type: int) -> Iterator[Path]:
    folder = home / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, lock_type)
        yield folder
    finally:
        os.close(descriptor)


def _check(entities: Iterable[str]) -> frozenset[str]:
    wanted = frozenset(entities)
    for one in wanted:
        if not is_pseudonym(one):
            raise ValueError(f"{one!r} is no pseudonym: it cannot be erased")
    return wanted


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
