"""An outbox: what is to be sent in groups, in the background, so that no answer waits for it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from services.runtime.tasks import end

T = TypeVar("T")
_LAST_S: Final = 2.0


class Outbox(Generic[T]):
    """A bounded queue of one event loop, and the task that sends what is in it.

    Parameters
    ----------
    send
        Sends one group, in order; raises nothing.
    lose
        Told what is never sent: what finds the queue full, and what is left at the end.
    most
        So many may wait.
    group
        At most so many are sent together.
    """

    def __init__(
        self,
        send: Callable[[list[T]], Awaitable[None]],
        lose: Callable[[Sequence[T]], None],
        *,
        most: int,
        group: int,
    ) -> None:
        self._send_group, self._lose, self._group = send, lose, group
        self._waiting = asyncio.Queue[T](most)
        self._under_way = list[T]()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._send())

    async def stop(self) -> None:
        """Send what waits, for two seconds at most, and end."""
        try:
            async with asyncio.timeout(_LAST_S):
                await self._waiting.join()
        except TimeoutError:
            left = [self._waiting.get_nowait() for _ in range(self._waiting.qsize())]
            self._lose([*self._under_way, *left])
        await end(self._task)

    def put(self, one: T) -> None:
        """Take something to be sent; never waits."""
        try:
            self._waiting.put_nowait(one)
        except asyncio.QueueFull:
            self._lose([one])

    async def _send(self) -> None:
        while True:
            group = [await self._waiting.get()]
            while len(group) < self._group and not self._waiting.empty():
                group.append(self._waiting.get_nowait())
            self._under_way = group
            await self._send_group(group)
            self._under_way = []
            for _ in group:
                self._waiting.task_done()
