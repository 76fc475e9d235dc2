"""Counts beside the commits: what they add up to, and that their writing never fails."""

import subprocess
import sys

import pytest
import redis

from feature_repo.connection import connect
from feature_repo.events import EventRecord, ItemRecord
from services import popularity
from services.patience import Patience
from services.tally import Tally


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


def test_a_settled_process_collects_only_what_came_later() -> None:
    code = (
        "import gc; from services import heap; before = len(gc.get_objects()); heap.settle(); "
        "assert gc.get_freeze_count() > before / 2, before; "
        "assert len(gc.get_objects()) < before / 10; assert gc.isenabled()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
