"""Leases, and several updaters that come, go, die and sleep while events flow."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from event_log import PARTITIONS, PSEUDONYMS, Sum, append, event, loop, running
from store_nodes import Node
from waiting import wait_until

from feature_repo.events.schema import EventRecord
from feature_repo.online.live_rows import read_live
from services.update.counters import STATS_KEY
from services.update.lease import UPDATERS, Leases, lease_key
from services.update.updater import UpdaterLoop

LEASE_MS = 600


def test_owners_share_partitions_and_hand_them_over(store_client: redis.Redis) -> None:
    first, second, third = (Leases(store_client, name) for name in ("first", "second", "third"))
    first.share(8)
    assert len(first.epochs) == 8
    for _ in range(2):
        for owner in (first, second, third):
            owner.share(8)
    held = [set(owner.epochs) for owner in (first, second, third)]
    assert sorted(map(len, held)) == [2, 3, 3]
    assert set().union(*held) == set(range(8))
    assert store_client.zcard(UPDATERS) == 3
    first.leave()
    for owner in (second, third, second):
        owner.share(8)
    assert set(second.epochs) | set(third.epochs) == set(range(8))
    assert len(second.epochs) == len(third.epochs) == 4
    assert store_client.zcard(UPDATERS) == 2


def test_every_new_owner_raises_the_epoch_and_a_renewal_does_not(
    store_client: redis.Redis,
) -> None:
    first, second = Leases(store_client, "first"), Leases(store_client, "second")
    assert first.take(3)
    assert first.take(3)
    assert first.epochs == {3: 1}
    assert not second.take(3)
    store_client.hset(lease_key(3), "until_ms", 0)  # expired, by the store's clock
    assert second.take(3)
    assert second.epochs == {3: 2}
    assert not first.take(3)
    assert first.epochs == {}
    first.release(3)  # not ours any more: nothing happens
    assert store_client.hget(lease_key(3), "owner") == b"second"


def test_more_owners_than_partitions(store_client: redis.Redis) -> None:
    owners = [Leases(store_client, f"o{n}") for n in range(5)]
    for _ in range(3):
        for owner in owners:
            owner.share(3)
    assert sorted(len(owner.epochs) for owner in owners) == [0, 0, 1, 1, 1]


def test_a_thousand_partitions_are_shared_too(store_client: redis.Redis) -> None:
    first, second = Leases(store_client, "a"), Leases(store_client, "b")
    first.share(1000)
    second.share(1000)
    first.share(1000)
    second.share(1000)
    assert (len(first.epochs), len(second.epochs)) == (500, 500)
    lost = next(iter(first.epochs))
    first.release(lost)
    first.share(1000)
    assert set(first.epochs) | set(second.epochs) == set(range(1000))


class Flow:
    """Appends events of 12 users, and knows what their rows must come to."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._sent: dict[str, list[str]] = defaultdict(list)
        self.count = 0

    def send(self, events: int = 60) -> None:
        records = []
        for _ in range(events):
            user, name = f"u{self.count % 12}", str(self.count)
            self._sent[user].append(name)
            records.append(event(user, name))
            self.count += 1
        append(self._url, records)

    def applied(self, client: redis.Redis) -> bool:
        rows = read_live(client, [PSEUDONYMS.of_user(user) for user in self._sent])
        return sum(row.version for row in rows if row is not None) >= self.count

    def check(self, client: redis.Redis) -> None:
        for user, names in self._sent.items():
            [row] = read_live(client, [PSEUDONYMS.of_user(user)])
            assert row is not None
            assert row.learned.decode() == "".join(f"{name};" for name in names)
            assert row.version == len(names)


def shares(updaters: Sequence[UpdaterLoop]) -> list[int]:
    return sorted(len(updater._leases.epochs) for updater in updaters)


def test_updaters_come_and_go_and_everything_is_applied_once(
    redis_url: str, store_client: redis.Redis, tmp_path: Path
) -> None:
    flow = Flow(redis_url)
    first, second, third = (
        loop(redis_url, tmp_path / str(n), Sum(), lease_ms=LEASE_MS) for n in range(3)
    )
    with running([first]):
        flow.send()
        wait_until(lambda: shares([first]) == [PARTITIONS], "one owner of all")
        with running([second, third]):
            flow.send()
            wait_until(lambda: shares([first, second, third]) == [1, 1, 2], "three owners")
            flow.send()
            wait_until(lambda: flow.applied(store_client), "all applied")
            assert all(updater.applied for updater in (second, third))
        flow.send()
        wait_until(lambda: shares([first]) == [PARTITIONS], "one owner again")
        wait_until(lambda: flow.applied(store_client), "all applied")
    flow.check(store_client)
    assert store_client.hget(STATS_KEY, "events") == b"%d" % flow.count
    assert store_client.zcard(UPDATERS) == 0


def test_the_partitions_of_an_updater_that_died_are_taken_over(
    redis_url: str, store_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = Flow(redis_url)
    dying, other = (loop(redis_url, tmp_path / str(n), Sum(), lease_ms=LEASE_MS) for n in range(2))
    monkeypatch.setattr(dying._leases, "leave", lambda: None)
    with running([other]):
        with running([dying]):
            wait_until(lambda: shares([dying, other]) == [2, 2], "two owners")
            flow.send()
        flow.send()
        wait_until(lambda: shares([other]) == [PARTITIONS], "one owner")
        wait_until(lambda: flow.applied(store_client), "all applied")
    flow.check(store_client)
    assert store_client.hget(STATS_KEY, "events") == b"%d" % flow.count


class Sleeping(Sum):
    """An encoder that falls asleep in a batch, past its updater's lease."""

    def __init__(self) -> None:
        super().__init__()
        self.asleep, self.wake = threading.Event(), threading.Event()

    def replay(self, histories: Sequence[Sequence[EventRecord]], states: Any) -> list[bytes]:
        if not self.asleep.is_set():
            self.asleep.set()
            self.wake.wait(20)
        return super().replay(histories, states)


def test_an_updater_that_sleeps_past_its_lease_writes_nothing_when_it_wakes(
    redis_url: str, store_client: redis.Redis, tmp_path: Path
) -> None:
    flow, encoder = Flow(redis_url), Sleeping()
    sleeper = loop(redis_url, tmp_path / "0", encoder, lease_ms=LEASE_MS)
    other = loop(redis_url, tmp_path / "1", Sum(), lease_ms=LEASE_MS)
    try:
        with running([sleeper]):
            flow.send()
            assert encoder.asleep.wait(20)
            mine = set(sleeper._leases.epochs)
            with running([other]):
                wait_until(lambda: mine <= set(other._leases.epochs), "the lease has passed on")
                flow.send()
                wait_until(lambda: flow.applied(store_client), "all applied")
                encoder.wake.set()
                wait_until(lambda: shares([sleeper, other]) == [2, 2], "shared again")
                flow.send()
                wait_until(lambda: flow.applied(store_client), "all applied")
    finally:
        encoder.wake.set()
    flow.check(store_client)
    assert store_client.hget(STATS_KEY, "events") == b"%d" % flow.count


def test_updaters_survive_an_outage_of_the_store(tmp_path: Path) -> None:
    with Node(tmp_path / "store", "--appendonly", "yes", "--appendfsync", "always") as node:
        flow = Flow(node.url)
        updaters = [loop(node.url, tmp_path / str(n), Sum(), lease_ms=LEASE_MS) for n in range(2)]
        with running(updaters), node.client() as client:
            flow.send()
            wait_until(lambda: flow.applied(client), "all applied")
            node.kill()
            node.start()
            flow.send()
            wait_until(lambda: flow.applied(client), "all applied after a restart")
            node.pause()
            threading.Event().wait(2 * LEASE_MS / 1000)
            node.resume()
            flow.send()
            wait_until(lambda: flow.applied(client), "all applied after a pause")
            flow.check(client)
