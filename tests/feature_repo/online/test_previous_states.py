"""States of an earlier model beside their rows: put by, put back where nothing came since."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from feature_repo.online.connection import connect
from feature_repo.online.live_row import LiveState
from feature_repo.online.live_rows import load_live, read_live, read_models, replace_live
from feature_repo.online.previous_states import (
    STATE_FIELDS,
    go_back,
    previous_key,
    remove_previous,
    restore,
)

A, B, C = ("{p003}" + letter * 26 for letter in "abc")
OLD = LiveState(b"profile", b"old state", 7, "m1", 1_700_000_000_123)
NEW = replace(OLD, learned=b"new state", model="m2")


@pytest.fixture
def client(redis_url: str, store_client: redis.Redis) -> Iterator[Any]:
    made = connect(redis_url)
    load_live(made, {A: OLD, B: OLD})
    yield made
    made.close()


def swap(client: Any, keep_s: int = 60) -> None:
    replace_live(client, 3, {A: NEW, B: NEW, C: NEW}, {A: 7, B: 7, C: None}, keep_s=keep_s)


def test_a_state_comes_back_and_the_other_is_put_by(client: Any) -> None:
    swap(client)
    assert client.exists(previous_key(A), previous_key(B), previous_key(C)) == 2
    assert 0 < client.ttl(previous_key(A)) <= 60
    load_live(client, {B: replace(NEW, version=8)})  # an event since
    assert restore(client, 3, [A, B, C], "m3", 60) == []
    assert restore(client, 3, [A, B, C], "m1", 60) == [A]
    assert read_live(client, [A, B, C]) == [OLD, replace(NEW, version=8), NEW]
    assert restore(client, 3, [A, B, C], "m1", 60) == []
    assert restore(client, 3, [A], "m2", 0) == [A]
    assert read_live(client, [A]) == [NEW]
    assert not client.exists(previous_key(A))
    assert int(client.hget("{p003}cursor", "rebuilt")) == 5


def test_a_reader_sees_what_would_come_back(client: Any) -> None:
    swap(client)
    kept = client.hmget(previous_key(A), STATE_FIELDS)
    assert go_back(NEW, kept, "m1") == OLD
    assert go_back(NEW, kept, "m0") == NEW
    assert go_back(replace(NEW, version=8), kept, "m1") == replace(NEW, version=8)
    assert go_back(NEW, [None, None, None], "m1") == NEW


def test_nothing_is_put_by_of_the_same_model_or_without_a_state(client: Any) -> None:
    load_live(client, {B: replace(OLD, learned=b"", model="")})
    replace_live(client, 3, {A: replace(OLD, learned=b"again"), B: NEW}, {A: 7, B: 7}, keep_s=60)
    swap(client, keep_s=0)
    assert not client.exists(previous_key(A), previous_key(B))


def test_the_erased_get_no_state_back_and_none_stays(client: Any) -> None:
    swap(client)
    client.sadd("{p003}erased", A)
    assert restore(client, 3, [A, B], "m1", 60) == [B]
    assert remove_previous(client, [A, B, C]) == 2
    assert client.keys("*:before") == []


def test_models_are_read_with_the_time_of_the_last_event(client: Any) -> None:
    assert read_models(client, [A, C]) == {A: ("m1", OLD.time_ms)}
