"""The updater: reads the partitions it leases, applies their events, commits rows and cursor.

`UpdaterLoop` is the work, in one thread; `Updater` is the Ray Serve deployment around it
(no ingress: it meets the gateways only in Redis). What an event does is `transition`'s, how
much a round takes is `batch_sizing`'s, what is counted beside it is `counters`'s.
"""

import os
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from typing import Final

import redis
import structlog
from redis.exceptions import RedisClusterException

from feature_repo.archive.event_archive import Archive
from feature_repo.errors import (
    FencedError,
    PortraitError,
    StaleRowsError,
    StoreUnavailableError,
)
from feature_repo.events.schema import EventRecord
from feature_repo.online.connection import connect, translated
from feature_repo.online.live_row import LiveState, unreadable
from feature_repo.online.live_rows import commit
from feature_repo.user_profile.explicit import ExplicitProfile
from feature_repo.user_profile.purposes import allowed, stands
from services.audiences.watch import AudienceWatch
from services.event_log.archiver import SETTLE_MS, Archiver
from services.event_log.batch import Batch, cut_batch
from services.event_log.reader import reader
from services.event_log.unprofiled import may_state, note_of
from services.models.transition import Transition
from services.runtime import freeze_heap
from services.runtime.backoff import Backoff
from services.settings import Settings
from services.update.batch_sizing import BatchSizing
from services.update.counters import STATS_KEY, Counters
from services.update.erasures import Erasures
from services.update.kept_rows import KeptRow, KeptRows, RoundRows
from services.update.late_links import LateLinks
from services.update.lease import LEASE_MS, UPDATERS, Leases
from services.update.linking import Linking
from services.update.model_follower import ModelFollower

_BACKOFF_S: Final = 0.2
_LATE_S: Final = 1.0  # links left for later are looked for so often
_JOIN_S: Final = 0.2  # an owner that lacks partitions looks for them so often

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
    lease_ms
        See `services.update.lease.Leases`.
    """

    def __init__(
        self, settings: Settings, url: str, transition: Transition, lease_ms: int = LEASE_MS
    ) -> None:
        self._settings = settings
        self._transition = transition
        self._client = connect(url, timeout_s=2.0)
        self._reader = reader(self._client, url)
        self._lease_ms = lease_ms
        self._owner = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        # A client of its own, failing sooner: leases must not wait for what is slow.
        self._quick = connect(url)
        backoff = Backoff()
        self._leases = Leases(self._quick, self._owner, lease_ms, backoff)
        archive = Archive(settings.home / "archive" / "events")
        self._archiver = Archiver(self._client, archive, settle_ms=SETTLE_MS)
        self._linking = Linking(self._client, archive)
        self._late_links = LateLinks(self._client, archive, transition)
        self._kept = KeptRows(self._client, settings.kept_rows_mb * 1_000_000)
        self._counters = Counters(self._quick, backoff)
        self._watch = AudienceWatch(self._quick, backoff, settings.standing)
        self._batch_sizing = BatchSizing()
        self._cursors: dict[int, str] = {}
        self._epochs: dict[int, int] = {}
        self._models: dict[int, str] = {}
        self._next_share_s = 0.0
        self._erased = threading.Event()
        self._stopping = threading.Event()
        self._archiving = threading.Thread(target=self._archive, name="archiver", daemon=True)
        self._joining = threading.Thread(target=self._join, name="late links", daemon=True)
        self.applied = 0

    def run(self) -> None:
        """Work until `stop`; survives any outage of the store."""
        self._archiving.start()
        self._joining.start()
        while not self._stopping.is_set():
            try:
                with translated():
                    self._share()
                    self._round()
            except (StoreUnavailableError, redis.RedisError, RedisClusterException) as error:
                # Whether the last commit happened is unknown: the leases are renewed before
                # anything else, and with them the cursors.
                _log.warning("store_unavailable", error=str(error)[:200])
                self._next_share_s = 0.0
                self._stopping.wait(_BACKOFF_S)
            except Exception:
                _log.exception("updater_ended")
                raise
        self._archiving.join(timeout=10)
        self._joining.join(timeout=10)
        self._counters.flush(now=True)
        try:
            with translated():
                self._leases.leave()
        except PortraitError:
            _log.warning("leases_left_to_expire")
        for each in (self._reader, self._quick, self._client):
            each.close()

    def stop(self) -> None:
        """Ask the loop to end after the batch it is in."""
        self._stopping.set()

    def partitions(self) -> frozenset[int]:
        """Return the partitions that it owns just now."""
        return frozenset(self._leases.epochs)

    def forget_people(self) -> None:
        """Let go of what memory holds of users, at the next round: somebody was erased."""
        self._erased.set()

    def _share(self) -> None:
        if time.monotonic() < self._next_share_s:
            return
        self._leases.share(self._settings.partitions)
        self._watch.refresh()
        if self._erased.is_set():
            self._erased.clear()
            self._kept.drop(*range(self._settings.partitions))
            self._linking.forget()
        hungry = self._leases.missing(self._settings.partitions) > 0
        self._next_share_s = time.monotonic() + (_JOIN_S if hungry else self._lease_ms / 4000)
        # The store's word counts, not ours: after a failover it may stand before our last
        # commits, and then their events have to be applied again.
        owned = self._leases.owned
        cursors = {partition: each.cursor for partition, each in owned.items()}
        marks = {partition: (each.epoch, each.cursor) for partition, each in owned.items()}
        known = {p: (self._epochs[p], cursor) for p, cursor in self._cursors.items()}
        stale = [partition for partition, mark in known.items() if marks.get(partition) != mark]
        self._kept.drop(*stale)
        self._epochs = self._leases.epochs
        if any(self._cursors.get(partition) != cursor for partition, cursor in cursors.items()):
            self._linking.forget()
        self._cursors = cursors
        for partition in self._models.keys() - owned.keys():
            del self._models[partition]
        for partition, each in owned.items():
            if each.model is not None and each.model != self._models.get(partition):
                self._follow(partition, each.model)

    def _follow(self, partition: int, model: str) -> None:
        self._transition.adopt(model, partition)
        self._models[partition] = model

    def _round(self) -> None:
        if not self._cursors:
            self._stopping.wait(_JOIN_S)
            return
        counts = self._batch_sizing.counts(self._cursors)
        block = not any(partition in self._batch_sizing.behind for partition in counts)
        found = self._reader.read(self._cursors, counts, block=block)
        for partition in [p for p in self._batch_sizing.behind if p not in found]:
            self._batch_sizing.note_nothing(partition)
        if found:
            start_s = time.monotonic()
            batches = [cut_batch(partition, entries) for partition, entries in found.items()]
            for batch in batches:
                self._batch_sizing.note_batch(batch, counts[batch.partition])
            self._apply(batches)
            taken = sum(batch.taken for batch in batches)
            self._batch_sizing.note_duration(time.monotonic() - start_s, taken)
        self._counters.flush()

    def _apply(self, batches: list[Batch]) -> None:
        users = {b.partition: list(dict.fromkeys(e.user for e in b.events)) for b in batches}
        found = self._kept.read(users)
        rows = found.rows
        self._linking.note_rebuilt(found.rebuilt)
        changed, profiles = self._fold(batches, found)
        rows |= dict.fromkeys(unreadable(rows))  # what became of them is in `changed`, or dead
        mine: dict[int, dict[str, LiveState]] = defaultdict(dict)
        for user, row in changed.items():
            mine[int(user[2:5])][user] = row
        counts = [_counts(batch, rows) for batch in batches]
        # Counted before the commit, taken back if it is refused: whoever waits for the commit
        # and then reads the count must find itself in it.
        self._count(counts)
        open_counts = deque(counts)
        try:
            for batch in batches:
                if not self._commit(batch, mine[batch.partition], found, profiles):
                    self._take_back([open_counts.popleft()])
                    continue
                open_counts.popleft()
                self._counters.note_applied(self._countable(batch.events, profiles))
                self._watch.note_commit(rows, mine[batch.partition])
        except StoreUnavailableError:
            self._take_back(open_counts)
            raise

    def _countable(
        self, events: Sequence[EventRecord], profiles: Mapping[str, ExplicitProfile]
    ) -> list[EventRecord]:
        """Return the events of users who allow analytics: what is popular counts nobody else."""
        now_s, standing = int(time.time()), self._settings.standing
        nothing_said = stands("analytics", standing)

        def allows(profile: ExplicitProfile | None) -> bool:
            if profile is None or profile.says_nothing:  # most of them, and at hardly any cost
                return profile is not None and nothing_said
            return allowed(profile.consent, "analytics", now_s, standing)

        return [event for event in events if allows(profiles.get(event.user))]

    def _fold(
        self, batches: list[Batch], found: RoundRows
    ) -> tuple[dict[str, LiveState], dict[str, ExplicitProfile]]:
        """Return the changed rows and their profiles; events that cannot be applied are buried.

        A history is joined anew without them: their links and their consent have no effect.
        """
        work = self._linking.work(batches, self._cursors, found.rows)
        profiles = {
            user: kept.profile for user, kept in found.kept.items() if work.rows[user] is kept.row
        }
        while work.events:
            changed, poison = self._transition.apply(work.rows, work.events, profiles)
            buried = {work.indices[n]: why for n, why in poison.items() if work.indices[n] >= 0}
            users = _bury(batches, buried)
            if users.isdisjoint(work.joined):
                return changed, profiles
            work, profiles = self._linking.work(batches, self._cursors, found.rows), {}
        return {}, {}

    def _count(self, counts: Sequence[dict[str, int]]) -> None:
        total = {name: sum(count[name] for count in counts) for name in counts[0]}
        self.applied += total["events"]
        self._counters.note(**total)

    def _take_back(self, counts: Collection[dict[str, int]]) -> None:
        self._count([{name: -n for name, n in each.items()} for each in counts])
        self._counters.write()

    def _commit(
        self,
        batch: Batch,
        rows: dict[str, LiveState],
        found: RoundRows,
        profiles: dict[str, ExplicitProfile],
    ) -> bool:
        partition = batch.partition
        lease, cursor = self._leases.owned.get(partition), self._cursors[partition]
        if lease is None:
            return False
        try:
            is_written = commit(
                self._client, partition, epoch=lease.epoch, expected_cursor=cursor,
                new_cursor=batch.end, rows=rows, dead=batch.dead, model=batch.model,
                expected_rebuilt=found.rebuilt[partition], expected=found.versions(rows),
                ahead=self._counters.ahead(),
                profiling={
                    event.user: note_of(profiles[event.user])
                    for event in batch.events if may_state(event) and event.user in rows
                },
            )  # fmt: skip
        except FencedError as refusal:
            self._counters.note_written()
            self._note_refusal(partition, refusal)
            return False
        self._counters.note_written()
        for user, row in rows.items() if is_written else ():
            self._kept.put(user, KeptRow(row, profiles[user]))
        self._cursors[partition] = batch.end
        if batch.model is not None:
            self._follow(partition, batch.model)
        return True

    def _note_refusal(self, partition: int, refusal: FencedError) -> None:
        if isinstance(refusal, StaleRowsError):
            # Lease and cursor are as they were: the next round reads the same entries again.
            _log.info("rows_rebuilt_meanwhile", partition=partition)
            self._kept.drop(partition)
            return
        # Nothing was written. Whoever holds the lease now applies these events.
        _log.warning("fenced", partition=partition, error=str(refusal))
        self._leases.lose(partition)
        self._kept.drop(partition)
        self._linking.forget()
        del self._cursors[partition]
        self._next_share_s = 0.0

    def _archive(self) -> None:
        while not self._stopping.wait(self._settings.archive_every_s):
            self._archive_once()
        self._archive_once()

    def _archive_once(self) -> None:
        for partition in self._leases.epochs:
            try:
                with translated():
                    self._archiver.run([partition])
            except (PortraitError, OSError, redis.RedisError) as error:
                _log.warning("archive_failed", partition=partition, error=type(error).__name__)
            except Exception:  # noqa: BLE001 - the thread goes on with the other partitions
                _log.exception("archive_broke", partition=partition)

    def _join(self) -> None:
        while not self._stopping.wait(_LATE_S):
            self._join_late()

    def _join_late(self) -> None:
        for partition in self._leases.epochs:
            try:
                with translated():
                    self._late_links.run(partition)
            except (PortraitError, OSError, redis.RedisError) as error:
                _log.warning("late_links_failed", partition=partition, error=str(error)[:200])
            except Exception:  # noqa: BLE001 - the thread goes on with the other partitions
                _log.exception("late_links_broke", partition=partition)


def _bury(batches: Sequence[Batch], poison: Mapping[int, str]) -> set[str]:
    """Make events of the batches dead letters, by index among all, and return whose they were."""
    users, start = set[str](), 0
    for batch in batches if poison else ():
        end = start + len(batch.events)
        for buried, index in enumerate(sorted(n for n in poison if start <= n < end)):
            at = index - start - buried
            users.add(batch.events[at].user)
            batch.bury(at, poison[index])
            _log.warning("poison_event", partition=batch.partition, reason=poison[index])
        start = end
    return users


def _counts(batch: Batch, rows: Mapping[str, LiveState | None]) -> dict[str, int]:
    """Return what a batch adds to the statistics."""
    newest, late = dict[str, int](), 0
    for event in batch.events:
        user, time_ms = event.user, event.time_ms
        before = newest.get(user)
        if before is None:
            row = rows[user]
            before = 0 if row is None else row.time_ms
        if time_ms < before:
            late += 1
            time_ms = before
        newest[user] = time_ms
    return {"events": len(batch.events), "late": late, "dead": len(batch.dead)}


class Updater:
    """Ray Serve deployment: one loop a replica; replicas share the partitions by leases.

    Parameters
    ----------
    settings, url
        See `UpdaterLoop`.
    """

    def __init__(self, settings: Settings, url: str) -> None:
        from services.models import loaded
        from services.runtime import replica

        replica.begin(settings, "updater")
        with closing(connect(url)) as client:
            transition = loaded.begin(settings, client)
        self._loop = UpdaterLoop(settings, url, transition)
        freeze_heap.freeze_heap()
        self._thread = threading.Thread(target=self._loop.run, name="updater", daemon=True)
        self._thread.start()
        self._erasures = Erasures(settings, url, self._loop.forget_people)
        self._erasures.start()
        self._models = ModelFollower(settings, url, transition, self._loop.partitions)
        self._models.start()

    def check_health(self) -> None:
        """Raise when the loop has died, so that Serve replaces the replica."""
        if not self._thread.is_alive():
            raise RuntimeError("the updater's loop has ended: see the replica's log")

    def __del__(self) -> None:
        loop = getattr(self, "_loop", None)
        if loop is not None:
            for each in ("_erasures", "_models"):
                if (beside := getattr(self, each, None)) is not None:
                    beside.stop()
            loop.stop()
            self._thread.join(timeout=15)


__all__ = ["STATS_KEY", "UPDATERS", "Updater", "UpdaterLoop"]
