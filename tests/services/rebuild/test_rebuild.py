"""Rows made again while events come in: equal to the fold, never older, nobody held up."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import redis
from event_log import TENANT, Sum, append, drain, event, running

from feature_repo.archive import Archive, LogPosition
from feature_repo.errors import PortraitError, StoreUnavailableError
from feature_repo.events import EventRecord
from feature_repo.live_row import LiveState, row_key
from feature_repo.live_store import load_live, read_live, replace_live
from services import models
from services.dead_letters import drop, letters, retry, voided
from services.log.archiver import Archiver, decoded
from services.log.keys import cursor_key, log_key
from services.rebuild import jobs as rebuild_jobs
from services.rebuild import refold
from services.rebuild.model_switch import followed, switch_model
from services.rebuild.refold import ATTEMPTS
from services.rebuild.run import rebuild
from services.settings import Settings
from services.transition import Transition
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


@pytest.fixture(autouse=True)
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Return a function that chooses the model, for jobs that run in this process."""

    def choose(learned: Any) -> None:
        rebuild_jobs._transition.cache_clear()
        monkeypatch.setattr(models, "transition", lambda settings: made(learned))

    choose(Sum())
    return choose


def made(learned: Any) -> Transition:
    known = {one.version: one for one in (Sum(), Newer())}
    return Transition(learned, known.get)


@pytest.fixture
def settings(redis_url: str, store_client: redis.Redis, tmp_path: Path) -> Iterator[Settings]:
    (tmp_path / "tenant.json").write_text(
        json.dumps({"key": TENANT.key.hex(), "partitions": PARTITIONS})
    )
    yield Settings(home=tmp_path, redis_url=redis_url, partitions=PARTITIONS)
    rebuild_jobs._transition.cache_clear()


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
        for position, record in decoded(client.xrange(log_key(partition))):
            found.setdefault(record.user, {})[position, record.id] = record
    void = {p: voided(client, p) for p in range(PARTITIONS)}
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
    return [TENANT.entity(name) for name in names]


def test_everyone_is_made_again_from_archive_and_log(
    settings: Settings, store_client: redis.Redis
) -> None:
    users = shop(settings, store_client)
    before = read_live(store_client, users)
    store_client.delete(*map(row_key, users[:5]))
    load_live(store_client, {users[6]: LiveState(b"garbage", b"", 4, "x", 1)})
    told = []
    assert rebuild(settings, progress=lambda *step: told.append(step)) == len(users)
    assert read_live(store_client, users) == before
    assert assert_rows_are_the_fold(store_client, settings) == len(users)
    assert told[0] == (0, 0, "profiles")
    assert told[-1] == (len(users), len(users), "profiles")
    [part] = (settings.home / "features" / "live_state").glob("rebuild-*.parquet")
    table = pq.read_table(part).to_pylist()
    assert {row["user"]: row["version"] for row in table} == dict.fromkeys(users, 4)
    assert [path.name for path in (settings.home / "features").iterdir()] == ["live_state"]


def test_only_the_given_users_are_made_again(settings: Settings, store_client: redis.Redis) -> None:
    users = shop(settings, store_client)
    store_client.delete(*map(row_key, users))
    unknown = TENANT.entity("nobody")
    assert rebuild(settings, users=[users[0], unknown, users[3]]) == 2
    alive = [user for user, row in zip(users, read_live(store_client, users), strict=True) if row]
    assert alive == [users[0], users[3]]
    assert read_live(store_client, [unknown]) == [None]
    assert rebuild(settings, users=[]) == 0


def test_imported_history_comes_first(settings: Settings, store_client: redis.Redis) -> None:
    users = shop(settings, store_client, users=2)
    archive_of(settings).append(
        "import-shop-1", [(LogPosition.imported(2**40), event("u0", "imported"))]
    )
    assert rebuild(settings) == 2
    [row] = read_live(store_client, users[:1])
    assert row
    assert (row.version, row.learned[:9]) == (5, b"imported;")
    assert_rows_are_the_fold(store_client, settings)


def test_dead_letters_are_left_out_and_retried_ones_count_once(
    settings: Settings, store_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.redis_url
    append(settings.redis_url, [event("a", "1"), event("a", "poison-1"), event("a", "poison-2")])
    append(settings.redis_url, [event("a", "2"), event("a", "poison-3")])
    apply(store_client, settings)
    Archiver(store_client, archive_of(settings)).run(range(PARTITIONS))

    class Tolerant(Sum):
        def replay(self, histories: Any, states: Any) -> list[bytes]:
            kept = [[replace_id(one) for one in events] for events in histories]
            return super().replay(kept, states)

    def replace_id(one: EventRecord) -> EventRecord:
        return EventRecord.decode(one.encode().replace(b"poison", b"cured!"))

    found = letters(store_client, range(PARTITIONS))
    assert len(found) == 3
    assert retry(store_client, range(PARTITIONS), [found[0].id]) == {found[0].id: "retried"}
    drop(store_client, range(PARTITIONS), [found[1].id])
    monkeypatch.setattr(models, "transition", lambda settings: Transition(Tolerant()))
    updater = UpdaterLoop(settings, settings.redis_url, Transition(Tolerant()))
    drain(updater)
    [row] = read_live(store_client, [TENANT.entity("a")])
    assert row
    assert (row.version, row.learned) == (3, b"1;2;cured!-1;")
    rebuild_jobs._transition.cache_clear()
    store_client.delete(row_key(TENANT.entity("a")))
    assert rebuild(settings) == 1
    assert read_live(store_client, [TENANT.entity("a")]) == [row]


def test_events_that_are_not_applied_yet_are_left_to_the_updater(
    settings: Settings, store_client: redis.Redis
) -> None:
    users = shop(settings, store_client, users=3)
    before = read_live(store_client, users)
    assert settings.redis_url
    append(settings.redis_url, [event("u0", "pending"), event("new", "first")])
    rebuild(settings)
    assert read_live(store_client, users) == before
    apply(store_client, settings)
    assert assert_rows_are_the_fold(store_client, settings) == 4


def test_what_moves_to_the_archive_while_it_is_read_is_neither_missed_nor_doubled(
    settings: Settings, store_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = shop(settings, store_client)
    real = refold.PartitionHistory._archived
    moved = list[int]()

    def archived(self: Any, *given: Any) -> Any:  # after the log was read, before the archive is
        moved.append(Archiver(store_client, archive_of(settings)).run(range(PARTITIONS)))
        return real(self, *given)

    monkeypatch.setattr(refold.PartitionHistory, "_archived", archived)
    store_client.delete(*map(row_key, users))
    assert rebuild(settings) == len(users)
    assert sum(moved) == 24
    assert_rows_are_the_fold(store_client, settings)

    listed = refold.PartitionHistory._logged

    def logged(self: Any, *given: Any) -> Any:  # before the log is read: it is in the archive
        Archiver(store_client, archive_of(settings)).run(range(PARTITIONS))
        return listed(self, *given)

    monkeypatch.setattr(refold.PartitionHistory, "_logged", logged)
    shop(settings, store_client)
    store_client.delete(*map(row_key, users))
    assert rebuild(settings) == len(users)
    assert_rows_are_the_fold(store_client, settings)


@pytest.mark.parametrize("times", [1, ATTEMPTS + 1], ids=["once", "always"])
def test_rows_that_move_meanwhile_are_caught_up_with(
    settings: Settings, store_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    users = shop(settings, store_client, users=1)
    updater, left = updater_of(settings), list(range(times))
    while len(updater._leases.held) < PARTITIONS:
        drain(updater)

    def busy(client: Any, partition: int, rows: Any, expected: Any) -> set[str]:
        assert settings.redis_url
        if left:
            append(settings.redis_url, [event("u0", f"busy{left.pop()}")])
            for _ in range(2):  # a switch of the model ends a round
                drain(updater)
        if len(left) % 2:  # what came since may be in the archive by now
            Archiver(store_client, archive_of(settings)).run(range(PARTITIONS))
        return replace_live(client, partition, rows, expected)

    monkeypatch.setattr(refold, "replace_live", busy)
    folds = list[int]()
    monkeypatch.setattr(
        Transition, "fold", lambda self, h, fold=Transition.fold: folds.append(1) or fold(self, h)
    )
    load_live(store_client, {users[0]: replace(read_row(store_client, users[0]), learned=b"?")})
    assert rebuild(settings) == 1
    assert folds == [1]  # what came since is folded on top
    if times == 1:
        assert_rows_are_the_fold(store_client, settings)
    else:  # the lease was taken: the updater was fenced off, and goes on afterwards
        assert read_row(store_client, users[0]).learned.count(b";") == 4 + ATTEMPTS
        assert store_client.hget(b"{p%03d}lease" % int(users[0][2:5]), "owner") == b""
        for _ in range(2):
            drain(updater)
    assert read_row(store_client, users[0]).version == 4 + times


def read_row(client: Any, user: str) -> LiveState:
    [row] = read_live(client, [user])
    assert row
    return row


def test_a_history_that_is_shorter_than_the_row_leaves_the_row(
    settings: Settings, store_client: redis.Redis
) -> None:
    users = shop(settings, store_client)
    archive = archive_of(settings)
    for part in archive.parts():
        if part.name.startswith(users[0][1:5]):
            part.unlink()
    same = {user for user in users if user[1:5] == users[0][1:5]}
    before = read_live(store_client, users)
    with pytest.raises(PortraitError, match=f"{len(same)} of 12 profiles were left as they are"):
        rebuild(settings)
    assert read_live(store_client, users) == before
    store_client.delete(*map(row_key, users))
    assert rebuild(settings) == len(users)  # better a part of it than none


def test_a_new_store_is_filled_from_the_archive(
    settings: Settings, store_client: redis.Redis
) -> None:
    users = shop(settings, store_client)
    Archiver(store_client, archive_of(settings)).run(range(PARTITIONS))
    before = read_live(store_client, users)
    store_client.flushall()
    assert rebuild(settings) == len(users)
    assert read_live(store_client, users) == before
    # And events that came before anyone rebuilt are applied once, then and afterwards.
    store_client.flushall()
    assert settings.redis_url
    append(settings.redis_url, [event("u0", "new")])
    assert rebuild(settings) == len(users)
    apply(store_client, settings)
    assert read_row(store_client, users[0]).version == 5
    Archiver(store_client, archive_of(settings)).run(range(PARTITIONS))
    assert rebuild(settings) == len(users)
    assert_rows_are_the_fold(store_client, settings)


def test_a_store_that_lost_its_last_writes_is_not_given_events_twice(
    settings: Settings, store_client: redis.Redis
) -> None:
    """The archive goes further than the cursor: what is still in the log is left to be applied."""
    users = shop(settings, store_client, users=1)
    partition = int(users[0][2:5])
    log, cursor = log_key(partition), cursor_key(partition)
    entries = store_client.xrange(log)
    Archiver(store_client, archive_of(settings)).run(range(PARTITIONS))
    store_client.flushall()
    for name, fields in entries[-2:]:  # two of four are applied, the third is lost, one pends
        if name != entries[-2][0]:
            store_client.xadd(log, fields, id=name)
    store_client.hset(cursor, "cursor", entries[-3][0])
    assert rebuild(settings) == 1
    assert read_row(store_client, users[0]).version == 3
    apply(store_client, settings)
    assert read_row(store_client, users[0]).version == 4
    assert rebuild(settings) == 1
    assert_rows_are_the_fold(store_client, settings)


def test_an_erased_user_does_not_come_back(settings: Settings, store_client: redis.Redis) -> None:
    users = shop(settings, store_client)
    store_client.delete(*map(row_key, users))
    store_client.sadd(b"{p%03d}erased" % int(users[0][2:5]), users[0])
    assert rebuild(settings) == len(users) - 1
    assert read_live(store_client, users[:1]) == [None]


def test_a_partition_is_told_once_to_follow_another_model(store_client: redis.Redis) -> None:
    assert switch_model(store_client, range(3), "") == []
    assert switch_model(store_client, range(3), "m1") == [0, 1, 2]
    assert switch_model(store_client, range(4), "m1") == [3]
    store_client.hset(cursor_key(1), mapping={"cursor": "9999999999999-0", "model": "m2"})
    assert [followed(store_client, p) for p in range(5)] == ["m1", "m2", "m1", "m1", ""]
    for n in range(2500):
        store_client.xadd(log_key(0), {"e": str(n)})
    assert followed(store_client, 0) == "m1"
    assert switch_model(store_client, [0, 1], "") == [0, 1]
    assert switch_model(store_client, [0, 1], "") == [1]  # cursor beyond the log: it says m2


def test_another_model_is_followed_by_old_rows_and_new_ones(
    settings: Settings, store_client: redis.Redis, serve: Callable[[Any], None]
) -> None:
    assert settings.redis_url
    users = shop(settings, store_client)
    serve(Newer())
    assert rebuild(settings) == len(users)
    assert [followed(store_client, p) for p in range(PARTITIONS)] == ["sum-2"] * PARTITIONS
    append(settings.redis_url, [event(name, "after") for name in ("u0", "u1", "fresh")])
    apply(store_client, settings)
    rows = read_live(store_client, [*users, TENANT.entity("fresh")])
    assert {row.model for row in rows if row} == {"sum-2"}
    assert assert_rows_are_the_fold(store_client, settings, Newer()) == 13
    assert store_client.hget(cursor_key(int(users[0][2:5])), "model") == b"sum-2"
    logs = [store_client.xlen(log_key(p)) for p in range(PARTITIONS)]
    rebuild(settings)
    assert [store_client.xlen(log_key(p)) for p in range(PARTITIONS)] == logs


def test_an_updater_that_read_the_rows_before_does_not_undo_a_rebuild(
    settings: Settings,
    store_client: redis.Redis,
    serve: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert settings.redis_url
    users = shop(settings, store_client)
    append(settings.redis_url, [event("u0", "late"), event("u1", "late")])
    updater = updater_of(settings)
    real, rebuilt = updater._transition.apply, list[int]()

    def slow(*given: Any) -> Any:  # it has read the rows; when it commits they are others
        if not rebuilt:
            serve(Newer())
            rebuilt.append(rebuild(settings))
        return real(*given)

    monkeypatch.setattr(updater._transition, "apply", slow)
    while any(lags(store_client, partition) for partition in range(PARTITIONS)):
        drain(updater)
    assert rebuilt == [len(users)]
    assert assert_rows_are_the_fold(store_client, settings, Newer()) == len(users)


def test_everyone_is_rebuilt_again_and_again_while_events_come_in(
    settings: Settings,
    store_client: redis.Redis,
    serve: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """I2 and I3: every row is the fold of its log at the end, and no version ever falls."""
    monkeypatch.setattr("services.update.updater.SETTLE_MS", 0)  # the archive grows meanwhile
    assert settings.redis_url
    busy = settings.model_copy(update={"archive_every_s": 0.05})
    updater = updater_of(busy)
    names = [f"u{n}" for n in range(30)]
    users = [TENANT.entity(name) for name in names]
    stop, appended, fell = threading.Event(), list[int](), list[object]()

    def send() -> None:
        assert settings.redis_url
        while not stop.is_set():
            n = len(appended)
            chosen = names[n % 7 :: 7] + names[:3]
            events = [event(name, f"{n}-{i}") for i, name in enumerate(chosen)]
            while True:
                try:
                    append(settings.redis_url, events)
                    break
                except StoreUnavailableError:  # a busy machine; the same ids, as clients are told
                    continue
            appended.append(len(chosen))

    def poll() -> None:
        client = redis.Redis.from_url(str(settings.redis_url))
        last = dict.fromkeys(users, 0)
        while not stop.is_set():
            for user, row in zip(users, read_live(client, users), strict=True):
                version = 0 if row is None else row.version
                if version < last[user]:
                    fell.append((user, last[user], version))
                last[user] = version
        client.close()

    with running([updater]), ThreadPoolExecutor(2) as pool:
        work = [pool.submit(send), pool.submit(poll)]
        try:
            while len(appended) < 5 and not any(one.done() for one in work):
                stop.wait(0.01)
            for model in (Sum(), Newer(), Newer(), Sum(), Sum()):
                serve(model)
                assert rebuild(settings) >= 20
        finally:
            stop.set()
        for one in work:
            one.result()
    assert fell == []
    apply(store_client, settings)
    versions = [row.version for row in read_live(store_client, users) if row]
    assert sum(versions) == sum(appended)
    assert assert_rows_are_the_fold(store_client, settings) == 30
    assert not archive_of(settings).empty()


def test_many_users_are_made_on_ray(
    settings: Settings, store_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers are other processes: they choose the model themselves, here none."""
    monkeypatch.undo()
    monkeypatch.setattr(rebuild_jobs, "INLINE_USERS", 10)
    assert settings.redis_url
    append(settings.redis_url, [event(f"u{n % 40}", str(n)) for n in range(200)])
    updater = UpdaterLoop(settings, settings.redis_url, Transition(None))
    while any(lags(store_client, partition) for partition in range(PARTITIONS)):
        drain(updater)
    users = [TENANT.entity(f"u{n}") for n in range(40)]
    before = read_live(store_client, users)
    store_client.delete(*map(row_key, users))
    assert rebuild(settings) == 40
    assert read_live(store_client, users) == before
    [part] = (settings.home / "features" / "live_state").glob("*.parquet")
    assert pq.read_metadata(part).num_rows == 40
