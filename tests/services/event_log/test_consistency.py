"""Waiting for commits: what is heard, what is asked for, and what thousands of waiters cost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from feature_repo.online.connection import connect_async
from services.event_log import consistency as applied_module
from services.event_log.consistency import AppliedCursors
from services.event_log.keys import applied_channel, cursor_key
from services.event_log.receipt import Receipt
from services.hosting.embedded import EmbeddedStore

PARTITIONS = 4
WAITERS = 1000


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[AppliedCursors]:
    client = connect_async(url)
    applied = AppliedCursors(client, connect_async(url, timeout_s=15), PARTITIONS)
    applied.start()
    try:
        await until(lambda: applied.hearing)
        yield applied
    finally:
        await applied.stop()
        await client.aclose()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


def receipt(partition: int, number: int) -> Receipt:
    return Receipt({partition: (number, 0)})


def move(store: "redis.Redis", partition: int, number: int, *, announce: bool) -> None:
    store.hset(cursor_key(partition), "cursor", f"{number}-0")
    if announce:
        store.publish(applied_channel(partition), f"{number}-0")


def questions(store: "redis.Redis") -> int:
    return int(store.info("commandstats").get("cmdstat_hget", {}).get("calls", 0))


def begin(applied: AppliedCursors, timeout_s: float = 30) -> list["asyncio.Task[bool]"]:
    """Start a thousand waits: half in partition 0, half in 1, each for its own entry."""
    return [
        asyncio.create_task(applied.wait(receipt(n % 2, 1 + n // 2), {n % 2}, timeout_s))
        for n in range(WAITERS)
    ]


def run(work: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await work

    return asyncio.run(main())


@pytest.fixture
def never_rechecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applied_module, "_RECHECK_S", 60.0)


@pytest.mark.usefixtures("never_rechecked")
def test_while_announcements_are_heard_a_thousand_waiters_ask_nothing(
    redis_url: str, store_client: "redis.Redis"
) -> None:
    async def work() -> None:
        async with listening(redis_url) as applied:
            store_client.config_resetstat()
            waits = begin(applied)
            await asyncio.sleep(0)
            move(store_client, 0, WAITERS // 4, announce=True)
            await until(lambda: sum(w.done() for w in waits) == WAITERS // 4)
            assert {w.done() for w in waits[: WAITERS // 2 : 2]} == {True}
            for partition in (0, 1):
                move(store_client, partition, WAITERS, announce=True)
            assert all(await asyncio.gather(*waits))
            assert questions(store_client) == 0

    run(work())


def test_while_nothing_is_heard_a_partition_is_asked_for_once_for_all(
    redis_url: str, store_client: "redis.Redis"
) -> None:
    async def work() -> None:
        client = connect_async(redis_url)
        applied = AppliedCursors(client, connect_async(redis_url), PARTITIONS)  # never listens
        store_client.config_resetstat()
        waits = begin(applied)
        await until(lambda: questions(store_client) > 0)
        for partition in (0, 1):
            move(store_client, partition, WAITERS, announce=False)
        assert all(await asyncio.gather(*waits))
        asked = questions(store_client)
        assert asked % 2 == 0  # both partitions at a time, and no others
        assert asked < WAITERS / 10
        await applied.stop()
        await client.aclose()

    run(work())


@pytest.mark.usefixtures("never_rechecked")
def test_an_announcement_before_the_wait_is_remembered(
    redis_url: str, store_client: "redis.Redis"
) -> None:
    async def work() -> None:
        async with listening(redis_url) as applied:
            move(store_client, 2, 7, announce=True)
            await until(lambda: applied._cursors.get(2) == (7, 0))
            store_client.config_resetstat()
            assert await applied.wait(receipt(2, 7), {2}, 0)
            # Another partition of the receipt is no business of this reader's.
            assert await applied.wait(Receipt({2: (5, 0), 3: (99, 0)}), {2}, 0)
            assert questions(store_client) == 0

    run(work())


@pytest.mark.usefixtures("never_rechecked")
def test_a_lost_subscription_is_made_good(redis_url: str, store_client: "redis.Redis") -> None:
    async def work() -> None:
        async with listening(redis_url) as applied:
            waits = begin(applied)
            await asyncio.sleep(0)
            for partition in (0, 1):  # the announcement gets lost with the connection
                move(store_client, partition, WAITERS, announce=False)
            store_client.client_kill_filter(_type="pubsub")
            assert all(await asyncio.gather(*waits))
            await until(lambda: applied.hearing)
            store_client.config_resetstat()
            later = asyncio.create_task(applied.wait(receipt(3, 8), {3}, 30))
            await asyncio.sleep(0)
            move(store_client, 3, 8, announce=True)
            assert await later
            assert questions(store_client) == 0

    run(work())


def test_an_announcement_lost_unnoticed_is_asked_for(
    redis_url: str, store_client: "redis.Redis"
) -> None:
    async def work() -> None:
        async with listening(redis_url) as applied:
            wait = asyncio.create_task(applied.wait(receipt(1, 5), {1}, 30))
            await asyncio.sleep(0)
            move(store_client, 1, 5, announce=False)
            assert await wait

    run(work())


def test_with_the_store_away_waits_fail_and_later_ones_are_served_again(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "store")
    store.start()

    async def work() -> None:
        async with listening(store.url) as applied:
            waits = begin(applied)
            await asyncio.sleep(0)
            await asyncio.to_thread(store.stop)
            failures = await asyncio.gather(*waits, return_exceptions=True)
            assert all(isinstance(each, redis.RedisError) for each in failures)
            await asyncio.to_thread(store.start)
            await until(lambda: applied.hearing)
            with redis.Redis.from_url(store.url) as client:
                move(client, 0, 3, announce=True)
            assert await applied.wait(receipt(0, 3), {0}, 30)

    try:
        run(work())
    finally:
        store.stop()


def test_who_gives_up_leaves_nothing_behind(redis_url: str, store_client: "redis.Redis") -> None:
    async def work() -> None:
        async with listening(redis_url) as applied:
            waits = begin(applied, timeout_s=0.05)
            assert not any(await asyncio.gather(*waits))
            waits = begin(applied)
            await asyncio.sleep(0)
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            for waiters in applied._waiters.values():
                assert not waiters
                assert not waiters._heap
            # Those who stay are still woken, in order.
            stays = asyncio.create_task(applied.wait(receipt(0, 2), {0}, 30))
            await asyncio.sleep(0)
            move(store_client, 0, 2, announce=True)
            assert await stays

    run(work())
