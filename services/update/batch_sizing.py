"""Batch sizing: rounds of the log, little when there is little, much under a backlog.

Pure reckoning. Latency comes first: an idle updater blocks until an event comes and takes
just that. A partition that gave all it was asked for is behind and is asked for twice as
much, up to its fair part of what a round may hold; so rounds grow with the backlog, within
bounds of entries, bytes and time.
"""

from collections.abc import Collection
from typing import Final

from services.event_log.batch import Batch

ROUND_ENTRIES: Final = 8_192
ROUND_BYTES: Final = 16_000_000
IDLE_ENTRIES: Final = 64
"""Entries that a partition without a backlog is asked for."""
SLOW_S: Final = 0.8
"""A round that takes longer is too large: leases must be renewed, and readers wait."""


class BatchSizing:
    """Decides how many entries each partition is asked for."""

    def __init__(self) -> None:
        self._behind = dict[int, int]()  # partition -> entries to ask for
        self._entries = ROUND_ENTRIES  # of a round, by its duration
        self._entry_bytes = 1_000.0

    @property
    def behind(self) -> Collection[int]:
        """The partitions known to have more to give."""
        return self._behind.keys()

    def counts(self, partitions: Collection[int]) -> dict[int, int]:
        """Return how many entries to ask of each of ``partitions``."""
        if not partitions:
            return {}
        room = max(len(partitions), min(self._entries, int(ROUND_BYTES / self._entry_bytes)))
        small = max(1, min(IDLE_ENTRIES, room // len(partitions)))
        behind = [p for p in partitions if p in self._behind]
        fair = (room - small * (len(partitions) - len(behind))) // max(1, len(behind))
        share = max(small, fair)
        return {p: min(self._behind.get(p, small), share) for p in partitions}

    def note_batch(self, batch: Batch, requested: int) -> None:
        """Learn from what a partition gave when it was asked for ``requested`` entries."""
        if batch.taken < len(batch.entries):
            self._behind[batch.partition] = max(IDLE_ENTRIES, 2 * batch.taken)
        elif len(batch.entries) >= requested:
            self._behind[batch.partition] = max(2 * IDLE_ENTRIES, 2 * requested)
        else:
            self._behind.pop(batch.partition, None)
        # Quick to believe in larger events, slow to believe in smaller ones.
        size = batch.size / len(batch.entries)
        self._entry_bytes = max(size, 0.9 * self._entry_bytes + 0.1 * size)

    def note_nothing(self, partition: int) -> None:
        """Learn that a partition had nothing to give."""
        self._behind.pop(partition, None)

    def note_duration(self, seconds: float, entries: int) -> None:
        """Learn how long a round of ``entries`` took."""
        if seconds > SLOW_S:
            self._entries = max(IDLE_ENTRIES, min(self._entries, entries) // 2)
        elif seconds < SLOW_S / 4:
            self._entries = min(ROUND_ENTRIES, 2 * self._entries)
