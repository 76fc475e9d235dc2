"""The archive laid out for analyses, beside the tables of an audience index and out of them.

Belongs here: making it, and what all answers share: the moment they are of and their buckets. The
figures are the answers' own.
"""

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_repo.analytics import tables
from feature_repo.analytics.basket_pairs import BasketPairs
from feature_repo.analytics.calendar import DAY_MS, Grain, bucket_of, start_ms
from feature_repo.analytics.event_sequences import Steps
from feature_repo.analytics.interest_history import InterestHistory
from feature_repo.analytics.suppressed_cells import SuppressedCells
from feature_repo.analytics.suppression import K
from feature_repo.audiences.index import Index
from feature_repo.events.schema import iso


class Cube:
    """What analyses are answered from, as the archive stood when the index was made.

    Attributes
    ----------
    suppressed
        What `trends` must hide.
    pairs
        What is bought together.
    interest_history
        Interests by month.
    steps
        The order of users' events.
    types
        Types of events that there are, in order.
    """

    def __init__(self, index: Index) -> None:
        started_s = time.monotonic()
        self.source: Final = index
        index = index.without_denying()
        self.index: Final = index
        for statement in tables.make():
            index.make(statement)
        self.suppressed = SuppressedCells(index)
        self.pairs = BasketPairs(index)
        self.interest_history = InterestHistory(index)
        self._slots = index.columns("SELECT u, time_ms, slot FROM slots")
        self._slot_types = _ranges(index, "slots")
        self.steps: Final = Steps(index)
        self.types = [
            str(row[0]) for row in index.rows("SELECT type FROM starts ORDER BY type", {})
        ]
        self.built_s = time.monotonic() - started_s

    @cached_property
    def first_ms(self) -> dict[str, int]:
        """When each type of event was first seen, epoch milliseconds."""
        return {
            str(event_type): int(first)
            for event_type, first in self.index.rows("SELECT type, first_ms FROM starts", {})
        }

    def slots(self, event_type: str) -> dict[str, npt.NDArray[Any]]:
        """Return ``u``, ``time_ms`` and ``slot`` (24 · weekday + hour) of a type, by time."""
        low, high = self._slot_types.get(event_type, (0, 0))
        return {name: column[low:high] for name, column in self._slots.items()}

    def moment(self, now_ms: int) -> "Moment":
        """Return the moment that an answer asked for as of ``now_ms`` is of."""
        return Moment(self, min(now_ms, self.index.newest_ms), now_ms)


@dataclass(frozen=True, slots=True)
class Moment:
    """As of when an answer is: what was asked for, or the newest event where that is earlier.

    Attributes
    ----------
    at_ms
        Epoch milliseconds; events at it count.
    requested_ms
        What was asked for, epoch milliseconds.
    """

    cube: Cube
    at_ms: int
    requested_ms: int

    @property
    def until_ms(self) -> int:
        """First millisecond that no longer counts."""
        return self.at_ms + 1

    def end(self, grain: Grain) -> int:
        """Return the end of the last whole bucket: by then its last day was over, or had events."""
        day_end_ms = (self.cube.index.newest_ms // DAY_MS + 1) * DAY_MS
        return bucket_of(grain, min(self.requested_ms + 1, day_end_ms))

    def whole(self, grain: Grain, event_type: str, most: int) -> tuple[int, int]:
        """Return first and end of the last ``most`` whole buckets since a type was first seen.

        A bucket is whole if the type was seen before it or on its first day, and it is over.
        """
        end = self.end(grain)
        if event_type not in self.cube.first_ms:
            return end, end
        first_ms = self.cube.first_ms[event_type]
        first = bucket_of(grain, first_ms)
        first += start_ms(grain, first) + DAY_MS <= first_ms
        return min(end, max(first, end - most)), end

    def head(self, suppressed: int) -> dict[str, Any]:
        """Return what every answer begins with."""
        index = self.cube.index
        return {
            "as_of": iso(self.at_ms),
            "k": K,
            "suppressed": int(suppressed),
            "data": {
                "events": index.num_events,
                "newest_event": iso(index.newest_ms) if index.num_events else None,
            },
        }


def _ranges(index: Index, table: str) -> dict[str, tuple[int, int]]:
    """Return where each type stands in a table that is ordered by type."""
    counts = index.rows(
        f"SELECT type, count(*) FROM {table} GROUP BY type ORDER BY type",
        {},
    )
    ends = np.cumsum([int(count) for _, count in counts])
    return {
        str(event_type): (int(end) - int(count), int(end))
        for (event_type, count), end in zip(counts, ends, strict=True)
    }
