"""The events of each type by user and time, laid out for `funnel`.

Belongs here: following from one step to the next. What is asked and said is `funnel`'s.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_repo.audiences.index import Index

_LOAD: Final = "SELECT u, time_ms FROM steps WHERE type = $kind ORDER BY u, time_ms"

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Reached:
    """Events that end a chain of steps, by user and time.

    Attributes
    ----------
    u, time_ms
        Whose, and when.
    start_ms
        The latest start from which a chain leads to the event.
    """

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
        rows = index.rows("SELECT min(time_ms), max(time_ms) FROM steps", {})[0]
        self._low, high = (0, 0) if rows[0] is None else (int(rows[0]), int(rows[1]))
        self._width = high - self._low + 2
        self._events = dict[str, tuple[Ints, Ints]]()
        for (kind,) in index.rows("SELECT DISTINCT type FROM steps", {}):
            found = index.columns(_LOAD, {"kind": kind})
            self._events[str(kind)] = found["u"].astype(np.int64), found["time_ms"]

    def first(self, kind: str, from_ms: int, until_ms: int) -> Reached:
        """Return the events of a type in ``from_ms <= time < until_ms``."""
        u, time_ms = self._of(kind)
        chosen = (time_ms >= from_ms) & (time_ms < until_ms)
        return Reached(u[chosen], time_ms[chosen], time_ms[chosen])

    def then(self, before: Reached, kind: str, within_ms: int, until_ms: int) -> Reached:
        """Return the events of a type that some of ``before`` lead to.

        For each the latest start among the same user's earlier ones: the running maximum, user
        by user. Of all chains that end in an event that is the shortest, so that it alone need
        fit ``within_ms``.
        """
        u, time_ms = self._of(kind)
        begun = np.zeros(self._users, dtype=bool)
        begun[before.u] = True
        earliest_ms = int(before.time_ms.min(initial=until_ms))
        chosen = np.flatnonzero((time_ms > earliest_ms) & (time_ms < until_ms) & begun[u])
        u, time_ms = u[chosen], time_ms[chosen]
        best = np.maximum.accumulate(self._key(before.u, before.start_ms))
        at = np.searchsorted(self._key(before.u, before.time_ms), self._key(u, time_ms)) - 1
        start = np.where(at >= 0, best[at] if len(best) else 0, 0) - u * self._width
        start_ms = start + (self._low - 1)
        led = (start > 0) & (time_ms - start_ms <= within_ms)
        return Reached(u[led], time_ms[led], start_ms[led])

    def _of(self, kind: str) -> tuple[Ints, Ints]:
        none: Any = np.zeros(0, dtype=np.int64)
        return self._events.get(kind, (none, none))

    def _key(self, u: Ints, time_ms: Ints) -> Ints:
        """Return one number for user and time, above nought, in the order of both."""
        return u * self._width + (time_ms - (self._low - 1))
