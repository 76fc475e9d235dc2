"""Counts kept beside the commits: events applied, late and dead, and what is popular.

Statistics, not state: a crash may lose or repeat the last few. The first three are written
before the commit they belong to (and taken back if it is refused), so that whoever waits for
a commit finds it counted. On one server they go along with the commit, in its round trip.
Who touched what is gathered and counted once a second: what it adds depends on what the
store remembers of user and item (`popularity`).
"""

import struct
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

import redis
import structlog
from redis.exceptions import RedisClusterException

from feature_repo.events.schema import EventRecord
from feature_repo.online.cluster import node_of
from feature_repo.online.lua import Script
from services.catalogue import popularity
from services.runtime.backoff import Backoff

STATS_KEY: Final = "portrait:updater:stats"
FLUSH_S: Final = 1.0
_TOUCHES: Final = 20_000  # gathered at most before they are written
_CHUNK: Final = 1_000  # touches or items a call: it holds the server for a millisecond or two
_TOUCH: Final = Script("""
local touches, found = ARGV[1], {}
for n = 1, #touches, 5 do
  local high, low, level, day_high, day_low = string.byte(touches, n, n + 4)
  local at = (high * 256 + low) * 6
  local old = redis.call('GETRANGE', KEYS[1], at, at + 5)
  old = old .. string.rep(string.char(0), 6 - #old)
  local day, new = day_high * 256 + day_low, ''
  for each = 0, level do
    local first, second = string.byte(old, 2 * each + 1, 2 * each + 2)
    local last = math.max(day, first * 256 + second)
    new = new .. string.char(math.floor(last / 256), last % 256)
  end
  new = new .. string.sub(old, 2 * level + 3)
  if new ~= old then redis.call('SETRANGE', KEYS[1], at, new) end
  found[#found + 1] = old
end
return table.concat(found)
""")
"""KEYS: a partition's cells (`popularity.CELLS`, six bytes each). ARGV: five bytes a touch: cell,
level, day, numbers of two bytes with the high one first. Answers with the cells as they were."""
_GAIN: Final = Script("""
for n = 2, #ARGV, 2 do
  redis.call('ZINCRBY', KEYS[1], ARGV[n], ARGV[n + 1])
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[1]))
""")
"""KEYS: a sorted set. ARGV: the most members, then what each member gains, and the member."""
_TOUCH_BYTES: Final = struct.Struct(">HBH")
_CELL_BYTES: Final = struct.Struct(">3H")

_log = structlog.get_logger(__name__)


class Counters:
    """Adds up and writes counts; never fails.

    Parameters
    ----------
    client
        Synchronous client.
    backoff
        With the nodes of a cluster; shared, so that a node that hangs costs one wait.
    """

    def __init__(self, client: Any, backoff: Backoff) -> None:
        self._client = client
        self._apart = isinstance(client, redis.RedisCluster)
        self._counts: dict[str, int] = defaultdict(int)
        self._touches = dict[popularity.Touch, int]()
        self._next_s = 0.0
        self._backoff = backoff

    def note(self, **changes: int) -> None:
        """Gather what the fields ``events``, ``late``, ``dead`` of `STATS_KEY` are to gain."""
        for name, change in changes.items():
            self._counts[name] += change

    def ahead(self) -> list[tuple[str, str, str, int]] | None:
        """Return commands that write what is noted, for a commit to take along; see `note_written`.

        On a cluster, where the counts lie elsewhere, they are written now and None is returned.
        """
        if self._apart:
            self.write()
            return None
        return [("HINCRBY", STATS_KEY, name, n) for name, n in self._counts.items() if n]

    def note_written(self) -> None:
        """Take note that the server has seen the commands of `ahead`."""
        if not self._apart:
            self._counts.clear()

    def write(self) -> None:
        """Write what is noted, by itself."""
        node = node_of(self._client, STATS_KEY)
        if not self._backoff.allows(node):
            return
        counts = {name: n for name, n in self._counts.items() if n}
        try:
            with self._client.pipeline(transaction=False) as pipe:
                for name, n in counts.items():
                    pipe.hincrby(STATS_KEY, name, n)
                pipe.execute()
        except (redis.RedisError, RedisClusterException, OSError) as error:
            self._failed(node, error)
        else:
            self._backoff.note_answer(node)
            self._counts.clear()

    def note_applied(self, events: Sequence[EventRecord]) -> None:
        """Take note of what users touched: it makes items popular, and trending."""
        popularity.note(self._touches, events)

    def flush(self, *, now: bool = False) -> None:
        """Count what was touched if it is time, or ``now``."""
        clock, waiting = time.monotonic(), len(self._touches)
        if not waiting or (not now and clock < self._next_s and waiting < _TOUCHES):
            return
        if not all(self._backoff.allows(node_of(self._client, key)) for key in popularity.SETS):
            return
        self._next_s = clock + FLUSH_S
        by_partition: dict[int, list[popularity.Touch]] = defaultdict(list)
        for touch in self._touches:
            by_partition[int(touch[0][2:5])].append(touch)
        gained: dict[str, dict[str, float]] = {key: defaultdict(float) for key in popularity.SETS}
        for partition, touches in by_partition.items():
            self._touch(partition, touches, gained)
        self._touches.clear()
        for key, gains in gained.items():
            self._gain(key, gains)

    def _touch(
        self,
        partition: int,
        touches: Sequence[popularity.Touch],
        gained: Mapping[str, dict[str, float]],
    ) -> None:
        """Note the days of touches in a partition's cells, and add up what items gain by it."""
        key = popularity.cells_key(partition)
        node = node_of(self._client, key)
        if not self._backoff.allows(node):
            return
        try:
            for start in range(0, len(touches), _CHUNK):
                some = touches[start : start + _CHUNK]
                packed = b"".join(
                    _TOUCH_BYTES.pack(popularity.cell(user, item), level, self._touches[each])
                    for each in some for user, item, level in [each]
                )  # fmt: skip
                before = _CELL_BYTES.iter_unpack(_TOUCH(self._client, [key], [packed]))
                for each, days in zip(some, before, strict=True):
                    for name, gain in popularity.gains(days, each[2], self._touches[each]):
                        gained[name][each[1]] += gain
        except (redis.RedisError, RedisClusterException, OSError) as error:
            self._failed(node, error)
        else:
            self._backoff.note_answer(node)

    def _gain(self, key: str, gained: Mapping[str, float]) -> None:
        node = node_of(self._client, key)
        try:
            pairs = iter(gained.items())
            while chunk := [each for item, gain in islice(pairs, _CHUNK) for each in (gain, item)]:
                _GAIN(self._client, [key], [popularity.MAX_ITEMS, *chunk])
        except (redis.RedisError, RedisClusterException, OSError) as error:
            self._failed(node, error)
        else:
            self._backoff.note_answer(node)

    def _failed(self, node: str, error: Exception) -> None:
        self._backoff.note_failure(node)
        _log.warning("counts_unwritten", node=node, error=type(error).__name__)
