"""Counts beside the commits: what they add up to, and that their writing never fails."""

import subprocess
import sys

import pytest
import redis

from feature_repo.connection import connect
from feature_repo.errors import FencedError, StoreUnavailableError
from feature_repo.events import EventRecord, ItemRecord
from feature_repo.live_store import commit
from services import popularity
from services.log.keys import log_key
from services.patience import Patience
from services.update.tally import STATS_KEY, Tally


def _bought(*items: str) -> EventRecord:
    return EventRecord(
        id="1", type="purchase", user="{p000}", time_ms=1_577_836_800_000, received_ms=0,
        items=[ItemRecord(item) for item in items],
    )  # fmt: skip


def _scores(client: redis.Redis) -> dict[bytes, float]:
    return dict(client.zrange(popularity.KEY, 0, -1, withscores=True))


def test_popularity_adds_up_over_items_and_flushes(
    redis_url: str, store_client: redis.Redis
) -> None:
    items = [f"item {n}" for n in range(2_300)]  # more than two calls of the script
    client = connect(redis_url)
    tally = Tally(client, Patience())
    for expected in (1.0, 2.0):
        tally.applied([_bought(*items)])
        tally.flush(now=True)
        store_client.script_flush()
        assert _scores(store_client) == {item.encode(): expected for item in items}
    tally.flush(now=True)
    assert set(_scores(store_client).values()) == {2.0}
    client.close()


def test_popularity_waits_for_its_time(redis_url: str, store_client: redis.Redis) -> None:
    client = connect(redis_url)
    tally = Tally(client, Patience())
    tally.applied([_bought("A")])
    tally.flush()
    tally.applied([_bought("A")])
    tally.flush()
    assert _scores(store_client) == {b"A": pytest.approx(1.0)}
    client.close()


def test_a_set_of_another_type_is_no_error(redis_url: str, store_client: redis.Redis) -> None:
    store_client.set(popularity.KEY, "no set")
    client = connect(redis_url)
    tally = Tally(client, Patience())
    tally.applied([_bought("A")])
    tally.flush(now=True)
    client.close()


def test_a_commit_takes_the_counts_along_whatever_becomes_of_it(
    redis_url: str, store_client: redis.Redis
) -> None:
    end = store_client.xadd(log_key(0), {"e": b""}).decode()
    store_client.hset("{p000}lease", "epoch", 1)
    client = connect(redis_url)
    tally = Tally(client, Patience())

    def commit_at(epoch: int) -> None:
        tally.note(events=3, late=0)
        commit(
            client, 0, epoch=epoch, expected_cursor="0-0", new_cursor=end, rows={},
            ahead=tally.ahead(),
        )  # fmt: skip
        tally.written()

    store_client.script_flush()
    commit_at(1)
    assert store_client.hgetall(STATS_KEY) == {b"events": b"3"}
    assert store_client.hget("{p000}cursor", "cursor") == end.encode()
    with pytest.raises(FencedError):
        commit_at(2)
    tally.written()
    tally.note(events=-3)
    tally.write()
    assert store_client.hgetall(STATS_KEY) == {b"events": b"3"}
    client.close()


def test_counts_of_a_commit_without_an_answer_are_kept() -> None:
    client = connect("redis://127.0.0.1:1/0")
    tally = Tally(client, Patience())
    tally.note(events=3)
    with pytest.raises(StoreUnavailableError):
        commit(
            client, 0, epoch=1, expected_cursor="0-0", new_cursor="1-0", rows={},
            ahead=tally.ahead(),
        )  # fmt: skip
    tally.write()
    assert tally.ahead() == [("HINCRBY", STATS_KEY, "events", 3)]
    tally.note(events=-3)
    assert tally.ahead() == []


def test_a_settled_process_collects_only_what_came_later() -> None:
    code = (
        "import gc; from services import heap; before = len(gc.get_objects()); heap.settle(); "
        "assert gc.get_freeze_count() > before / 2, before; "
        "assert len(gc.get_objects()) < before / 10; assert gc.isenabled()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
