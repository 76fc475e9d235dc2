"""Rows made again from archive and log: equal to the fold."""

from typing import Any

import pyarrow.parquet as pq
import pytest
import redis
from event_log import PSEUDONYMS, Sum, append, drain, event
from rebuilt_shop import (
    PARTITIONS,
    apply,
    archive_of,
    assert_rows_are_the_fold,
    lags,
    read_row,
    shop,
)

from feature_repo.archive.event_archive import LogPosition
from feature_repo.errors import NotFoundError, PortraitError
from feature_repo.events.schema import EventRecord
from feature_repo.online.live_row import LiveState, row_key
from feature_repo.online.live_rows import load_live, read_live
from services.event_log.archiver import Archiver
from services.event_log.dead_letters import drop, letters, retry
from services.event_log.keys import cursor_key, log_key
from services.models import loaded
from services.models.transition import Transition
from services.rebuild import jobs as rebuild_jobs
from services.rebuild.run import find_users, rebuild
from services.settings import Settings
from services.update.updater import UpdaterLoop


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
    unknown = PSEUDONYMS.of_user("nobody")
    assert rebuild(settings, users=[users[0], unknown, users[3]]) == 2
    alive = [user for user, row in zip(users, read_live(store_client, users), strict=True) if row]
    assert alive == [users[0], users[3]]
    assert read_live(store_client, [unknown]) == [None]
    assert rebuild(settings, users=[]) == 0


def test_a_user_is_known_by_archive_log_or_row(
    settings: Settings, store_client: redis.Redis
) -> None:
    users = ["archived", "logged", "alive"]
    archive_of(settings).append("a-1", [(LogPosition.imported(1), event("archived", "1"))])
    assert settings.redis_url
    append(settings.redis_url, [event("logged", "2")])
    load_live(store_client, {PSEUDONYMS.of_user("alive"): LiveState(b"p", b"", 1, "x", 1)})
    assert find_users(settings, users) == list(map(PSEUDONYMS.of_user, users))
    with pytest.raises(NotFoundError, match="'absent'"):
        find_users(settings, ["alive", "absent"])


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
    monkeypatch.setattr(loaded, "transition", lambda settings: Transition(Tolerant()))
    updater = UpdaterLoop(settings, settings.redis_url, Transition(Tolerant()))
    drain(updater)
    [row] = read_live(store_client, [PSEUDONYMS.of_user("a")])
    assert row
    assert (row.version, row.learned) == (3, b"1;2;cured!-1;")
    rebuild_jobs._transition.cache_clear()
    store_client.delete(row_key(PSEUDONYMS.of_user("a")))
    assert rebuild(settings) == 1
    assert read_live(store_client, [PSEUDONYMS.of_user("a")]) == [row]


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
    users = [PSEUDONYMS.of_user(f"u{n}") for n in range(40)]
    before = read_live(store_client, users)
    store_client.delete(*map(row_key, users))
    assert rebuild(settings) == 40
    assert read_live(store_client, users) == before
    [part] = (settings.home / "features" / "live_state").glob("*.parquet")
    assert pq.read_metadata(part).num_rows == 40
