"""Rows made again while events come in: never older, nobody held up."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import redis
from event_log import PSEUDONYMS, Sum, append, drain, event, running
from rebuilt_shop import (
    PARTITIONS,
    Newer,
    apply,
    archive_of,
    assert_rows_are_the_fold,
    lags,
    read_row,
    shop,
    updater_of,
)

from feature_repo.online.live_row import row_key
from feature_repo.online.live_rows import load_live, read_live, replace_live
from services.event_log.archiver import Archiver
from services.history import refolding
from services.history.refolding import ATTEMPTS
from services.models.transition import Transition
from services.rebuild.run import rebuild
from services.settings import Settings


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
    real = refolding.PartitionHistory._read_archive
    moved = list[int]()

    def archived(self: Any, *given: Any) -> Any:  # after the log was read, before the archive is
        moved.append(Archiver(store_client, archive_of(settings)).run(range(PARTITIONS)))
        return real(self, *given)

    monkeypatch.setattr(refolding.PartitionHistory, "_read_archive", archived)
    store_client.delete(*map(row_key, users))
    assert rebuild(settings) == len(users)
    assert sum(moved) == 24
    assert_rows_are_the_fold(store_client, settings)

    listed = refolding.PartitionHistory._read_log

    def logged(self: Any, *given: Any) -> Any:  # before the log is read: it is in the archive
        Archiver(store_client, archive_of(settings)).run(range(PARTITIONS))
        return listed(self, *given)

    monkeypatch.setattr(refolding.PartitionHistory, "_read_log", logged)
    shop(settings, store_client)
    store_client.delete(*map(row_key, users))
    assert rebuild(settings) == len(users)
    assert_rows_are_the_fold(store_client, settings)


@pytest.mark.parametrize("goes_on", [False, True], ids=["lost", "as many others came"])
def test_what_the_store_loses_after_it_was_read_is_in_no_row(
    settings: Settings, store_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    users = shop(settings, store_client, users=3)
    written = {key: store_client.dump(key) for key in store_client.scan_iter()}
    url = settings.redis_url
    assert url
    append(url, [event(user, f"last of {user}") for user in ("u0", "u1", "u2")])
    apply(store_client, settings)
    real = refolding.PartitionHistory.whole
    cuts = list[int]()

    def cut(self: Any, *given: Any) -> Any:
        found = real(self, *given)
        if not cuts:
            cuts.append(store_client.flushdb())
            for key, value in written.items():
                store_client.restore(key, 0, value)
            if goes_on:  # to the same versions, and a cursor beyond
                append(url, [event(user, f"other of {user}") for user in ("u0", "u1", "u2")])
                apply(store_client, settings)
        return found

    monkeypatch.setattr(refolding.PartitionHistory, "whole", cut)
    assert rebuild(settings) == len(users)
    assert cuts
    assert assert_rows_are_the_fold(store_client, settings) == len(users)


@pytest.mark.parametrize("times", [1, ATTEMPTS + 1], ids=["once", "always"])
def test_rows_that_move_meanwhile_are_caught_up_with(
    settings: Settings, store_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    users = shop(settings, store_client, users=1)
    updater, left, archived = updater_of(settings), list(range(times)), list[int]()
    while len(updater._leases.owned) < PARTITIONS:
        drain(updater)

    def busy(
        client: Any, partition: int, rows: Any, expected: Any, entry: str, keep_s: int
    ) -> set[str]:
        assert settings.redis_url
        if left:
            append(settings.redis_url, [event("u0", f"busy{left.pop()}")])
            for _ in range(2):  # a switch of the model ends a round
                drain(updater)
        if len(left) % 2:  # what came since may be in the archive by now
            archived.append(1)
            Archiver(store_client, archive_of(settings)).run(range(PARTITIONS))
        return replace_live(client, partition, rows, expected, entry, keep_s)

    monkeypatch.setattr(refolding, "replace_live", busy)
    folds = list[int]()
    monkeypatch.setattr(
        Transition, "fold", lambda self, h, fold=Transition.fold: folds.append(1) or fold(self, h)
    )
    load_live(store_client, {users[0]: replace(read_row(store_client, users[0]), learned=b"?")})
    assert rebuild(settings) == 1
    # What came since is folded on top, or all again where the log does not hold the end of before.
    assert len(folds) <= 1 + len(archived) < times or folds == [1]
    if times == 1:
        assert_rows_are_the_fold(store_client, settings)
    else:  # the lease was taken: the updater was fenced off, and goes on afterwards
        assert read_row(store_client, users[0]).learned.count(b";") == 4 + ATTEMPTS
        assert store_client.hget(b"{p%03d}lease" % int(users[0][2:5]), "owner") == b""
        for _ in range(2):
            drain(updater)
    assert read_row(store_client, users[0]).version == 4 + times


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
    users = [PSEUDONYMS.of_user(name) for name in names]
    stop, appended, fell = threading.Event(), list[int](), list[object]()

    def send() -> None:
        assert settings.redis_url
        while not stop.is_set():
            n = len(appended)
            chosen = names[n % 7 :: 7] + names[:3]
            events = [event(name, f"{n}-{i}") for i, name in enumerate(chosen)]
            append(settings.redis_url, events)
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
