"""Counts kept beside the commits: events applied, late and dead, and what is popular.

Statistics, not state: a crash may lose or repeat the last few. The first three are written
before the commit they belong to (and taken back if it is refused), so that whoever waits for
a commit finds it counted. On one server they go along with the commit, in its round trip.
Popularity is gathered and written once a second.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

import redis
import structlog
from redis.exceptions import RedisClusterException

from feature_repo.cluster import node_of
from feature_repo.events import EventRecord
from feature_repo.script import Script
from services import popularity
from services.patience import Patience

STATS_KEY: Final = "portrait:updater:stats"
FLUSH_S: Final = 1.0
_ITEMS: Final = 20_000  # gathered at most before they are written
_CHUNK: Final = 1_000  # items a call: it holds the server for a millisecond or two
_GAIN: Final = Script("""
for n = 1, #ARGV, 2 do
  redis.call('ZINCRBY', KEYS[1], ARGV[n], ARGV[n + 1])
end
""")
"""KEYS: a sorted set. ARGV: what each member gains, and the member."""

_log = structlog.get_logger(__name__)


class Tally:
    """Adds up and writes counts; never fails.

    Parameters
    ----------
    client
        Synchronous client.
    patience
        With the nodes of a cluster; shared, so that a node that hangs costs one wait.
    """

    def __init__(self, client: Any, patience: Patience) -> None:
        self._client = client
        self._apart = isinstance(client, redis.RedisCluster)
        self._counts: dict[str, int] = defaultdict(int)
        self._gained: dict[str, dict[str, float]] = {
            key: defaultdict(float) for key in popularity.SETS
        }
        self._next_s = 0.0
        self._patience = patience

    def note(self, **changes: int) -> None:
        """Gather what the fields ``events``, ``late``, ``dead`` of `STATS_KEY` are to gain."""
        for name, change in changes.items():
            self._counts[name] += change

    def ahead(self) -> list[tuple[str, str, str, int]] | None:
        """Return commands that write what is noted, for a commit to take along; see `written`.

        On a cluster, where the counts lie elsewhere, they are written now and None is returned.
        """
        if self._apart:
            self.write()
            return None
        return [("HINCRBY", STATS_KEY, name, n) for name, n in self._counts.items() if n]

    def written(self) -> None:
        """Take note that the server has seen the commands of `ahead`."""
        if not self._apart:
            self._counts.clear()

    def write(self) -> None:
        """Write what is noted, by itself."""
        node = node_of(self._client, STATS_KEY)
        if not self._patience.allows(node):
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
            self._patience.answered(node)
            self._counts.clear()

    def applied(self, events: Sequence[EventRecord]) -> None:
        """Count what events make popular, and trending."""
        for key, half_life_ms in popularity.SETS.items():
            gained = self._gained[key]
            for item, amount in popularity.amounts(events, half_life_ms).items():
                gained[item] += amount

    def flush(self, *, now: bool = False) -> None:
        """Write the popularity if it is time, or ``now``."""
        clock, waiting = time.monotonic(), len(self._gained[popularity.KEY])
        if not waiting or (not now and clock < self._next_s and waiting < _ITEMS):
            return
        nodes = {key: node_of(self._client, key) for key in self._gained}
        if not all(self._patience.allows(node) for node in nodes.values()):
            return
        self._next_s = clock + FLUSH_S
        for key, gained in self._gained.items():
            self._gain(key, nodes[key], gained)
            gained.clear()

    def _gain(self, key: str, node: str, gained: dict[str, float]) -> None:
        try:
            pairs = iter(gained.items())
            while chunk := [each for item, gain in islice(pairs, _CHUNK) for each in (gain, item)]:
                _GAIN(self._client, [key], chunk)
        except (redis.RedisError, RedisClusterException, OSError) as error:
            self._failed(node, error)
        else:
            self._patience.answered(node)

    def _failed(self, node: str, error: Exception) -> None:
        self._patience.failed(node)
        _log.warning("counts_unwritten", node=node, error=type(error).__name__)
