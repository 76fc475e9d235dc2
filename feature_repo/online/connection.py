"""Connections to the online store: from a URL, failing fast, errors in our own words.

Clients made here answer or fail within a second when the server is away, and find it again
by themselves when it is back, has restarted elsewhere (Sentinel) or its slots have moved
(Cluster). What is read or written through them belongs elsewhere.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis
from redis import asyncio as redis_asyncio
from redis.asyncio import connection as async_connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ConstantBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import ClusterError, NoPermissionError, ReadOnlyError, RedisClusterException
from redis.retry import Retry

from feature_repo.errors import InvalidSettingError, StoreUnavailableError
from feature_repo.online import cluster, sentinel
from feature_repo.online.url import StoreUrl

TIMEOUT_S: Final = 0.5
"""Longest wait to connect, and for one answer."""
_SCHEMES: Final = (
    "redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster",
    "rediss+cluster",
)  # fmt: skip
_RETRIES: Final = 1
_PACKER: Final = HiredisRespSerializer()
_REFUSALS: Final = re.compile(
    r"(?:^|caused error: |-)(OOM|MISCONF|READONLY|LOADING|BUSY|MASTERDOWN|NOREPLICAS|UNBLOCKED"
    r"|CLUSTERDOWN|TRYAGAIN|MOVED|ASK|NOAUTH|UNKILLABLE)\b"
)
# A connection that broke may have idled too long: worth one fresh try. A timeout is not:
# the command may have run, and the second wait would break the bound of one second.
_RETRIED: Final = (redis.ConnectionError,)


class _Demoted:
    """A connection that is given up when its server says that it is a replica now.

    Behind a name or a virtual address the next connection may lead to the new master.
    """

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        except ReadOnlyError:
            self.disconnect()  # type: ignore[attr-defined]
            raise redis.ConnectionError("the server is a replica now") from None


class _DemotedAsync:
    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)  # type: ignore[misc]
        except ReadOnlyError:
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            raise redis.ConnectionError("the server is a replica now") from None

    def pack_command(self, *args: Any) -> list[bytes]:
        # In C, as the synchronous connection does; by itself this one packs in Python.
        packed: list[bytes] = _PACKER.pack(*args)
        return packed


class _Tcp(_Demoted, redis.Connection):  # type: ignore[misc]
    pass


class _Tls(_Demoted, redis.SSLConnection):  # type: ignore[misc]
    pass


class _AsyncTcp(_DemotedAsync, redis_asyncio.Connection):  # type: ignore[misc]
    pass


class _AsyncTls(_DemotedAsync, redis_asyncio.SSLConnection):  # type: ignore[misc]
    pass


_OURS: Final[dict[Any, Any]] = {
    redis.Connection: _Tcp,
    redis.SSLConnection: _Tls,
    redis_asyncio.Connection: _AsyncTcp,
    async_connection.SSLConnection: _AsyncTls,
}


def connect(url: str, *, timeout_s: float = TIMEOUT_S) -> Any:
    """Return a client for ``url``; it connects on first use (to a cluster: now).

    Parameters
    ----------
    url
        ``redis://``, ``rediss://`` (TLS) or ``unix://`` for one server; with ``+sentinel`` or
        ``+cluster`` after the scheme several hosts, see `feature_repo.online.url.StoreUrl`.
        ``user:password@`` logs an ACL user in; percent-encode the password. TLS takes
        ``?ssl_ca_certs=FILE`` and redis-py's other ``ssl_`` options.
    timeout_s
        Longest wait for one answer. Blocking reads need more than their block time.

    Returns
    -------
    redis.Redis or redis.cluster.RedisCluster

    Raises
    ------
    InvalidSettingError
        If the scheme is another one, or the URL cannot be read.
    StoreUnavailableError
        If no node of a cluster answers.
    """
    deployment, kwargs = _how(url, timeout_s, Retry)
    if deployment == "cluster":
        with translated():
            return cluster.connect(StoreUrl.parse(url), **kwargs)
    if deployment == "sentinel":
        return sentinel.connect(StoreUrl.parse(url), **kwargs)
    return _watched(redis.Redis.from_url(url, **kwargs))


def connect_async(url: str, *, timeout_s: float = TIMEOUT_S) -> Any:
    """Return an asyncio client for ``url``; it connects on first use. See `connect`."""
    deployment, kwargs = _how(url, timeout_s, AsyncRetry)
    if deployment == "cluster":
        return cluster.connect_async(StoreUrl.parse(url), **kwargs)
    if deployment == "sentinel":
        return sentinel.connect_async(StoreUrl.parse(url), **kwargs)
    return _watched(redis_asyncio.Redis.from_url(url, **kwargs))


def _how(url: str, timeout_s: float, retry: type[Any]) -> tuple[str, dict[str, Any]]:
    """Return the kind of store that a URL names, and the bounds of its clients."""
    deployment = _deployment_of(url)
    bounds = {"socket_timeout": timeout_s, "socket_connect_timeout": min(timeout_s, TIMEOUT_S)}
    if deployment == "cluster":  # it repeats by its own means
        return deployment, bounds
    again = retry(ConstantBackoff(0.02), _RETRIES, supported_errors=_RETRIED)
    return deployment, bounds | {"retry": again}


def _watched(client: Any) -> Any:
    pool = client.connection_pool
    pool.connection_class = _OURS.get(pool.connection_class, pool.connection_class)
    return client


@contextmanager
def translated() -> Iterator[None]:
    """Turn failures of the store into `StoreUnavailableError`.

    Raises
    ------
    StoreUnavailableError
        If the server is away, is loading, does not know or permit our user, or refuses
        writes (disk or memory full).
    """
    try:
        yield
    except (redis.RedisError, RedisClusterException, OSError) as error:
        words = in_our_words(error)
        if words is None:
            raise
        raise words from error


def in_our_words(error: Exception) -> StoreUnavailableError | None:
    """Return a failure that passes by itself or by the operator's hand in our words, else None."""
    if isinstance(error, redis.AuthenticationError | NoPermissionError):
        return StoreUnavailableError(
            f"the online store does not let us in ({type(error).__name__}): check user, password "
            "and permissions of PORTRAIT_REDIS_URL"
        )
    if isinstance(error, redis.ResponseError):
        code = refusal(error)
        if code == "OOM":
            return StoreUnavailableError(
                "the online store refuses for now (OOM): its memory is full. Nothing was changed; "
                "give it more (PORTRAIT_STORE_MEMORY_MB), or run `portrait privacy sweep`"
            )
        if code is not None:
            return StoreUnavailableError(
                f"the online store refuses for now ({code}): check its memory, disk and role, "
                "and retry"
            )
        if not isinstance(error, ClusterError):
            return None
    if isinstance(
        error,
        redis.ConnectionError | redis.TimeoutError | ClusterError | RedisClusterException | OSError,
    ):
        return StoreUnavailableError(
            f"the online store does not answer ({type(error).__name__}): retry, "
            "and check that the server behind PORTRAIT_REDIS_URL runs"
        )
    return None


def refusal(error: redis.ResponseError) -> str | None:
    """Return the code of a refusal that passes with time, else None."""
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return "OOM"
    if isinstance(error, ReadOnlyError):
        return "READONLY"
    if isinstance(error, redis.exceptions.MovedError | redis.exceptions.AskError):
        return "MOVED"
    found = _REFUSALS.search(str(error))
    return None if found is None else found.group(1)


def _deployment_of(url: str) -> str:
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES:
        raise InvalidSettingError(
            f"the store's URL starts with {scheme[:20]!r}: use one of {', '.join(_SCHEMES)}"
        )
    return scheme.partition("+")[2]
