"""Partition leases: who may apply a partition's log, by Redis's own clock.

A lease is a hash ``{pNNN}lease`` with ``owner``, ``epoch`` and ``until_ms``. Each new owner
raises the epoch; a commit carries its epoch, so an owner that was paused past its lease
cannot write. Belongs here: taking, keeping and giving leases, and sharing them out.
"""

from typing import Final

import redis

_ACQUIRE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'until_ms')
local epoch = tonumber(held[2] or '0')
if held[1] ~= ARGV[1] then
  if ARGV[3] == '0' and held[3] and tonumber(held[3]) > now then return -1 end
  epoch = epoch + 1
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', epoch, 'until_ms', now + ARGV[2])
return epoch
"""
_RELEASE: Final = """
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'owner', '', 'until_ms', 0)
end
return 1
"""
_BEAT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[2] == '0' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], now, ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])
return redis.call('ZCARD', KEYS[1])
"""

UPDATERS: Final = "portrait:updaters"
LEASE_MS: Final = 4000


def lease_key(partition: int) -> bytes:
    """Return the lease hash of a partition."""
    return b"{p%03d}lease" % partition


class Leases:
    """The leases of one owner; ``epochs`` maps the partitions held to their epochs.

    Parameters
    ----------
    client
        Synchronous client.
    owner
        Name unique to this process and start.
    lease_ms
        Time after which a silent owner loses its partitions.
    """

    def __init__(self, client: "redis.Redis", owner: str, lease_ms: int = LEASE_MS) -> None:
        self._client = client
        self._owner = owner
        self._lease_ms = lease_ms
        self._acquire = client.register_script(_ACQUIRE)
        self._release = client.register_script(_RELEASE)
        self._beat = client.register_script(_BEAT)
        self.epochs: dict[int, int] = {}

    def share(self, partitions: int) -> None:
        """Renew what is held and take or give partitions until every live owner has its share."""
        owners = max(1, self._beat(keys=[UPDATERS], args=[self._owner, 1, 3 * self._lease_ms]))
        fair = -(-partitions // owners)
        for partition in list(self.epochs):
            if len(self.epochs) > fair:
                self.release(partition)
            else:
                self.take(partition)
        for partition in range(partitions):
            if len(self.epochs) >= fair:
                break
            if partition not in self.epochs:
                self.take(partition)

    def take(self, partition: int, *, force: bool = False) -> bool:
        """Take or renew one lease and say whether it is held; ``force`` takes it from its owner."""
        epoch = int(
            self._acquire(
                keys=[lease_key(partition)], args=[self._owner, self._lease_ms, int(force)]
            )
        )
        if epoch < 0:
            self.epochs.pop(partition, None)
            return False
        self.epochs[partition] = epoch
        return True

    def release(self, partition: int) -> None:
        """Give one lease back, if it is still ours."""
        self.epochs.pop(partition, None)
        self._release(keys=[lease_key(partition)], args=[self._owner])

    def lose(self, partition: int) -> None:
        """Forget a lease that a commit found to be another's."""
        self.epochs.pop(partition, None)

    def leave(self) -> None:
        """Give everything back, so that the next owner need not wait."""
        for partition in list(self.epochs):
            self.release(partition)
        self._beat(keys=[UPDATERS], args=[self._owner, 0, 3 * self._lease_ms])
