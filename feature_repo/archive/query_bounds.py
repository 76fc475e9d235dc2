"""Bounds on queries of DuckDB: memory, disk and time; and where a query may put down what it holds.

What does not fit into memory goes to a folder below ``PORTRAIT_HOME/run`` that only its owner may
read, as pseudonyms stand in it. The folder goes with its index, and what a killed process left
goes when the next one begins. Belongs here: settings and the deadline. Queries are the callers'.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

import duckdb

from feature_repo.errors import TooCostlyError

MEMORY_LIMIT: Final = "2GB"
SPILL_LIMIT: Final = "4GB"
"""What the queries of one index may put down on disk at once."""
_YOUNG_S: Final = 60.0
_AGAIN_S: Final = 0.05

_until_s: ContextVar[float | None] = ContextVar("_until_s", default=None)


class SpillFolder:
    """A folder of one index, mode 0700; ``path`` is None where nothing can be written."""

    def __init__(self, home: Path) -> None:
        self.path: Path | None = None
        try:
            sweep(home)
            below = _below(home)
            below.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path = Path(tempfile.mkdtemp(dir=below))  # mode 0700
            self._lock = os.open(self.path, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # then a query that outgrows memory fails
            self.path = None

    def remove(self) -> None:
        """Remove the folder."""
        if self.path is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            self.path = None
            os.close(self._lock)

    def settings(self) -> str:
        """Return the statements that make a connection keep the bounds."""
        path = "" if self.path is None else str(self.path).replace("'", "''")
        disk = f"SET max_temp_directory_size = '{SPILL_LIMIT}'; " if path else ""
        return f"SET memory_limit = '{MEMORY_LIMIT}'; SET temp_directory = '{path}'; {disk}"


def sweep(home: Path) -> None:
    """Remove the folders that ended processes left below ``home``."""
    for path in _below(home).glob("*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime < _YOUNG_S:  # its owner may just begin
                continue
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _below(home: Path) -> Path:
    return home / "run" / "spill"


@contextmanager
def deadline(bound_s: float) -> Iterator[None]:
    """Let queries of this thread under `run_until_deadline` take ``bound_s`` seconds in all."""
    token = _until_s.set(time.monotonic() + bound_s)
    try:
        yield
    finally:
        _until_s.reset(token)


def check() -> None:
    """Raise `TooCostlyError` when the time of `deadline` is over, in work that is no query."""
    until_s = _until_s.get()
    if until_s is not None and time.monotonic() >= until_s:
        raise _late()


@contextmanager
def run_until_deadline(connection: Any) -> Iterator[None]:
    """Run queries of ``connection`` until the deadline, if there is one.

    Raises
    ------
    TooCostlyError
        When the time is over, or a query needs more memory or disk than it may.
    """
    until_s, done = _until_s.get(), threading.Event()
    if until_s is not None:
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise _late()
        watch = threading.Thread(target=_watch, args=(connection, done, left_s), daemon=True)
        watch.start()
    try:
        yield
    except duckdb.InterruptException:
        raise _late() from None
    except duckdb.OutOfMemoryException:
        raise TooCostlyError(
            f"the question needs over {MEMORY_LIMIT} of memory and {SPILL_LIMIT} of disk: "
            "ask for less"
        ) from None
    finally:
        done.set()


def _watch(connection: Any, done: threading.Event, left_s: float) -> None:
    done.wait(left_s)
    with contextlib.suppress(duckdb.Error):
        while not done.wait(_AGAIN_S):  # a query that was only about to begin missed it
            connection.interrupt()


def _late() -> TooCostlyError:
    return TooCostlyError("the question took longer than one may: ask for less")
