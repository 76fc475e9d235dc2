"""Clients of a master that Redis Sentinel names: found anew after every failover.

Belongs here: asking the sentinels, within a bound. Everything else about connections is
`feature_repo.online.connection`'s.
"""

import time
from typing import Any, Final

import redis
import redis.asyncio
from redis import sentinel as blocking
from redis.asyncio import sentinel as asynchronous
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from feature_repo.online.url import StoreUrl

ASK_S: Final = 0.2
"""Longest wait for one sentinel; all together get about twice that."""


class _Sentinel(blocking.Sentinel):  # type: ignore[misc]
    def discover_master(self, service_name: str) -> tuple[str, int]:
        deadline_s = time.monotonic() + 2 * ASK_S
        for sentinel in list(self.sentinels):
            try:
                known = sentinel.sentinel_masters()
            except (redis.ConnectionError, redis.TimeoutError):
                # Whoever does not answer is asked last from now on.
                self.sentinels.remove(sentinel)
                self.sentinels.append(sentinel)
                if time.monotonic() > deadline_s:
                    break
                continue
            found = known.get(service_name)
            if found and self.check_master_state(found, service_name):
                return found["ip"], found["port"]
        raise _unknown(service_name)


class _Pool(blocking.SentinelConnectionPool):  # type: ignore[misc]
    def disconnect(self, inuse_connections: bool = True) -> None:
        super().disconnect(inuse_connections)
        if inuse_connections:  # the client is being closed
            for sentinel in self.sentinel_manager.sentinels:
                sentinel.close()


class _AsyncSentinel(asynchronous.Sentinel):  # type: ignore[misc]
    async def discover_master(self, service_name: str) -> tuple[str, int]:
        deadline_s = time.monotonic() + 2 * ASK_S
        for sentinel in list(self.sentinels):
            try:
                known = await sentinel.sentinel_masters()
            except (redis.ConnectionError, redis.TimeoutError):
                self.sentinels.remove(sentinel)
                self.sentinels.append(sentinel)
                if time.monotonic() > deadline_s:
                    break
                continue
            found = known.get(service_name)
            if found and self.check_master_state(found, service_name):
                return found["ip"], found["port"]
        raise _unknown(service_name)


class _AsyncPool(asynchronous.SentinelConnectionPool):  # type: ignore[misc]
    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


def _unknown(service: str) -> redis.TimeoutError:
    # A timeout, not a connection error: those are tried again, which would double the wait.
    return redis.TimeoutError(f"no sentinel names a master of {service!r}")


def connect(url: StoreUrl, **kwargs: Any) -> "redis.Redis":
    """Return a client of the master that the sentinels of ``url`` name; it connects on first use.

    Parameters
    ----------
    kwargs
        How to connect to the master, as for ``redis.Redis``; the URL's options come first.
    """
    asking = url.sentinel_options | _bounds() | {"retry": Retry(NoBackoff(), 0)}
    manager = _Sentinel(url.hosts, sentinel_kwargs=asking)
    return manager.master_for(url.name, connection_pool_class=_Pool, **(kwargs | url.options))


def connect_async(url: StoreUrl, **kwargs: Any) -> "redis.asyncio.Redis":
    """Return an asyncio client; see `connect`."""
    asking = url.sentinel_options | _bounds() | {"retry": AsyncRetry(NoBackoff(), 0)}
    manager = _AsyncSentinel(url.hosts, sentinel_kwargs=asking)
    return manager.master_for(url.name, connection_pool_class=_AsyncPool, **(kwargs | url.options))


def _bounds() -> dict[str, Any]:
    return {"socket_timeout": ASK_S, "socket_connect_timeout": ASK_S}
