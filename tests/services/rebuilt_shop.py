"""A small shop whose rows are made again, and what they must be."""

from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq
from event_log import PSEUDONYMS, Sum, append, drain, event

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.events.schema import EventRecord
from feature_repo.online.live_row import LiveState
from feature_repo.online.live_rows import read_live
from services.event_log.archiver import Archiver
from services.event_log.dead_letters import read_voided
from services.event_log.entries import decode
from services.event_log.keys import cursor_key, log_key
from services.models.transition import Transition
from services.settings import Settings
from services.update.updater import UpdaterLoop

PARTITIONS = 4


class Newer(Sum):
    """Another model: its states cannot be taken for the other's."""

    def __init__(self) -> None:
        super().__init__("sum-2")

    def replay(
        self, histories: Sequence[Sequence[EventRecord]], states: Sequence[bytes | None]
    ) -> list[bytes]:
        assert not any(state and not state.startswith(b"new:") for state in states)
        plain = [state.removeprefix(b"new:") if state else None for state in states]
        return [b"new:" + state for state in super().replay(histories, plain)]


def made(learned: Any) -> Transition:
    known = {one.version: one for one in (Sum(), Newer())}
    return Transition(learned, known.get)


def archive_of(settings: Settings) -> Archive:
    return Archive(settings.home / "archive" / "events")


def updater_of(settings: Settings, learned: Any = None) -> UpdaterLoop:
    assert settings.redis_url
    return UpdaterLoop(settings, settings.redis_url, made(learned or Sum()))


def apply(client: Any, settings: Settings, learned: Any = None) -> None:
    """Apply everything there is, with an updater that leaves afterwards."""
    updater = updater_of(settings, learned)
    while any(lags(client, partition) for partition in range(PARTITIONS)):
        drain(updater)
    updater._leases.leave()


def lags(client: Any, partition: int) -> bool:
    newest = client.xrevrange(log_key(partition), count=1)
    cursor = client.hget(cursor_key(partition), "cursor") or b"0-0"
    return bool(newest) and LogPosition.parse(newest[0][0]) > LogPosition.parse(cursor)


def history(client: Any, archive: Archive) -> dict[str, list[EventRecord]]:
    """Read every event that is not void from archive and log, the naive way."""
    found: dict[str, dict[tuple[LogPosition, str], EventRecord]] = {}
    for part in archive.parts():
        rows = pq.read_table(part, columns=["log_ms", "log_seq", "record"]).to_pylist()
        for row in rows:
            record = EventRecord.decode(row["record"])
            position = LogPosition(row["log_ms"], row["log_seq"])
            found.setdefault(record.user, {})[position, record.id] = record
    for partition in range(PARTITIONS):
        for position, record in decode(client.xrange(log_key(partition))):
            found.setdefault(record.user, {})[position, record.id] = record
    void = {p: read_voided(client, p) for p in range(PARTITIONS)}
    return {
        user: [
            record
            for (position, _), record in sorted(events.items(), key=lambda item: item[0])
            if (position.ms, position.seq) not in void[int(user[2:5])]
        ]
        for user, events in found.items()
    }


def assert_rows_are_the_fold(client: Any, settings: Settings, learned: Any = None) -> int:
    expected = made(learned or Sum()).fold(history(client, archive_of(settings)))
    assert dict(zip(expected, read_live(client, list(expected)), strict=True)) == expected
    return len(expected)


def shop(settings: Settings, client: Any, users: int = 12, each: int = 4) -> list[str]:
    """Append events, apply them, archive half, append and apply some more; return the users."""
    assert settings.redis_url
    names = [f"u{n}" for n in range(users)]
    for half in range(2):
        append(
            settings.redis_url,
            [event(name, f"{name}-{half}-{n}") for n in range(each // 2) for name in names],
        )
        apply(client, settings)
        if half == 0:
            Archiver(client, archive_of(settings)).run(range(PARTITIONS))
    return [PSEUDONYMS.of_user(name) for name in names]


def read_row(client: Any, user: str) -> LiveState:
    [row] = read_live(client, [user])
    assert row
    return row
