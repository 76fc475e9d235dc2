"""Health of the log as the store says: its length, how far it is applied, who owns it.

Readiness and metrics are made of it; probes for readiness share a look for a second.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.exceptions import RedisClusterException

from feature_repo.online.connection import refusal
from services.event_log.keys import cursor_key, log_key
from services.update.lease import UPDATERS, lease_key
from services.update.updater import STATS_KEY

FRESH_S: Final = 0.9
"""A look this old is still shown, seconds."""
LOOK_TIMEOUT_S: Final = 0.8

_PROBE_KEY: Final = "portrait:probe"
_PROBE_TTL_MS: Final = 60_000

# A partition's keys lie in one slot, so this runs on Redis Cluster too, by that node's clock.
_LOOK: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local at = redis.call('HMGET', KEYS[2], 'cursor', 'archived')
local function age(after, upto)
  local entry = redis.call('XRANGE', KEYS[1], '(' .. after, upto, 'COUNT', 1)[1]
  return entry and math.max(0, now - tonumber(string.match(entry[1], '%d+'))) or 0
end
local lag = age(at[1] or '0-0', '+')
local archive = 0
if at[1] and at[1] ~= at[2] then archive = age(at[2] or '0-0', at[1]) end
local until_ms = tonumber(redis.call('HGET', KEYS[3], 'until_ms') or '0')
return {redis.call('XLEN', KEYS[1]), lag, archive, redis.call('XLEN', KEYS[4]),
        until_ms > now and 1 or 0}
"""


@dataclass(frozen=True, slots=True)
class PartitionHealth:
    """One partition's log.

    Attributes
    ----------
    entries
        Entries in the log, applied or not.
    lag_ms, archive_lag_ms
        Age of the oldest entry that is not applied; that is applied and not archived; 0 if none.
    dead
        Events in the dead letters.
    leased
        Whether an updater holds it now.
    """

    entries: int
    lag_ms: int
    archive_lag_ms: int
    dead: int
    leased: bool


@dataclass(frozen=True, slots=True)
class Health:
    """What one look has found.

    Attributes
    ----------
    error
        Why the store could not be asked (a class name), else None: then all else is empty.
    refusal
        Why the store takes no writes (``OOM``, ``MISCONF``, ``READONLY``, …), else None.
    partitions
        By number.
    updaters
        Updaters seen in the last 12 s.
    stats
        Counts of the updaters since the store was made: ``events``, ``dead``, ``late``.
    took_ms
        How long the store took to answer.
    """

    error: str | None
    refusal: str | None
    partitions: tuple[PartitionHealth, ...]
    updaters: int
    stats: dict[str, int]
    took_ms: float


class Probe:
    """Looks at the store; probes share a look, at most one in `FRESH_S` however many ask.

    Parameters
    ----------
    client
        Asyncio client of the store.
    partitions
        Number of log partitions.
    """

    def __init__(self, client: Any, partitions: int) -> None:
        self._client = client
        self._partitions = partitions
        self._looking: asyncio.Task[Health] | None = None
        self._looked_s = -FRESH_S

    async def look(self) -> Health:
        """Look now; never raises."""
        return await self._look()

    async def glance(self) -> Health:
        """Return what was found less than a second ago, or look; never raises."""
        if self._looking is None or (
            self._looking.done() and time.monotonic() - self._looked_s > FRESH_S
        ):
            self._looked_s = time.monotonic()
            self._looking = asyncio.create_task(self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> Health:
        started_s = time.perf_counter()
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                found = await self._ask()
        except (TimeoutError, redis.RedisError, RedisClusterException, OSError) as error:
            return Health(type(error).__name__, None, (), 0, {}, _ms_since(started_s))
        written, updaters, stats, *partitions = found
        return Health(
            error=None,
            refusal=_find_refusal(written),
            partitions=tuple(
                PartitionHealth(entries, lag, archive, dead, bool(leased))
                for entries, lag, archive, dead, leased in partitions
            ),
            updaters=updaters,
            stats={name.decode(): int(value) for name, value in stats.items()},
            took_ms=_ms_since(started_s),
        )

    async def _ask(self) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.set(_PROBE_KEY, "1", px=_PROBE_TTL_MS)
            pipe.zcard(UPDATERS)
            pipe.hgetall(STATS_KEY)
            for p in range(self._partitions):
                keys = [log_key(p), cursor_key(p), lease_key(p), b"{p%03d}dead" % p]
                pipe.eval(_LOOK, len(keys), *keys)
            found: list[Any] = await pipe.execute(raise_on_error=False)
        for answer in found[1:]:  # the first may be refused: that is what it is for
            if isinstance(answer, Exception):
                raise answer
        return found


def _find_refusal(answer: Any) -> str | None:
    if not isinstance(answer, Exception):
        return None
    known = refusal(answer) if isinstance(answer, redis.ResponseError) else None
    return known or type(answer).__name__


def _ms_since(started_s: float) -> float:
    return round((time.perf_counter() - started_s) * 1000, 1)
