"""Connections to the online store: from a URL, failing fast, errors in our own words.

Clients made here answer or fail within a second when the server is away. What is read or
written through them belongs elsewhere.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis
from redis import asyncio as redis_asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from feature_repo.errors import InvalidSettingError, StoreUnavailableError

TIMEOUT_S: Final = 0.5
"""Longest wait to connect, and for one answer."""
_SCHEMES: Final = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
_RETRIES: Final = 1
_REFUSALS: Final = re.compile(
    r"(?:^|caused error: )(OOM|MISCONF|READONLY|LOADING|BUSY|MASTERDOWN|NOREPLICAS)\b"
)
# A connection that broke may have idled too long: worth one fresh try. A timeout is not:
# the command may have run, and the second wait would break the bound of one second.
_RETRIED: Final = (redis.ConnectionError,)


def connect(url: str, *, timeout_s: float = TIMEOUT_S) -> Any:
    """Return a client for ``url``; it connects on first use.

    Parameters
    ----------
    url
        ``redis://``, ``rediss://`` (TLS) or ``unix://``; ``redis+cluster://`` and
        ``rediss+cluster://`` for Redis Cluster. Percent-encode the password.
    timeout_s
        Longest wait for one answer. Blocking reads need more than their block time.

    Returns
    -------
    redis.Redis or redis.cluster.RedisCluster

    Raises
    ------
    InvalidSettingError
        If the scheme is another one.
    """
    kwargs: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": TIMEOUT_S,
        "retry": Retry(ConstantBackoff(0.02), _RETRIES, supported_errors=_RETRIED),
    }
    if _is_cluster(url):
        with translated():
            return redis.RedisCluster.from_url(url.replace("+cluster", "", 1), **kwargs)
    return redis.Redis.from_url(url, **kwargs)


def connect_async(url: str, *, timeout_s: float = TIMEOUT_S) -> Any:
    """Return an asyncio client for ``url``; see `connect`."""
    kwargs: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": TIMEOUT_S,
        "retry": AsyncRetry(ConstantBackoff(0.02), _RETRIES, supported_errors=_RETRIED),
    }
    if _is_cluster(url):
        return redis_asyncio.RedisCluster.from_url(url.replace("+cluster", "", 1), **kwargs)
    return redis_asyncio.Redis.from_url(url, **kwargs)


@contextmanager
def translated() -> Iterator[None]:
    """Turn failures of the store into `StoreUnavailableError`.

    Raises
    ------
    StoreUnavailableError
        If the server is away, is loading, or refuses writes (disk or memory full).
    """
    try:
        yield
    except (
        redis.ConnectionError,
        redis.TimeoutError,
        redis.exceptions.ClusterDownError,
        OSError,
    ) as error:
        raise StoreUnavailableError(
            f"the online store does not answer ({type(error).__name__}): retry, "
            "and check that the server behind PORTRAIT_REDIS_URL runs"
        ) from error
    except redis.ResponseError as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        raise StoreUnavailableError(
            f"the online store refuses for now ({refusal}): free its memory or disk, and retry"
        ) from error


def _refusal(error: redis.ResponseError) -> str | None:
    """Return the code of a refusal that passes with time, else None."""
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return "OOM"
    if isinstance(error, redis.exceptions.ReadOnlyError):
        return "READONLY"
    found = _REFUSALS.search(str(error))
    return None if found is None else found.group(1)


def _is_cluster(url: str) -> bool:
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES:
        raise InvalidSettingError(
            f"the store's URL starts with {scheme[:20]!r}: use one of {', '.join(_SCHEMES)}"
        )
    return scheme.endswith("+cluster")
