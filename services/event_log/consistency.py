"""Waiting until an event is applied: how ``after=`` and ``return=profile`` keep their word.

Every commit publishes its cursor, and what is heard is remembered. While the subscription
holds, a waiter costs the store nothing; whatever is not heard (a lost subscription, a stall)
is asked for, once for all waiters of a partition.
"""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import redis
import redis.asyncio
import structlog
from redis.exceptions import RedisClusterException

from services.event_log.keys import applied_channel, cursor_key
from services.event_log.receipt import Position, Receipt, stream_id
from services.runtime.tasks import end

_RECHECK_S: Final = 0.3  # an announcement that was lost unnoticed costs at most this
_BLIND_S: Final = 0.05  # between questions while nothing is heard
_BACKOFF_S: Final = 0.2

_log = structlog.get_logger(__name__)

_NEVER: Final[Position] = (0, 0)
_FAILED: Final = (redis.RedisError, RedisClusterException, OSError)


class _Waiters:
    """Those who wait for one partition, the earliest position first."""

    def __init__(self) -> None:
        self._heap: list[tuple[Position, int, asyncio.Future[bool]]] = []
        self._waiting: set[asyncio.Future[bool]] = set()
        self._number = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, position: Position) -> "asyncio.Future[bool]":
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._heap, (position, next(self._number), future))
        self._waiting.add(future)
        return future

    def wake(self, cursor: Position) -> None:
        """Wake those whose position is at or before ``cursor``."""
        while self._heap and self._heap[0][0] <= cursor:
            future = heapq.heappop(self._heap)[2]
            self._waiting.discard(future)
            if not future.done():
                future.set_result(True)

    def fail_all(self, error: Exception) -> None:
        """Tell everybody that the store does not answer."""
        for future in self._waiting:
            if not future.done():
                future.set_exception(error)
        self._heap.clear()
        self._waiting.clear()

    def forget(self, future: "asyncio.Future[bool]") -> None:
        """Forget somebody, in whatever way the wait ended."""
        self._waiting.discard(future)
        if len(self._heap) > 2 * len(self._waiting):
            self._heap = [waiter for waiter in self._heap if waiter[2] in self._waiting]
            heapq.heapify(self._heap)


class AppliedCursors:
    """The cursors of all partitions as announced, and those who wait for them.

    Parameters
    ----------
    client
        Asyncio client of the store, to ask for cursors; should fail fast.
    subscriber
        Asyncio client with ``pubsub``, to listen with.
    partitions
        Number of log partitions.
    listeners
        Further channels and what to do with their messages.

    Attributes
    ----------
    hearing
        Whether every commit from now on is sure to be announced to us.
    """

    def __init__(
        self,
        client: Any,
        subscriber: Any,
        partitions: int,
        listeners: dict[bytes, Callable[[bytes], None]] | None = None,
    ) -> None:
        self._client = client
        self._subscriber = subscriber
        self._channels = {applied_channel(p): p for p in range(partitions)}
        self._listeners = listeners or {}
        self._cursors: dict[int, Position] = {}
        self._waiters = {p: _Waiters() for p in range(partitions)}
        self._task: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._losses = 0
        self.hearing = False

    def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        """Stop listening and close the subscription's client."""
        await end(self._task)
        await end(self._asking)
        await self._subscriber.aclose()

    async def wait(self, receipt: Receipt, partitions: set[int], timeout_s: float) -> bool:
        """Return True once ``receipt`` is applied in ``partitions``, False after ``timeout_s``.

        Parameters
        ----------
        partitions
            Where the reader's rows lie; other parts of the receipt concern other users.

        Raises
        ------
        redis.RedisError
            If the store does not answer.
        """
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        for partition, position in receipt.positions.items():
            if (
                partition in partitions
                and partition in self._waiters
                and self._cursors.get(partition, _NEVER) < position
                and not await self._wait(partition, position, deadline_s)
            ):
                return False
        return True

    async def _wait(self, partition: int, position: Position, deadline_s: float) -> bool:
        waiters = self._waiters[partition]
        future = waiters.add(position)
        timer = asyncio.get_running_loop().call_at(deadline_s, _expire, future)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_for_waiters())
        try:
            return await future
        finally:
            timer.cancel()
            waiters.forget(future)

    async def _ask_for_waiters(self) -> None:
        """Ask for the cursors somebody waits for, again and again until nobody does."""
        rest_s = _RECHECK_S if self.hearing else 0.0
        while True:
            await asyncio.sleep(rest_s)
            awaited = [p for p, waiters in self._waiters.items() if waiters]
            if not awaited:
                return
            try:
                await self._ask(awaited)
            except _FAILED as error:
                for partition in awaited:
                    self._waiters[partition].fail_all(error)
            rest_s = _RECHECK_S if self.hearing else _BLIND_S

    async def _ask(self, partitions: Iterable[int]) -> None:
        requested, losses = list(partitions), self._losses
        async with self._client.pipeline(transaction=False) as pipe:
            for partition in requested:
                pipe.hget(cursor_key(partition), "cursor")
            cursors = await pipe.execute()
        if losses != self._losses:  # what was read may come from before a crash of the store
            return
        for partition, cursor in zip(requested, cursors, strict=True):
            if cursor is not None:
                self._advance(partition, stream_id(cursor))

    def _advance(self, partition: int, cursor: Position) -> None:
        if cursor > self._cursors.get(partition, _NEVER):  # answers may overtake each other
            self._cursors[partition] = cursor
            self._waiters[partition].wake(cursor)

    async def _listen(self) -> None:
        while True:
            try:
                async with _node(self._subscriber) as node, node.pubsub() as pubsub:
                    await self._follow(pubsub)
            except _FAILED as error:
                self._lose()
                _log.warning("announcements_lost", error=type(error).__name__)
                await asyncio.sleep(_BACKOFF_S)

    async def _follow(self, pubsub: Any) -> None:
        channels = [*self._channels, *self._listeners]
        await pubsub.subscribe(*channels)
        confirmed = set[bytes]()
        while True:
            message = await pubsub.get_message(timeout=10)
            if message is None:
                continue
            if message["type"] == "message":
                self._on_message(message["channel"], message["data"])
            elif message["type"] == "subscribe":
                # Also after redis-py has connected again by itself: then it starts anew.
                if self.hearing:
                    self._lose()
                    confirmed.clear()
                confirmed.add(message["channel"])
                if len(confirmed) == len(channels):
                    # Commits from here on are announced; those before are in the cursors.
                    await self._ask(self._waiters)
                    self.hearing = True

    def _lose(self) -> None:
        self.hearing = False
        self._losses += 1
        self._cursors.clear()

    def _on_message(self, channel: bytes, data: bytes) -> None:
        partition = self._channels.get(channel)
        if partition is not None:
            self._advance(partition, stream_id(data))
        elif channel in self._listeners:
            self._listeners[channel](data)


@asynccontextmanager
async def _node(client: Any) -> AsyncIterator[Any]:
    """Yield a client that can subscribe: of a cluster, any of its nodes."""
    if not isinstance(client, redis.asyncio.RedisCluster):
        yield client
        return
    await client.initialize()
    chosen = client.get_random_node()
    pool = redis.asyncio.ConnectionPool(
        connection_class=chosen.connection_class, **chosen.connection_kwargs
    )
    async with redis.asyncio.Redis.from_pool(pool) as node:
        yield node


def _expire(future: "asyncio.Future[bool]") -> None:
    if not future.done():
        future.set_result(False)
