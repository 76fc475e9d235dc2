"""Limits of a key: counted in the store, answered with 429 and how long to wait."""

import asyncio
import math
import time
from typing import Any

import pytest
import redis
from gateway_thread import ADMIN_KEY, Api
from stalls import running_s

from feature_repo.online.connection import connect_async
from services.client import TransientApiError
from services.http import api_keys
from services.http.rate_limits import KEY, RateLimits

PER_MIN = 5
SHOP_KEY = "shop-key"


@pytest.fixture(scope="module")
def api(make_api: Any) -> Api:
    made: Api = make_api(rate_limit_per_min=PER_MIN)
    store = redis.Redis.from_url(made.url)
    api_keys.register(store, SHOP_KEY, name="shop", scope="server")
    store.close()
    return made


@pytest.fixture(autouse=True)
def fresh(api: Api) -> None:
    with redis.Redis.from_url(api.url) as store:
        for key in store.scan_iter(KEY + b"*"):
            store.delete(key)


def test_beyond_its_limit_a_key_is_told_how_long_to_wait(api: Api) -> None:
    with api.client() as client:
        for _ in range(PER_MIN):
            assert client.http.get("/v1/models").status_code == 200
        refused = client.http.get("/v1/models")
        problem = refused.json()
        assert (refused.status_code, problem["type"]) == (429, "/problems/rate-limited")
        assert 1 <= int(refused.headers["retry-after"]) <= 60 // PER_MIN
        assert client.http.get("/health/live").status_code == 200  # no key, no limit
        with pytest.raises(TransientApiError):
            client.item("A")
    with api.client(SHOP_KEY) as other:  # a bucket of its own
        assert other.http.get("/v1/models").status_code == 200


def test_what_a_refused_event_was_is_not_kept(api: Api) -> None:
    event = {"type": "login", "user_id": "u", "id": "refused-once"}
    with api.client() as client:
        while (response := client.http.post("/v1/events", json=event)).status_code == 202:
            event["id"] += "x"
        assert response.status_code == 429
        with redis.Redis.from_url(api.url) as store:
            store.delete(KEY + api_keys.digest(ADMIN_KEY).encode())
        assert client.post_event(event)["status"] == "accepted"


async def taken(url: str, per_min: int, requests: int) -> list[float]:
    client = connect_async(url)
    try:
        limits = RateLimits(client, per_min)
        return [await limits.wait_s("d") for _ in range(requests)]
    finally:
        await client.aclose()


def test_a_bucket_refills_steadily(api: Api) -> None:
    waits = asyncio.run(taken(api.url, 600, 601))
    assert waits[:600] == [0.0] * 600  # sent within the minute, and some are refilled meanwhile
    asked_s = time.monotonic()
    with redis.Redis.from_url(api.url) as store:
        # As if a second had passed since: a second's worth is there again, no more.
        full = int(store.get(KEY + b"d")) - 1_000_000
        store.set(KEY + b"d", full)
        now = store.time()
    room = (60_000_000 - (full - now[0] * 1_000_000 - now[1])) // 100_000
    waits = asyncio.run(taken(api.url, 600, 40))
    refilled = math.ceil((time.monotonic() - asked_s) / 0.1)
    assert min(room, 40) <= waits.count(0.0) <= room + refilled + 1
    assert all(0 <= wait <= 0.1 for wait in waits)


def test_without_a_limit_the_store_is_not_asked() -> None:
    assert asyncio.run(RateLimits(None, 0).wait_s("d")) == 0.0


def test_with_the_store_away_nobody_is_held_back() -> None:
    started = running_s()
    assert asyncio.run(taken("redis://127.0.0.1:1/0", 1, 3)) == [0.0] * 3
    assert running_s() - started < 2
