"""Wrong keys: an address that sends many is told to wait, in one call to the store."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis
from gateway_thread import Api
from starlette.datastructures import Headers

from feature_repo.online.connection import connect_async
from services.http.wrong_keys import ADDRESS_HEADER, KEY, WrongKeys

PER_MIN = 5


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Api:
    return make_api(wrong_keys_per_min=PER_MIN)


def test_after_some_wrong_keys_an_address_waits_and_a_valid_key_does_not(api: Api) -> None:
    with api.client("wrong") as stranger, api.client() as shop:
        found = [stranger.http.get("/v1/models") for _ in range(PER_MIN + 2)]
        assert [each.status_code for each in found] == [401] * PER_MIN + [429] * 2
        problem = found[-1].json()
        assert problem["type"] == "/problems/rate-limited"
        assert 1 <= int(found[-1].headers["retry-after"]) <= 60 // PER_MIN
        assert shop.http.get("/v1/models").status_code == 200
        assert stranger.http.get("/health/live").status_code == 200
        claims = {ADDRESS_HEADER: "192.0.2.1"}
        assert stranger.http.get("/v1/models", headers=claims).status_code == 429
        keyless = shop.http.get("/v1/models", headers={"authorization": ""})
        assert keyless.status_code == 401  # no key is no guess
    with redis.Redis.from_url(api.url) as store:
        assert store.keys(KEY + b"*") == [KEY + b"127.0.0.1"]
        assert 0 < store.pttl(KEY + b"127.0.0.1") <= 60_000


class Counted:
    """A client that counts the scripts it is asked to run."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.calls = 0

    async def evalsha(self, *given: Any) -> Any:
        self.calls += 1
        return await self.client.evalsha(*given)

    async def eval(self, *given: Any) -> Any:
        return await self.client.eval(*given)


@pytest.mark.parametrize("behind_front", [True, False])
def test_who_is_held_back_costs_the_store_nothing(
    redis_url: str, store_client: Any, behind_front: bool
) -> None:
    asyncio.run(ask_often(redis_url, behind_front=behind_front))


async def ask_often(redis_url: str, *, behind_front: bool) -> None:
    client = connect_async(redis_url)
    counted = Counted(client)
    wrong = WrongKeys(counted, PER_MIN, behind_front=behind_front)

    async def ask(address: str) -> float:
        scope = {"client": ("127.0.0.1" if behind_front else address, 4)}
        return await wrong.wait_s(scope, Headers({ADDRESS_HEADER: address}))

    waits = [await ask("192.0.2.1") for _ in range(PER_MIN + 20)]
    assert (sum(wait_s > 0 for wait_s in waits), counted.calls) == (20, PER_MIN + 1)
    assert await ask("192.0.2.2") == 0
    waits = [await ask(f"2001:db8::{n:x}") for n in range(PER_MIN + 1)]
    assert waits[-1] > 0  # one network, one sender
    await client.aclose()
