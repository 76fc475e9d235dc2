"""Waiting until an event is applied: how ``after=`` and ``return=profile`` keep their word.

Every commit publishes its cursor. A waiter asks the store once, then sleeps until a cursor
at or past its own is announced; nothing polls while nothing happens.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

import redis
import structlog

from services.log import Receipt, applied_channel, cursor_key, stream_id

_RECHECK_S: Final = 0.5  # an announcement lost to a reconnect costs at most this
_BACKOFF_S: Final = 0.2

_log = structlog.get_logger(__name__)

Position = tuple[int, int]


class Applied:
    """The cursors of all partitions as announced, and those who wait for them.

    Parameters
    ----------
    client
        Asyncio client of the store.
    partitions
        Number of log partitions.
    listeners
        Further channels and what to do with their messages.
    """

    def __init__(
        self,
        client: Any,
        partitions: int,
        listeners: dict[bytes, Callable[[bytes], None]] | None = None,
    ) -> None:
        self._client = client
        self._channels = {applied_channel(p): p for p in range(partitions)}
        self._listeners = listeners or {}
        self._cursors: dict[int, Position] = {}
        self._waiters: dict[int, set[tuple[Position, asyncio.Future[None]]]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

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
        wanted = [(p, at) for p, at in receipt.positions.items() if p in partitions]
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        for partition, position in wanted:
            if not await self._wait(partition, position, deadline_s):
                return False
        return True

    async def _wait(self, partition: int, position: Position, deadline_s: float) -> bool:
        loop = asyncio.get_running_loop()
        if self._cursors.get(partition, (0, 0)) >= position:
            return True
        future: asyncio.Future[None] = loop.create_future()
        waiter = (position, future)
        self._waiters.setdefault(partition, set()).add(waiter)
        try:
            while True:
                await self._ask(partition)
                remaining_s = deadline_s - loop.time()
                if future.done() or remaining_s <= 0:
                    return future.done()
                await asyncio.wait([future], timeout=min(remaining_s, _RECHECK_S))
                if future.done():
                    return True
        finally:
            self._waiters[partition].discard(waiter)

    async def _ask(self, partition: int) -> None:
        cursor = await self._client.hget(cursor_key(partition), "cursor")
        if cursor is not None:
            self._advance(partition, stream_id(cursor))

    def _advance(self, partition: int, cursor: Position) -> None:
        self._cursors[partition] = cursor
        for position, future in self._waiters.get(partition, ()):
            if position <= cursor and not future.done():
                future.set_result(None)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(*self._channels, *self._listeners)
                    while True:
                        message = await pubsub.get_message(timeout=10)
                        if message is not None:
                            self._heard(message["channel"], message["data"])
            except (redis.RedisError, OSError) as error:
                # What was announced meanwhile is unknown; waiters ask again by themselves.
                self._cursors.clear()
                _log.warning("announcements_lost", error=type(error).__name__)
                await asyncio.sleep(_BACKOFF_S)

    def _heard(self, channel: bytes, data: bytes) -> None:
        partition = self._channels.get(channel)
        if partition is not None:
            self._advance(partition, stream_id(data))
        elif channel in self._listeners:
            self._listeners[channel](data)
