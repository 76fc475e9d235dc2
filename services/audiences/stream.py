"""The stream of who entered and left audiences, as server-sent events.

Belongs here: reading the stream and the form of an event. What is in it is `watch`'s.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any, Final

import orjson
import redis
from redis.exceptions import RedisClusterException

from feature_repo.events.schema import iso
from services.audiences.watch import CHANGES

STREAM_ID: Final = re.compile(r"\d{1,20}-\d{1,20}")
LASTS_S: Final = 20.0
"""A stream ends so soon, before any bound on requests does it less kindly."""
_LOOK_S: Final = 0.1
_BEAT_S: Final = 5.0
_PAGE: Final = 500


async def newest(client: Any) -> str:
    """Return the id of the newest change, ``0-0`` if there is none."""
    found = await client.xrevrange(CHANGES, count=1)
    return str(found[0][0].decode()) if found else "0-0"


async def stream(
    client: Any, after: str, names: Collection[str] | None, gone: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Yield the changes after ``after`` in the form of server-sent events, for a while.

    Parameters
    ----------
    client
        Asyncio client of the store; when it does not answer, the stream ends.
    names
        Only of these audiences; None: of all.
    gone
        Says whether the reader has left.
    """
    started_s = beat_s = time.monotonic()
    yield b"retry: 1000\n\n"
    while (now_s := time.monotonic()) < started_s + LASTS_S and not await gone():
        try:
            page = await client.xrange(CHANGES, min=f"({after}", count=_PAGE)
        except (redis.RedisError, RedisClusterException, OSError):
            return
        for entry, fields in page:
            after = entry.decode()
            change = {key.decode(): value.decode() for key, value in fields.items()}
            if names is None or change["audience"] in names:
                yield _event(after, change)
        if not page:
            if now_s > beat_s + _BEAT_S:
                beat_s = now_s
                yield b": still here\n\n"
            await asyncio.sleep(_LOOK_S)


def _event(name: str, change: dict[str, str]) -> bytes:
    data = {
        "audience": change["audience"],
        "user": change["user"],
        "at": iso(int(change["at_ms"])),
        "version": int(change["version"]),
    }
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (
        name.encode(), change["change"].encode(), orjson.dumps(data)
    )  # fmt: skip
