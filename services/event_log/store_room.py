"""Room in the store's memory: new events are put off before it is full.

What is left then is for the work that makes room again: events are applied, copied to the archive
and trimmed. A server that is full refuses that too. Not here: what a server says when it is full
(`feature_repo.online.connection`).
"""

import asyncio
from typing import Any, Final

import redis
from redis.exceptions import RedisClusterException

from feature_repo.errors import StoreUnavailableError
from services.runtime.tasks import end

LOOK_S: Final = 1.0
MOST_SHARE: Final = 0.95
"""Of the server's ``maxmemory``: beyond it no new event is taken."""


class StoreRoom:
    """Looks once a second; whoever appends asks it.

    Parameters
    ----------
    client
        Asyncio client. On a cluster nothing is looked at: each node refuses by itself.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._task: asyncio.Task[None] | None = None
        self.used = 0
        self.most = 0

    async def start(self) -> None:
        """Begin to look."""
        if not isinstance(self._client, redis.asyncio.RedisCluster):
            self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Look no longer."""
        await end(self._task)

    def check(self) -> None:
        """Refuse what needs room; `StoreUnavailableError` if little is left."""
        if self.most and self.used > MOST_SHARE * self.most:
            raise StoreUnavailableError(
                f"the online store uses {self.used >> 20:,} of {self.most >> 20:,} MB: nothing of "
                "this request is kept, repeat it later with the same event ids. Give the store "
                "more memory (PORTRAIT_STORE_MEMORY_MB), or run `portrait privacy sweep`"
            )

    async def _follow(self) -> None:
        while True:
            try:
                self.used, self.most = read_memory(await self._client.info("memory"))
            except (redis.RedisError, RedisClusterException, OSError):
                self.used = self.most = 0  # it says itself what is wrong
            await asyncio.sleep(LOOK_S)


def read_memory(found: dict[str, Any]) -> tuple[int, int]:
    """Return how many bytes a server uses and may use at most (0: no bound).

    Examples
    --------
    >>> read_memory({"used_memory": 1000, "maxmemory": 4000})
    (1000, 4000)
    """
    return int(found.get("used_memory", 0)), int(found.get("maxmemory", 0))
