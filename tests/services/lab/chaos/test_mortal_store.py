"""The store that the proof by fire kills, and its power cuts."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from services.lab.chaos.store import FORGETS_S, MortalStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MortalStore]:
    made = MortalStore(tmp_path / "store", "always")  # everysec may lose writes on a slow disk
    try:
        made.start()
        yield made
    finally:
        made.stop()


def keys_of(store: MortalStore) -> int:
    with redis.Redis.from_url(store.url) as client:
        return int(client.dbsize())


def fill(store: MortalStore, count: int, bytes_each: int = 2000) -> None:
    with redis.Redis.from_url(store.url) as client:
        for number in range(client.dbsize(), client.dbsize() + count):
            client.set(f"key-{number}", b"x" * bytes_each)


def test_a_killed_store_comes_back_when_it_is_told_to(store: MortalStore) -> None:
    fill(store, 20)
    url = store.url
    store.kill()
    assert not store.alive
    with pytest.raises(redis.ConnectionError):
        keys_of(store)
    store.start()
    store.start()
    assert (store.url, keys_of(store)) == (url, 20)


def test_a_power_cut_takes_what_was_written_last_and_no_more(store: MortalStore) -> None:
    fill(store, 20)
    store.watch(100.0)
    fill(store, 20)
    taken = store.cut_power(random.Random(1), 100.0 + FORGETS_S)
    store.start()
    assert 0 < taken <= 20 * 2100
    assert 20 <= keys_of(store) < 40
    left = keys_of(store)
    store.watch(200.0)
    fill(store, 20)
    assert store.cut_power(random.Random(1), 200.1 + FORGETS_S) == 0
    store.start()
    assert keys_of(store) == left + 20


def test_every_other_power_cut_takes_what_was_written_since_the_last_look(
    store: MortalStore,
) -> None:
    class Draw(random.Random):
        def random(self) -> float:
            return 0.0

    store.watch(99.0)
    fill(store, 30)
    store.watch(100.0)
    assert not store.grew
    fill(store, 2, 10)  # less than the least of the other cuts
    assert store.grew
    assert 0 < store.cut_power(Draw(1), 100.1) < 200
    store.start()
    assert keys_of(store) == 30
