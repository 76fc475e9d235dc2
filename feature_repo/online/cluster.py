"""Clients of a Redis Cluster that stay quick while nodes of it hang.

redis-py asks the nodes one after another where the slots are, each for a whole timeout; here
all are asked at once whether they are awake, and those who are not come last. Everything
else about connections is `feature_repo.online.connection`'s.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.exceptions import RedisClusterException
from redis.retry import Retry

from feature_repo.errors import InvalidSettingError
from feature_repo.online.url import StoreUrl

AWAKE_S: Final = 0.3
"""Longest wait for the nodes to say that they are awake."""
_AWAY_S: Final = 0.3
_AT_ONCE: Final = 16  # nodes asked at once

_Host = tuple[str, int]


def connect(url: StoreUrl, **kwargs: Any) -> "redis.RedisCluster":
    """Return a client; it asks for the slots now.

    Raises
    ------
    InvalidSettingError
        If the URL names a database.
    redis.exceptions.RedisClusterException
        If no node answers.
    """
    return _Cluster(url.hosts, _options(url), **kwargs)


def connect_async(url: StoreUrl, **kwargs: Any) -> "redis.asyncio.RedisCluster":
    """Return an asyncio client; it connects on first use. See `connect`."""
    return _AsyncCluster(url.hosts, _options(url), **kwargs)


def node_of(client: Any, key: str | bytes) -> str:
    """Return the name of the node that has ``key``; empty for one server, or while none has it."""
    if not isinstance(client, redis.RedisCluster):
        return ""
    try:
        return str(client.get_node_from_key(key).name)
    except RedisClusterException:
        return ""


class _Cluster(redis.RedisCluster):  # type: ignore[misc]
    def __init__(self, hosts: Sequence[_Host], options: Mapping[str, Any], **kwargs: Any) -> None:
        self._away = dict[str, float]()  # node -> when it may be asked again
        self._options = options
        awake = self._first_awake(hosts)
        super().__init__(
            startup_nodes=[ClusterNode(*host) for host in awake],
            require_full_coverage=False,
            # No repeats: each would first ask for the slots again.
            retry=Retry(NoBackoff(), 0),
            **(kwargs | dict(options)),
        )
        manager = self.nodes_manager
        initialize = manager.initialize

        def initialize_awake(*args: Any, **given: Any) -> None:
            nodes = dict(manager.startup_nodes)
            order = self._first_awake([(node.host, int(node.port)) for node in nodes.values()])
            manager.startup_nodes = {
                name: nodes[name] for name in (f"{host}:{port}" for host, port in order)
            }
            initialize(*args, **given)

        manager.initialize = initialize_awake

    def _execute_command(self, target_node: Any, *args: Any, **kwargs: Any) -> Any:
        # A pipeline repeats each of its commands by itself when a node does not answer; a
        # hundred waits of half a second would hold the caller for a minute.
        name = target_node.name
        if time.monotonic() < self._away.get(name, 0.0):
            raise redis.ConnectionError(f"node {name} did not answer a moment ago")
        try:
            return super()._execute_command(target_node, *args, **kwargs)
        except (redis.ConnectionError, redis.TimeoutError):
            self._away[name] = time.monotonic() + _AWAY_S
            raise

    def _first_awake(self, hosts: Sequence[_Host]) -> list[_Host]:
        def awake(host: _Host) -> bool:
            node = redis.Redis(
                host=host[0], port=host[1], retry=Retry(NoBackoff(), 0), **_asking(self._options)
            )
            try:
                return bool(node.ping())
            except (redis.RedisError, OSError) as error:
                # A node that refuses us is awake, and says better itself why it does.
                return isinstance(error, redis.ResponseError | redis.AuthenticationError)
            finally:
                node.close()

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return _sorted(hosts, list(pool.map(awake, hosts)))


class _AsyncCluster(redis.asyncio.RedisCluster):  # type: ignore[misc]
    def __init__(self, hosts: Sequence[_Host], options: Mapping[str, Any], **kwargs: Any) -> None:
        self._options = options
        super().__init__(
            startup_nodes=[AsyncClusterNode(*host) for host in hosts],
            require_full_coverage=False,
            retry=AsyncRetry(NoBackoff(), 0),
            **(kwargs | dict(options)),
        )

    async def initialize(self) -> Any:
        if self._initialize:
            manager = self.nodes_manager
            nodes = dict(manager.startup_nodes)
            hosts = [(node.host, int(node.port)) for node in nodes.values()]
            found = await asyncio.gather(*(self._awake(host) for host in hosts))
            order = _sorted(hosts, found)
            manager.startup_nodes = {
                name: nodes[name] for name in (f"{host}:{port}" for host, port in order)
            }
        return await super().initialize()

    async def _awake(self, host: _Host) -> bool:
        node = redis.asyncio.Redis(
            host=host[0], port=host[1], retry=AsyncRetry(NoBackoff(), 0), **_asking(self._options)
        )
        try:
            return bool(await node.ping())
        except (redis.RedisError, OSError) as error:
            return isinstance(error, redis.ResponseError | redis.AuthenticationError)
        finally:
            await node.aclose()


def _sorted(hosts: Sequence[_Host], awake: Sequence[bool]) -> list[_Host]:
    if not any(awake):
        raise RedisClusterException("no node of the cluster answers")
    asleep = [host for host, up in zip(hosts, awake, strict=True) if not up]
    return [host for host, up in zip(hosts, awake, strict=True) if up] + asleep


def _asking(options: Mapping[str, Any]) -> dict[str, Any]:
    return dict(options) | {"socket_timeout": AWAKE_S, "socket_connect_timeout": AWAKE_S}


def _options(url: StoreUrl) -> dict[str, Any]:
    options = dict(url.options)
    if options.pop("db", 0) != 0:
        raise InvalidSettingError("a cluster has database 0 only: leave the number out of the URL")
    return options
