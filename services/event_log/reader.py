"""Reading the log: one blocking call for all partitions, or one a partition on a cluster.

A cluster does not read streams of several slots in one call. There, one task a partition
blocks on its own stream in an event loop of its own thread: an idle cluster is not polled,
a lone event is seen at once, and a node that is away holds up its own partitions only.
"""

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Final, Protocol
from urllib.parse import urlsplit, urlunsplit

import redis
import structlog
from redis.exceptions import RedisClusterException

from feature_repo.online.connection import TIMEOUT_S, connect, connect_async
from services.event_log.entries import LogEntry
from services.event_log.keys import log_key

BLOCK_MS: Final = 250
_AWAY_S: Final = 0.5

_log = structlog.get_logger(__name__)


class LogReader(Protocol):
    """Gives the entries after the cursors."""

    def read(
        self, cursors: Mapping[int, str], counts: Mapping[int, int], *, block: bool
    ) -> dict[int, list[LogEntry]]:
        """Return the next entries of the partitions that have any.

        Parameters
        ----------
        cursors
            Last applied entry by partition.
        counts
            How many entries each may give.
        block
            Wait up to `BLOCK_MS` for the first one.
        """
        ...

    def close(self) -> None:
        """Let go of the connections."""
        ...


def reader(client: Any, url: str) -> LogReader:
    """Return the reader that fits the store behind ``client`` and ``url``."""
    if isinstance(client, redis.RedisCluster):
        return ClusterReader(client, url)
    return ServerReader(url)


class ServerReader:
    """Reads from one server.

    Parameters
    ----------
    url
        See `feature_repo.online.connection.connect`.
    """

    def __init__(self, url: str) -> None:
        self._client = connect(url, timeout_s=2.0 + BLOCK_MS / 1000)

    def read(
        self, cursors: Mapping[int, str], counts: Mapping[int, int], *, block: bool
    ) -> dict[int, list[LogEntry]]:
        """See `LogReader.read`."""
        if block:
            streams: Any = {log_key(p): cursor for p, cursor in cursors.items()}
            found = self._client.xread(streams, count=min(counts.values()), block=BLOCK_MS)
            pairs = found.items() if isinstance(found, dict) else found
            return {int(name[2:5]): entries for name, entries in pairs if entries}
        with self._client.pipeline(transaction=False) as pipe:
            for partition, cursor in cursors.items():
                pipe.xrange(log_key(partition), f"({cursor}", count=counts[partition])
            answers = pipe.execute()
        return {p: entries for p, entries in zip(cursors, answers, strict=True) if entries}

    def close(self) -> None:
        """See `LogReader.close`."""
        self._client.close()


class ClusterReader:
    """Reads from a cluster.

    Parameters
    ----------
    cluster
        Client whose picture of the slots is kept fresh by others.
    url
        Its URL; each node is reached with the same user and options.
    """

    def __init__(self, cluster: Any, url: str) -> None:
        self._cluster = cluster
        self._url = url
        self._nodes = dict[tuple[str, int], Any]()
        self._pending = dict[int, tuple[str, int, Future[list[LogEntry]]]]()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="log-reader", daemon=True)
        self._thread.start()

    def read(
        self, cursors: Mapping[int, str], counts: Mapping[int, int], *, block: bool
    ) -> dict[int, list[LogEntry]]:
        """See `LogReader.read`."""
        for partition, cursor in cursors.items():
            if partition not in self._pending:
                work = self._read(partition, cursor, counts[partition])
                future = asyncio.run_coroutine_threadsafe(work, self._loop)
                self._pending[partition] = (cursor, counts[partition], future)
        waited = [self._pending[partition][2] for partition in cursors]
        wait(waited, timeout=BLOCK_MS / 1000 if block else 0.005, return_when=FIRST_COMPLETED)
        found = dict[int, list[LogEntry]]()
        for partition, (cursor, _, future) in list(self._pending.items()):
            if not future.done():
                continue
            del self._pending[partition]
            # A partition that was lost and came back may stand elsewhere now.
            if cursors.get(partition) == cursor and (entries := future.result()):
                found[partition] = entries
        return found

    def close(self) -> None:
        """See `LogReader.close`."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            for client in self._nodes.values():
                self._loop.run_until_complete(client.aclose())
            self._loop.close()

    async def _read(self, partition: int, cursor: str, count: int) -> list[LogEntry]:
        try:
            node = self._cluster.get_node_from_key(log_key(partition))
            client = self._client(node.host, int(node.port))
            streams: Any = {log_key(partition): cursor}
            found = await client.xread(streams, count=count, block=BLOCK_MS)
        except (redis.RedisError, RedisClusterException, OSError) as error:
            _log.warning("log_unread", partition=partition, error=type(error).__name__)
            await asyncio.sleep(_AWAY_S)
            return []
        pairs = list(found.values()) if isinstance(found, dict) else [e for _, e in found]
        return pairs[0] if pairs else []

    def _client(self, host: str, port: int) -> Any:
        if (host, port) not in self._nodes:
            parts = urlsplit(self._url)
            login, at, _ = parts.netloc.rpartition("@")
            shown = f"[{host}]" if ":" in host else host
            url = urlunsplit(
                parts._replace(
                    scheme=parts.scheme.partition("+")[0],
                    netloc=f"{login}{at}{shown}:{port}",
                    path="",
                )
            )
            self._nodes[host, port] = connect_async(url, timeout_s=TIMEOUT_S + BLOCK_MS / 1000)
        return self._nodes[host, port]
