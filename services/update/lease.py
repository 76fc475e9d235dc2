"""Partition leases: who may apply a partition's log, by Redis's own clock.

A lease is a hash ``{pNNN}lease`` with ``owner``, ``epoch`` and ``until_ms``. Each new owner
raises the epoch; a commit carries its epoch, so an owner that was paused past its lease
cannot write. Live owners beat into the sorted set `UPDATERS`; each takes its share by its
rank there. Belongs here: taking, keeping and giving leases, and sharing them out.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import redis
import structlog
from redis.exceptions import RedisClusterException

from feature_repo.errors import StoreUnavailableError
from feature_repo.online.cluster import node_of
from feature_repo.online.lua import Call, Script
from services.event_log.keys import cursor_key
from services.runtime.backoff import Backoff

_TAKE: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'until_ms')
local epoch = tonumber(held[2] or '0')
if held[1] ~= ARGV[1] then
  if ARGV[3] == '0' and held[3] and tonumber(held[3]) > now then return {-1} end
  epoch = epoch + 1
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', epoch, 'until_ms', now + ARGV[2])
local known = redis.call('HMGET', KEYS[2], 'cursor', 'model')
return {epoch, known[1] or '0-0', known[2] or ''}
""")
_FREE: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'owner', 'until_ms')
return (held[1] == ARGV[1] or tonumber(held[2] or '0') <= now) and 1 or 0
""")
_RELEASE: Final = Script("""
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'owner', '', 'until_ms', 0)
end
return 1
""")
_BEAT: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[2] == '0' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], now, ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])
local owners = redis.call('ZRANGE', KEYS[1], 0, -1)
table.sort(owners)
for rank, owner in ipairs(owners) do
  if owner == ARGV[1] then return {rank - 1, #owners} end
end
return {0, #owners}
""")

UPDATERS: Final = "portrait:updaters"
LEASE_MS: Final = 4000

_log = structlog.get_logger(__name__)


class LeaseState(NamedTuple):
    """A lease, and where its partition stood when it was last renewed."""

    epoch: int
    cursor: str
    model: str | None


def lease_key(partition: int) -> bytes:
    """Return the lease hash of a partition."""
    return b"{p%03d}lease" % partition


class Leases:
    """The leases of one owner.

    Parameters
    ----------
    client
        Synchronous client.
    owner
        Name unique to this process and start.
    lease_ms
        Time after which a silent owner loses its partitions, and no longer counts.
    backoff
        With the nodes of a cluster; may be shared.

    Attributes
    ----------
    owned
        The state of each partition owned.
    """

    def __init__(
        self,
        client: Any,
        owner: str,
        lease_ms: int = LEASE_MS,
        backoff: Backoff | None = None,
    ) -> None:
        self._client = client
        self._owner = owner
        self._lease_ms = lease_ms
        self._target: tuple[int, int] = (0, 1)  # rank, owners
        self._backoff = backoff or Backoff()
        self.owned: dict[int, LeaseState] = {}

    @property
    def epochs(self) -> dict[int, int]:
        """The epoch of each partition owned; a copy."""
        return {partition: state.epoch for partition, state in list(self.owned.items())}

    def share(self, partitions: int) -> None:
        """Renew what is owned and take or give partitions until every live owner has its share.

        Shares differ by one at most. Part of a cluster that does not answer costs its
        partitions, for the time being.

        Raises
        ------
        StoreUnavailableError
            If no partition's lease could be asked for.
        """
        rank, owners = self._beat()
        fair = partitions // owners + (rank < partitions % owners)
        keep = sorted(self.owned)[:fair]
        for partition in set(self.owned) - set(keep):
            self.release(partition)
        reached = self._take(keep)
        others = [p for p in range(partitions) if p not in self.owned]
        if len(self.owned) < fair and others:
            # Everyone begins at another place: less asking for what another is taking.
            start = rank * len(others) // owners
            free, answered = self._free(others[start:] + others[:start])
            self._take(free[: fair - len(self.owned)])
            reached |= answered
        if not reached and fair:
            raise StoreUnavailableError("no partition's lease could be asked for: retry")

    def missing(self, partitions: int) -> int:
        """Return how many partitions the owner lacks to its share, as of the last `share`."""
        rank, owners = self._target
        return partitions // owners + (rank < partitions % owners) - len(self.owned)

    def take(self, partition: int, *, force: bool = False) -> bool:
        """Take or renew one lease and say whether it is held; ``force`` takes it from its owner.

        Raises
        ------
        redis.RedisError
            If the store does not answer.
        """
        return self._took(partition, _TAKE(self._client, *self._call(partition, force=force)))

    def release(self, partition: int) -> None:
        """Give one lease back, if it is still ours."""
        self.owned.pop(partition, None)
        try:
            _RELEASE(self._client, [lease_key(partition)], [self._owner])
        except (redis.RedisError, RedisClusterException, OSError) as error:
            _log.warning("lease_left_to_expire", partition=partition, error=type(error).__name__)

    def lose(self, partition: int) -> None:
        """Forget a lease that a commit found to be another's."""
        self.owned.pop(partition, None)

    def leave(self) -> None:
        """Give everything back, so that the next owner need not wait."""
        for partition in list(self.owned):
            self.release(partition)
        _BEAT(self._client, [UPDATERS], [self._owner, 0, self._lease_ms])

    def _beat(self) -> tuple[int, int]:
        node = node_of(self._client, UPDATERS)
        if not node or self._backoff.allows(node):
            try:
                rank, owners = _BEAT(self._client, [UPDATERS], [self._owner, 1, self._lease_ms])
            except (redis.RedisError, RedisClusterException, OSError) as error:
                if not isinstance(self._client, redis.RedisCluster):
                    raise
                # The set lies on a node that is away: shares stay as they were.
                self._backoff.note_failure(node)
                _log.warning("beat_failed", error=type(error).__name__)
            else:
                self._target = (int(rank), max(1, int(owners)))
        return self._target

    def _call(self, partition: int, *, force: bool = False) -> Call:
        keys = [lease_key(partition), cursor_key(partition)]
        return keys, [self._owner, self._lease_ms, int(force)]

    def _took(self, partition: int, answer: Sequence[Any]) -> bool:
        if int(answer[0]) < 0:
            self.owned.pop(partition, None)
            return False
        self.owned[partition] = LeaseState(
            int(answer[0]), answer[1].decode(), answer[2].decode() or None
        )
        return True

    def _take(self, partitions: Iterable[int]) -> bool:
        """Take leases and say whether the store, or any part of a cluster, answered."""
        reached = False
        for partition, answer in self._ask(_TAKE, partitions):
            if isinstance(answer, Exception):
                self.owned.pop(partition, None)
            else:
                reached = True
                self._took(partition, answer)
        return reached

    def _free(self, partitions: Iterable[int]) -> tuple[list[int], bool]:
        """Return which partitions nobody holds, and whether any part of the store answered."""
        answers = self._ask(_FREE, partitions)
        reached = any(not isinstance(answer, Exception) for _, answer in answers)
        return [p for p, answer in answers if not isinstance(answer, Exception) and answer], reached

    def _ask(self, script: Script, partitions: Iterable[int]) -> list[tuple[int, Any]]:
        """Run a script for each partition, in one pipeline a node; a failure is an answer."""
        found = list[tuple[int, Any]]()
        for client, node, group in self._by_node(partitions):
            if node and not self._backoff.allows(node):
                found += [(p, redis.ConnectionError("away")) for p in group]
                continue
            try:
                answers = script.run_all(client, [self._call(partition) for partition in group])
            except (redis.RedisError, RedisClusterException, OSError) as error:
                if node:
                    self._backoff.note_failure(node)
                _log.warning("leases_unknown", partitions=len(group), error=type(error).__name__)
                answers = [error] * len(group)
            else:
                self._backoff.note_answer(node)
            refused = [answer for answer in answers if isinstance(answer, redis.ResponseError)]
            if refused:
                _log.warning("leases_refused", count=len(refused), error=type(refused[0]).__name__)
                if node:
                    self._client.nodes_manager.initialize()  # its slots may be elsewhere now
            found += zip(group, answers, strict=True)
        return found

    def _by_node(self, partitions: Iterable[int]) -> list[tuple[Any, str, list[int]]]:
        if not isinstance(self._client, redis.RedisCluster):
            group = list(partitions)
            return [(self._client, "", group)] if group else []
        groups: dict[str, list[int]] = defaultdict(list)
        for partition in partitions:
            try:
                node = self._client.get_node_from_key(lease_key(partition))
            except RedisClusterException:
                self.owned.pop(partition, None)  # no node has its slot now
                continue
            groups[node.name].append(partition)
        return [
            (self._client.get_redis_connection(self._client.get_node(node_name=name)), name, group)
            for name, group in groups.items()
        ]
