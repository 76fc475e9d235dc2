"""Work of running processes below the state folder: staging, training runs, spilled queries.

What a killed one left goes at once. What belongs to a running one goes when it ends, and the
receipt says so; nobody erased is in what it publishes then.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np

from feature_repo.archive import query_bounds
from feature_repo.erasure.removal import Erased, Removal
from feature_repo.events.schema import now_ms

_HOUR_MS: Final = 3_600_000
_USERS: Final = "h_users"
"""Array of a training run's histories that says whose they are."""


@contextmanager
def hold_folder(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a folder while it is used; without ``wait`` yields False if somebody else does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(descriptor, wait=wait)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def erase_staging(home: Path, people: Erased) -> Removal:
    """Remove what a killed import left."""
    staging, lock = home / "import.staging", home / "import.lock"
    if not people.entities or not staging.exists() or not lock.exists():
        return Removal("import", 0, 0)
    with hold_folder(lock, wait=False) as mine:
        if not mine:
            note = "an import is running; what it has staged goes when it ends"
            return Removal("import", 0, 0, now_ms() + _HOUR_MS, note)
        files = sum(path.is_file() for path in staging.rglob("*"))
        shutil.rmtree(staging)
    return Removal("import", files, files, note="files that a killed import had left")


def erase_training(home: Path, people: Erased) -> Removal:
    """Remove the histories of training runs that were killed, if one of the erased is in them."""
    found = removed = running = 0
    for run in sorted((home / "models").glob(".run-*")):
        theirs = _count_histories(run, people)
        if not theirs:
            continue
        found += theirs
        with hold_folder(run, wait=False) as mine:
            if mine:
                shutil.rmtree(run)
                removed += theirs
        running += not mine
    if running:
        note = f"histories of {running} training runs; they go when these end"
        return Removal("training", found, removed, now_ms() + _HOUR_MS, note)
    return Removal("training", found, removed)


def erase_spill(home: Path, people: Erased) -> Removal:
    """Remove what ended processes spilled, and unfinished snapshots of killed rebuilds."""
    query_bounds.sweep(home)
    for folder in (home / "features").glob(".rebuild-*"):
        with hold_folder(folder, wait=False) as mine:
            if mine:
                shutil.rmtree(folder)
    left = [path for path in (home / "run" / "spill").rglob("*") if path.is_file()]
    if left and people.entities:
        note = "queries that do not fit into memory; their files go when they end"
        return Removal("spill", len(left), 0, now_ms() + _HOUR_MS, note)
    return Removal("spill", 0, 0)


def _count_histories(run: Path, people: Erased) -> int:
    """Return how many histories are theirs; a run without whole ones counts as one."""
    try:
        with np.load(run / "arrays.npz") as arrays:
            return sum(str(user) in people.entities for user in arrays[_USERS])
    except (OSError, ValueError, KeyError, BadZipFile):
        return int(bool(people.entities) and any(run.glob("*")))
