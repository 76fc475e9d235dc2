"""What a gateway reads of the popular items."""

import asyncio

import redis

from feature_repo.online.connection import connect_async
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
