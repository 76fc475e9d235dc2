"""What a gateway reads of the popular items."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from feature_repo.online.connection import connect_async
from services.catalogue import popularity
from services.recommend import serving


def test_made_up_items_do_not_stand_before_those_of_the_catalogue(
    redis_url: str, store_client: redis.Redis
) -> None:
    made_up = {f"made-up {n}": 1000.0 + n for n in range(3 * serving.POPULAR_POOL)}
    store_client.zadd("popular", {**made_up, "A": 2.0, "B": 3.0})

    async def read(listed: set[str]) -> list[tuple[str, float]]:
        client = connect_async(redis_url)
        try:
            return await serving.popular_offered(client, "popular", listed)
        finally:
            await client.aclose()

    assert asyncio.run(read({"A", "B", "C"})) == [("B", 3.0), ("A", 2.0)]
    best = asyncio.run(read(set()))  # without a catalogue everything counts
    assert len(best) == serving.POPULAR_POOL
    assert best[0][0] == f"made-up {len(made_up) - 1}"


def test_models_that_read_them_are_given_the_counts_of_their_items(
    redis_url: str, store_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "COUNTS_CHUNK", 2)
    store_client.zadd(popularity.KEY, {"A": 4.0, "C": 1.0, "unknown to it": 9.0})
    store_client.zadd(popularity.TREND_KEY, {"C": 2.5})
    given = list[Any]()
    reader = SimpleNamespace(
        version="fused-1",
        model=SimpleNamespace(vocabulary=SimpleNamespace(items=("A", "B", "C"))),
        scorer=SimpleNamespace(take_counts=lambda counts: given.append(counts.tolist())),
    )
    models = SimpleNamespace(list_readers=lambda: [reader])

    async def follow() -> None:
        client = connect_async(redis_url)
        follower = serving.PopularFollower(client, None, models)  # type: ignore[arg-type]
        try:
            await follower._follow_counts()
            await follower._follow_counts()  # not due yet
        finally:
            await client.aclose()

    asyncio.run(follow())
    assert given == [[[4.0, 0.0, 1.0], [0.0, 0.0, 2.5]]]
