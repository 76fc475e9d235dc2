"""The worker: carries out what was asked, all that waits at once, and resumes where it was ended.

Each step may be repeated; what the next ones need is written down before. One process of a state
folder works at a time: the lock is the kernel's, so whoever is killed gives it up. Belongs here:
the order of the steps. What a step does is its module's.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import structlog

from feature_repo.archive.event_archive import Archive
from feature_repo.erasure import tombstones
from feature_repo.erasure.files import erase_files
from feature_repo.erasure.removal import Erased, Removal
from feature_repo.erasure.restored_files import RestoredFiles
from feature_repo.events.pseudonyms import partition_of
from feature_repo.online.connection import translated
from feature_repo.online.previous_states import remove_previous
from services.erasure import anonymous_ids, ledger, store
from services.erasure.disk import rewrite_files
from services.erasure.event_names import find_logged, find_names
from services.erasure.graves import bury, lift, restore_graves
from services.erasure.keys import KNOWN, PENDING, RENEWED
from services.erasure.ledger import StoredErasure
from services.erasure.seen_digests import SeenDigests, drop_old
from services.erasure.streams import is_drained, mark_end

MEMORY_MS: Final = 60_000
"""After so long every process has let go of what it held of older data."""
_LOOK_S: Final = 0.05
_RECONCILE_S: Final = 60.0

_log = structlog.get_logger(__name__)


class EndedError(Exception):
    """The process is about to end; the next one goes on."""


class ErasureWorker:
    """Carries out erasures.

    Parameters
    ----------
    client
        Synchronous client of the store.
    home
        State folder.
    partitions
        Number of log partitions.
    wait
        Waits so many seconds; raises `EndedError` when the process is about to end.
    """

    def __init__(
        self, client: Any, home: Path, partitions: int, wait: Callable[[float], None]
    ) -> None:
        self._client = client
        self._home = home
        self._partitions = partitions
        self._wait = wait
        self._archive = Archive(home / "archive" / "events")
        self._restored = RestoredFiles(home)
        self._next_look_s = 0.0
        self._renewed: bytes | None = None

    def run(self) -> int:
        """Carry out what waits, if nobody else does, and return how many erasures are done.

        Raises
        ------
        StoreUnavailableError
            If the store does not answer; the next call goes on.
        """
        with translated():
            pending = self._client.hlen(PENDING)
        if not pending and time.monotonic() < self._next_look_s:
            return 0
        with _alone(self._home) as mine:
            if not mine:
                return 0
            is_due = time.monotonic() >= self._next_look_s
            since_ms = time.time_ns() // 1_000_000 - ledger.BEGUN_MS
            if is_due:
                self._reconcile()
                self._next_look_s = time.monotonic() + _RECONCILE_S
            done = self._carry_out()
            if is_due:
                self._sweep_restored(since_ms)
            return done

    def is_renewed(self) -> bool:
        """Say whether erasures were carried out, here or elsewhere, since it was asked last."""
        with translated():
            now = self._client.get(RENEWED)
        before, self._renewed = self._renewed, now
        return bool(now != before)

    def _sweep_restored(self, since_ms: int) -> None:
        """Remove the erased from files that were put back from a backup.

        Who is yet to be erased, of all that was requested since a moment, is left to that.
        """
        drop_old(self._home)
        gone = tombstones.read(self._home)
        gone -= ledger.find_open(self._home, since_ms)
        found = self._restored.find(gone)
        if found:
            removed = erase_files(self._home, Erased(gone, frozenset(), frozenset()))
            rows = sum(one.removed for one in removed)
            _log.warning("erased_files_again", files=len(found), removed=rows)
            with translated():
                self._client.incr(RENEWED)

    def _reconcile(self) -> None:
        """Ask again for what the store does not know: it is new, or of a time before."""
        restore_graves(self._client, self._home)
        with translated():
            known = {name.decode() for name in self._client.smembers(KNOWN)}
        for name in ledger.names(self._home):
            found = None if name in known else ledger.read(self._home, name)
            if (
                found is not None
                and found.requested_ms < time.time_ns() // 1_000_000 - ledger.BEGUN_MS
            ):
                if found.stage == "done":
                    _log.warning("erasure_again", erasure=name)
                    found.stage, found.done_ms = "asked", 0
                    ledger.write(self._home, found)
                with translated():
                    self._client.hsetnx(PENDING, name, 0)

    def _carry_out(self) -> int:
        with translated():
            pending = self._client.hgetall(PENDING)
        rows = {name.decode(): int(count) for name, count in pending.items()}
        found = [one for name in sorted(rows) if (one := ledger.read(self._home, name)) is not None]
        fresh = [one for one in found if one.stage == "asked"]
        for one in fresh:
            if not one.stores:
                one.note([Removal("rows", rows[one.id], rows[one.id])])
        if fresh:
            self._remove(fresh)
        if found:
            self._finish(found)
        with translated():
            for name in rows:  # one without a file was none
                self._client.hdel(PENDING, name)
        return len(found)

    def _remove(self, erasures: Sequence[StoredErasure]) -> None:
        now_ms = time.time_ns() // 1_000_000
        for one in erasures:
            one.together = len(erasures)
            one.took_s = one.took_s or {"wait": (now_ms - one.requested_ms) / 1000}
        with _time_stage(erasures, "log"):
            self._bury(erasures)
            self._link(erasures, self._find_noted)
            keys = self._drain(erasures)
            if self._link(erasures, self._find_archived):
                keys |= self._drain(erasures)
        gone = frozenset[str]().union(*(one.entities for one in erasures))
        ids = frozenset[str]().union(*(ledger.read_ids(self._home, one.id) for one in erasures))
        with _time_stage(erasures, "store"):
            names, more = find_names(self._archive, gone, time.time_ns() // 1_000_000)
            self._note(erasures, [store.remove_seen(self._client, names, self._digests(erasures))])
            self._note(erasures, self._clear(gone))
            now_ms, where = time.time_ns() // 1_000_000, {partition_of(one) for one in gone}
            self._note(erasures, [
                store.remove_seen_ids(self._client, where, ids, self._digests(erasures), now_ms)
            ])  # fmt: skip
        with _time_stage(erasures, "files"):
            self._note(erasures, erase_files(self._home, Erased(gone, ids, frozenset(keys | more))))
        with _time_stage(erasures, "store"):
            # Who was in the midst of something when it began is through by now.
            self._note(erasures, self._clear(gone))
        for one in erasures:
            one.stage = "removed"
        self._note(erasures, [])

    def _bury(self, erasures: Sequence[StoredErasure]) -> None:
        gone = frozenset[str]().union(*(one.entities for one in erasures))
        tombstones.add(self._home, gone)
        rows = bury(self._client, gone)
        self._note(erasures, [Removal("rows", rows, rows)])

    def _link(
        self,
        erasures: Sequence[StoredErasure],
        find: Callable[[frozenset[str]], dict[str, str]],
    ) -> bool:
        """Erase the anonymous ids that are found with them; say whether any is new."""
        users = frozenset[str]().union(*(one.users for one in erasures))
        found, known = find(users), frozenset[str]().union(*(one.entities for one in erasures))
        for one in erasures:
            theirs = {anonymous for anonymous, user in found.items() if user in one.users}
            one.linked = sorted(theirs.union(one.linked).difference(one.users))
        if found.keys() <= known:
            return False
        self._bury(erasures)
        return True

    def _digests(self, erasures: Sequence[StoredErasure]) -> SeenDigests:
        return SeenDigests(self._home, [one.id for one in erasures])

    def _find_noted(self, users: frozenset[str]) -> dict[str, str]:
        return anonymous_ids.find_noted(self._client, self._partitions, users)

    def _find_archived(self, users: frozenset[str]) -> dict[str, str]:
        return anonymous_ids.find_archived(self._archive, users)

    def _drain(self, erasures: Sequence[StoredErasure]) -> set[tuple[str, str]]:
        """Wait until nothing of them is on its way through the log; return whose events were."""
        gone = frozenset[str]().union(*(one.entities for one in erasures))
        names, keys, linked = find_logged(self._client, gone)
        if self._link(erasures, lambda users: {a: u for a, u in linked.items() if u in users}):
            return self._drain(erasures)
        self._note(erasures, [store.remove_seen(self._client, names, self._digests(erasures))])
        marks = {p: mark_end(self._client, p) for p in sorted({partition_of(one) for one in gone})}
        for partition, mark in marks.items():
            while not is_drained(self._client, partition, mark):
                self._wait(_LOOK_S)
        return keys

    def _clear(self, gone: frozenset[str]) -> Iterator[Removal]:
        rows = bury(self._client, gone)
        yield Removal("rows", rows, rows)
        states = remove_previous(self._client, sorted(gone))
        yield Removal("previous_states", states, states)
        yield store.remove_letters(self._client, self._partitions, gone)
        notes = anonymous_ids.forget_notes(self._client, self._partitions, gone)
        notes += store.forget_statements(self._client, gone)
        yield Removal("owners", notes, notes)
        yield store.remove_decisions(self._client, gone)
        yield store.remove_from_definitions(self._client, gone)
        yield store.remove_changes(self._client, gone)

    def _finish(self, erasures: Sequence[StoredErasure]) -> None:
        self._lift(erasures)
        with _time_stage(erasures, "store_files"):
            self._note(erasures, [rewrite_files(self._client, self._wait)])
        with translated():
            self._client.incr(RENEWED)
        now_ms = time.time_ns() // 1_000_000
        memory = Removal(
            "memory", 0, 0, now_ms + MEMORY_MS, "what processes hold until they have renewed it"
        )
        for one in erasures:
            one.stage, one.done_ms = "done", now_ms
        self._note(erasures, [memory])
        with translated():
            self._client.sadd(KNOWN, *(one.id for one in erasures))
        users = sum(len(one.users) for one in erasures)
        _log.info("erased", erasures=len(erasures), users=users, took_s=erasures[-1].took_s)

    def _lift(self, erasures: Sequence[StoredErasure]) -> None:
        """Let ids begin anew that nobody asked to refuse."""
        anew = frozenset[str]().union(*(one.entities for one in erasures if not one.suppress))
        if not anew:
            return
        mine = {one.id for one in erasures if not one.suppress}
        for name in ledger.names(self._home):
            other = None if name in mine else ledger.read(self._home, name)
            if other is not None and (other.suppress or other.stage == "asked"):
                anew -= other.entities
        tombstones.remove(self._home, anew)
        lift(self._client, anew)

    def _note(self, erasures: Sequence[StoredErasure], removals: Iterable[Removal]) -> None:
        """Write down how far it is; what was found is that of all of them."""
        found = list(removals)
        for one in erasures:
            one.note(found)
            ledger.write(self._home, one)


@contextmanager
def _time_stage(erasures: Sequence[StoredErasure], stage: str) -> Iterator[None]:
    """Add to each of them what a stage takes."""
    started_s = time.monotonic()
    try:
        yield
    finally:
        for one in erasures:
            one.add_time(stage, time.monotonic() - started_s)


@contextmanager
def _alone(home: Path) -> Iterator[bool]:
    """Yield whether this process is the one of the state folder that erases now."""
    folder = home / tombstones.FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / ".worker", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
