"""Rows from history: folds archive and log again and loads every profile in bulk.

Belongs here: the one other way, besides the updater, in which live rows come to be, with the
same fold. Safe at any time: it takes every partition's lease while it works, so no updater
commits meanwhile; events go on being accepted and are applied afterwards.
"""

import itertools
import multiprocessing
import os
import signal
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import structlog

from feature_repo import explicit
from feature_repo.archive import Archive, write_part
from feature_repo.connection import connect as connect_store
from feature_repo.connection import translated
from feature_repo.entity import Tenant
from feature_repo.errors import StoreUnavailableError
from feature_repo.events import EventRecord
from feature_repo.live_row import LiveState
from feature_repo.online_store import load_live
from services import catalogue, popularity
from services.archiver import decoded
from services.embedded import connect
from services.lease import Leases
from services.log import cursor_key, log_key
from services.models import load_transition
from services.settings import Settings

Progress = Callable[[int, int, str], None]

WORKERS: Final = 2
INLINE_USERS: Final = 200
"""Up to so many users one process is quicker than starting two."""
CHUNK_USERS: Final = 64
LEASE_MS: Final = 15_000

_SNAPSHOT: Final = pa.schema(
    [
        ("user", pa.string()),
        ("event_timestamp", pa.timestamp("us", tz="UTC")),
        ("created", pa.timestamp("us", tz="UTC")),
        ("profile", pa.binary()),
        ("learned", pa.binary()),
        ("version", pa.int64()),
        ("model", pa.string()),
    ]
)

_log = structlog.get_logger(__name__)


def rebuild(
    settings: Settings, *, users: Sequence[str] | None = None, progress: Progress | None = None
) -> int:
    """Fold the history of ``users`` (entity ids; None: everyone) and load their live rows.

    Also fills an empty catalogue and the popularity from the archive, and writes a snapshot
    part of the live view for Feast's offline store.

    Parameters
    ----------
    progress
        Called with users done, users in all, and what is being done.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer, or another rebuild took the leases.
    """
    tell = progress or (lambda done, total, what: None)
    archive = Archive(settings.home / "archive" / "events")
    partitions = Tenant.load(settings.home, settings.partitions).partitions
    with connect(settings) as url:
        client = connect_store(url, timeout_s=30)
        try:
            with translated(), _exclusive(client, partitions) as leases:
                catalogue.load_archive(client, settings.home)
                popularity.seed(client, archive)
                tail = _tail(client, partitions, None if users is None else set(users))
                rows = dict[str, LiveState]()
                for found, total in _folded(settings, archive, users, tail):
                    _check(leases, partitions)
                    load_live(client, found)
                    rows |= found
                    tell(len(rows), total, "profiles")
        finally:
            client.close()
    _write_snapshot(settings.home, rows)
    return len(rows)


@contextmanager
def _exclusive(client: Any, partitions: int) -> Iterator[Leases]:
    """Hold every partition's lease, renewing it from a thread."""
    leases = Leases(client, f"rebuild-{os.getpid()}-{uuid.uuid4().hex[:8]}", LEASE_MS)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(LEASE_MS / 4000):
            try:
                for partition in list(leases.epochs):
                    leases.take(partition)
            except Exception as error:  # noqa: BLE001 - `_check` finds what was lost
                _log.warning("leases_not_renewed", error=type(error).__name__)

    for partition in range(partitions):
        leases.take(partition, force=True)
    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield leases
    finally:
        ended.set()
        thread.join()
        for partition in list(leases.epochs):
            leases.release(partition)


def _check(leases: Leases, partitions: int) -> None:
    if len(leases.epochs) != partitions:
        raise StoreUnavailableError(
            "another process took the leases during the rebuild: run it again"
        )


def _tail(client: Any, partitions: int, users: set[str] | None) -> dict[str, list[bytes]]:
    """Return the entries applied but not archived yet, by user in log order."""
    found = dict[str, list[bytes]]()
    for partition in range(partitions):
        cursor, archived = client.hmget(cursor_key(partition), "cursor", "archived")
        if cursor is None:
            continue
        start = b"(" + (archived or b"0-0")
        for _, record in decoded(client.xrange(log_key(partition), start, cursor)):
            if users is None or record.user in users:
                found.setdefault(record.user, []).append(record.encode())
    return found


def _histories(
    archive: Archive, users: Sequence[str] | None
) -> Iterator[tuple[list[tuple[str, list[bytes]]], int]]:
    """Yield chunks of (user, log entries in fold order), and how many users there are in all."""
    if archive.empty():
        return
    where = "true" if users is None else '"user" IN (SELECT unnest(?))'
    values: list[Any] = [archive.glob(), *([] if users is None else [list(users)])]
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2")
        connection.execute("SET enable_progress_bar = false")
        connection.execute(
            f'''CREATE TEMP TABLE found AS SELECT "user",
            list(record ORDER BY log_ms, log_seq, event_id) AS records
            FROM read_parquet(?) WHERE {where} GROUP BY "user"''',  # noqa: S608
            values,
        )
        counted = connection.execute("SELECT count(*) FROM found").fetchone()
        total = int(counted[0]) if counted else 0
        reader = connection.execute('SELECT "user", records FROM found ORDER BY "user"')
        while chunk := reader.fetchmany(CHUNK_USERS):
            yield chunk, total


def _folded(
    settings: Settings,
    archive: Archive,
    users: Sequence[str] | None,
    tail: dict[str, list[bytes]],
) -> Iterator[tuple[dict[str, LiveState], int]]:
    """Yield rows in chunks, folded by two processes, or here when there are few."""
    rest = dict(tail)
    chunks = _histories(archive, users)
    first = next(chunks, ([], 0))
    total = first[1] + len(rest)
    if total <= INLINE_USERS:
        learned = load_transition(settings)
        for chunk, _ in itertools.chain([first], chunks):
            yield _fold_chunk(_with_tail(chunk, rest), learned), total
        yield _fold_chunk(list(rest.items()), learned), total
        return
    # Spawned, not forked: torch's and DuckDB's threads do not survive a fork.
    with ProcessPoolExecutor(
        WORKERS, multiprocessing.get_context("spawn"), _start_worker, (settings,)
    ) as pool:
        pending = deque[Future[dict[str, LiveState]]]()
        try:
            for chunk, _ in itertools.chain([first], chunks):
                pending.append(pool.submit(_work, _with_tail(chunk, rest)))
                if len(pending) > 3 * WORKERS:
                    yield pending.popleft().result(), total
            pending.append(pool.submit(_work, list(rest.items())))
            while pending:
                yield pending.popleft().result(), total
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _with_tail(
    chunk: list[tuple[str, list[bytes]]], rest: dict[str, list[bytes]]
) -> list[tuple[str, list[bytes]]]:
    return [(user, records + rest.pop(user, [])) for user, records in chunk]


_worker: dict[str, Any] = {}


def _start_worker(settings: Settings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    _worker["learned"] = load_transition(settings)


def _work(chunk: list[tuple[str, list[bytes]]]) -> dict[str, LiveState]:
    return _fold_chunk(chunk, _worker["learned"])


def _fold_chunk(chunk: list[tuple[str, list[bytes]]], learned: Any | None) -> dict[str, LiveState]:
    profiles, kept = {}, {}
    for user, records in chunk:
        profiles[user], kept[user] = _fold([EventRecord.decode(record) for record in records])
    states = [b""] * len(kept)
    if learned is not None:
        states = learned.replay(list(kept.values()))
    return {
        user: LiveState(
            profile=explicit.encode(profiles[user]),
            learned=state,
            version=profiles[user].version,
            model="" if learned is None else learned.version,
            time_ms=max(event.time_ms for event in kept[user]),
        )
        for user, state in zip(kept, states, strict=True)
        if kept[user]
    }


def _fold(events: list[EventRecord]) -> tuple[explicit.ExplicitProfile, list[EventRecord]]:
    try:
        return explicit.fold(events), events
    except Exception:  # noqa: BLE001 - a poison event is left out here as the updater left it out
        profile, kept = explicit.new(), list[EventRecord]()
        for event in events:
            before = explicit.encode(profile)
            try:
                explicit.apply(profile, event)
                kept.append(event)
            except Exception:  # noqa: BLE001
                profile = explicit.decode(before)
        return profile, kept


def _write_snapshot(home: Path, rows: dict[str, LiveState]) -> None:
    if not rows:
        return
    now = datetime.now(UTC)
    moments = _SNAPSHOT.field("event_timestamp").type
    states = list(rows.values())
    table = pa.table(
        [
            pa.array(list(rows)),
            pa.array([s.time_ms * 1000 for s in states], pa.int64()).cast(moments),
            pa.array([now] * len(states), moments),
            pa.array([s.profile for s in states], pa.binary()),
            pa.array([s.learned for s in states], pa.binary()),
            pa.array([s.version for s in states], pa.int64()),
            pa.array([s.model for s in states], pa.string()),
        ],
        schema=_SNAPSHOT,
    )
    write_part(home / "features" / "live_state" / f"rebuild-{now:%Y%m%dT%H%M%S%f}.parquet", table)
