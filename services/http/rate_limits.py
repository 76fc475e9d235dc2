"""Rate limits of a key: counted in the store, so that all gateways count together.

A bucket of a minute's worth of requests, refilled steadily (the generic cell rate algorithm:
one number a key). With the store away nobody is held back: what needs the store fails anyway.
"""

import asyncio
from typing import Any, Final

import redis

from feature_repo.online.lua import Script

KEY: Final = b"portrait:rate:"
_WINDOW_US: Final = 60_000_000
_BOUND_S: Final = 0.2
_TAKE: Final = Script("""
local time = redis.call('TIME')
local now, cost, most = time[1] * 1000000 + time[2], tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + cost
if full - now > most then
  return math.ceil(full - now - most)
end
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
return 0
""")
"""KEYS: the bucket. ARGV: what a request costs and what the bucket holds, microseconds.
Answers how long to wait, microseconds."""


class RateLimits:
    """What a key, or who else is named, may do: ``per_min``, also at once; 0 sets no limit."""

    def __init__(self, client: Any, per_min: int, *, prefix: bytes = KEY) -> None:
        self._client = client
        self._prefix = prefix
        self.per_min = per_min

    async def wait_s(self, name: str) -> float:
        """Count a request of the key with this digest, or of who is named so.

        Returns
        -------
        float
            0 if the request is within the limit; else after how many seconds one would be,
            and the request is not counted.
        """
        if self.per_min == 0:
            return 0.0
        cost_us = _WINDOW_US / self.per_min
        try:
            async with asyncio.timeout(_BOUND_S):
                waited = await _TAKE.run_async(
                    self._client, [self._prefix + name.encode()], [cost_us, _WINDOW_US]
                )
        except (redis.RedisError, OSError, TimeoutError):
            return 0.0
        return float(waited) / 1_000_000
