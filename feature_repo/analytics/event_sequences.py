"""The events of each type by user and time, laid out for `funnel`.

Belongs here: following from one step to the next. What is asked and said is `funnel`'s.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from feature_repo.audiences.index import Index

_LOAD: Final = "SELECT u, time_ms, type FROM steps ORDER BY u, time_ms"

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Reached:
    """Events that end a chain of steps, by user and time.

    Attributes
    ----------
    at
        Their indices among all events.
    u, time_ms
        Whose, and when.
    start_ms
        The latest start from which a chain leads to the event.
    """

    at: Ints
    u: Ints
    time_ms: Ints
    start_ms: Ints

    def least_ms(self) -> Ints:
        """Return the shortest chain of each user, milliseconds, in the order of users."""
        took_ms = self.time_ms - self.start_ms
        if not len(took_ms):
            return took_ms
        return np.minimum.reduceat(took_ms, np.flatnonzero(np.r_[True, self.u[1:] != self.u[:-1]]))


class Steps:
    """Users' events, by type."""

    def __init__(self, index: Index) -> None:
        self._users = index.num_users
        columns = index.columns(_LOAD)
        self._u, self._time_ms = columns["u"].astype(np.int64), columns["time_ms"]
        self._low = int(self._time_ms.min(initial=2**62))
        self._width = int(self._time_ms.max(initial=self._low)) - self._low + 2
        new = np.ones(len(self._u), dtype=bool)
        new[1:] = np.diff(self._u * self._width + self._time_ms) != 0
        self._begin = np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))
        self._indices = {
            str(event_type): np.flatnonzero(columns["type"] == event_type)
            for (event_type,) in index.rows("SELECT DISTINCT type FROM steps", {})
        }

    def first(self, event_type: str, from_ms: int, until_ms: int) -> Reached:
        """Return the events of a type in ``from_ms <= time < until_ms``."""
        at = self._of(event_type)
        time_ms = self._time_ms[at]
        chosen = (time_ms >= from_ms) & (time_ms < until_ms)
        at, time_ms = at[chosen], time_ms[chosen]
        return Reached(at, self._u[at], time_ms, time_ms)

    def then(self, before: Reached, event_type: str, within_ms: int, until_ms: int) -> Reached:
        """Return the events of a type that some of ``before`` lead to.

        For each the latest start among the same user's of earlier moments: the running maximum
        over all events before its moment. Of all chains that end in an event that is the
        shortest, so that it alone need fit ``within_ms``.
        """
        at = self._of(event_type)
        earliest_ms, time_ms = int(before.time_ms.min(initial=until_ms)), self._time_ms[at]
        begun = np.zeros(self._users, dtype=bool)
        begun[before.u] = True
        chosen = (time_ms > earliest_ms) & (time_ms < until_ms) & begun[self._u[at]]
        at, time_ms = at[chosen], time_ms[chosen]
        best = np.zeros(len(self._u) + 1, dtype=np.int64)
        best[before.at + 1] = before.u * self._width + (before.start_ms - (self._low - 1))
        np.maximum.accumulate(best, out=best)
        u = self._u[at]
        start = best[self._begin[at]] - u * self._width
        start_ms = start + (self._low - 1)
        led = (start > 0) & (time_ms - start_ms <= within_ms)
        return Reached(at[led], u[led], time_ms[led], start_ms[led])

    def _of(self, event_type: str) -> Ints:
        none: Ints = np.zeros(0, dtype=np.int64)
        return self._indices.get(event_type, none)
