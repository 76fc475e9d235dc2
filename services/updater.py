"""The updater: reads the partitions it leases, applies their events, commits rows and cursor.

`UpdaterLoop` is the work, in one thread; `Updater` is the Ray Serve deployment around it
(no ingress: it meets the gateways only in Redis). What an event does is `transition`'s.
"""

import os
import threading
import time
import uuid
from typing import Any, Final

import redis
import structlog

from feature_repo.archive import Archive
from feature_repo.connection import connect, translated
from feature_repo.errors import FencedError, PortraitError, StoreUnavailableError
from feature_repo.events import EventRecord
from feature_repo.online_store import commit, read_live
from services import popularity
from services.archiver import Archiver
from services.lease import LEASE_MS, UPDATERS, Leases
from services.log import cursor_key, log_key
from services.settings import Settings
from services.transition import Transition, dead_letter

BATCH_ENTRIES: Final = 256
BLOCK_MS: Final = 250
STATS_KEY: Final = "portrait:updater:stats"
_BACKOFF_S: Final = 0.2

_log = structlog.get_logger(__name__)


class UpdaterLoop:
    """Applies events until stopped.

    Parameters
    ----------
    settings
        ``home``, ``partitions`` and ``archive_every_s`` are read.
    url
        URL of the store.
    transition
        What an event does to a row.
    """

    def __init__(self, settings: Settings, url: str, transition: Transition) -> None:
        self._settings = settings
        self._transition = transition
        self._client = connect(url, timeout_s=2.0)
        self._reader = connect(url, timeout_s=2.0 + BLOCK_MS / 1000)
        self._owner = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._leases = Leases(self._client, self._owner)
        self._archiver = Archiver(self._client, Archive(settings.home / "archive" / "events"))
        self._cursors: dict[int, tuple[int, str]] = {}  # partition -> (epoch, cursor)
        self._next_share_s = 0.0
        self._stopping = threading.Event()
        self._archiving = threading.Thread(target=self._archive, name="archiver", daemon=True)
        self.applied = 0

    def run(self) -> None:
        """Work until `stop`; survives any outage of the store."""
        self._archiving.start()
        while not self._stopping.is_set():
            try:
                with translated():
                    self._share()
                    self._round()
            except StoreUnavailableError as error:
                _log.warning("store_unavailable", error=str(error))
                self._leases.epochs.clear()
                self._next_share_s = 0.0
                self._stopping.wait(_BACKOFF_S)
        self._archiving.join(timeout=10)
        try:
            with translated():
                self._leases.leave()
        except PortraitError:
            _log.warning("leases_left_to_expire")

    def stop(self) -> None:
        """Ask the loop to end after the batch it is in."""
        self._stopping.set()

    def _share(self) -> None:
        if time.monotonic() < self._next_share_s:
            return
        self._leases.share(self._settings.partitions)
        self._next_share_s = time.monotonic() + LEASE_MS / 4000
        for partition, epoch in self._leases.epochs.items():
            if self._cursors.get(partition, (0, ""))[0] != epoch:
                cursor = self._client.hget(cursor_key(partition), "cursor") or b"0-0"
                self._cursors[partition] = (epoch, cursor.decode())

    def _round(self) -> None:
        owned = dict(self._leases.epochs)
        if not owned:
            self._stopping.wait(0.1)
            return
        streams = {log_key(p): self._cursors[p][1] for p in owned}
        found = self._reader.xread(streams, count=BATCH_ENTRIES, block=BLOCK_MS)
        if not found:
            return
        batch = {int(name[2:5]): entries for name, entries in _pairs(found)}
        self._apply({p: entries for p, entries in batch.items() if entries})

    def _apply(self, batch: dict[int, list[tuple[bytes, dict[bytes, bytes]]]]) -> None:
        events, owners, dead = [], [], {p: list[bytes]() for p in batch}
        for partition, entries in batch.items():
            for entry_id, fields in entries:
                payload = fields.get(b"e", b"")
                try:
                    events.append(EventRecord.decode(payload))
                    owners.append((partition, entry_id.decode(), payload))
                except Exception:  # noqa: BLE001 - whatever stands in the log, it must go on
                    dead[partition].append(
                        dead_letter(entry_id.decode(), "does not decode", payload)
                    )
        users = list(dict.fromkeys(event.user for event in events))
        rows = dict(zip(users, read_live(self._client, users), strict=True)) if users else {}
        changed, poison = self._transition.apply(rows, events)
        for index, reason in poison.items():
            partition, name, payload = owners[index]
            dead[partition].append(dead_letter(name, reason, payload))
            _log.warning("poison_event", entry=name, partition=partition, reason=reason)
        # Counted before the commit, taken back if it is refused: whoever waits for the commit
        # and then reads the count must find itself in it.
        sizes = {p: [0, len(letters)] for p, letters in dead.items()}
        for index, (partition, _, _) in enumerate(owners):
            sizes[partition][0] += index not in poison
        self._count(*map(sum, zip(*sizes.values(), strict=True)))
        refused = set[int]()
        for partition, entries in batch.items():
            mine = {user: row for user, row in changed.items() if int(user[2:5]) == partition}
            if not self._commit(partition, entries[-1][0].decode(), mine, dead[partition]):
                refused.add(partition)
                self._count(-sizes[partition][0], -sizes[partition][1])
        popularity.add(
            self._client,
            [e for n, e in enumerate(events) if owners[n][0] not in refused and n not in poison],
        )

    def _count(self, applied: int, dead: int) -> None:
        self.applied += applied
        self._client.hincrby(STATS_KEY, "events", applied)
        if dead:
            self._client.hincrby(STATS_KEY, "dead", dead)

    def _commit(self, partition: int, end: str, rows: dict[str, Any], dead: list[bytes]) -> bool:
        epoch, cursor = self._cursors[partition]
        try:
            commit(
                self._client, partition, epoch=epoch, expected_cursor=cursor, new_cursor=end,
                rows=rows, dead=dead,
            )  # fmt: skip
        except FencedError as error:
            # Nothing was written. Whoever holds the lease now applies these events.
            _log.warning("fenced", partition=partition, error=str(error))
            self._leases.lose(partition)
            self._cursors.pop(partition, None)
            self._next_share_s = 0.0
            return False
        self._cursors[partition] = (epoch, end)
        return True

    def _archive(self) -> None:
        while not self._stopping.wait(self._settings.archive_every_s):
            self._archive_once()
        self._archive_once()

    def _archive_once(self) -> None:
        try:
            with translated():
                self._archiver.run(list(self._leases.epochs))
        except (PortraitError, OSError, redis.RedisError) as error:
            _log.warning("archive_failed", error=type(error).__name__)


class Updater:
    """Ray Serve deployment: one loop a replica; replicas share the partitions by leases.

    Parameters
    ----------
    settings, url
        See `UpdaterLoop`.
    """

    def __init__(self, settings: Settings, url: str) -> None:
        from services.logs import configure
        from services.models import load_transition

        configure(settings.log_level)
        self._loop = UpdaterLoop(settings, url, Transition(load_transition(settings)))
        self._thread = threading.Thread(target=self._loop.run, name="updater", daemon=True)
        self._thread.start()

    def check_health(self) -> None:
        """Raise when the loop has died, so that Serve replaces the replica."""
        if not self._thread.is_alive():
            raise RuntimeError("the updater's loop has ended: see the replica's log")

    def __del__(self) -> None:
        loop = getattr(self, "_loop", None)
        if loop is not None:
            loop.stop()
            self._thread.join(timeout=15)


def _pairs(found: Any) -> Any:
    return found.items() if isinstance(found, dict) else found


__all__ = ["STATS_KEY", "UPDATERS", "Updater", "UpdaterLoop"]
