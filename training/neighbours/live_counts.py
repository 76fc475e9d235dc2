"""Live counts: how many users items had lately, as of any moment of a history.

They are the numbers that the service keeps (`POPULARITY_STEPS`, two half-lives): an item counts its
users, each as much as the strongest thing they did with it, fading since the day on which they
last did it. Scores use forward decay (Cormode et al., 2009), so a moment's counts are a sum over
what came before it. Only their proportions mean anything. Belongs here: making them from
histories. Not here: what a model makes of them (`network.live_popularity`).

Shape legend: G gains, H half-lives, P moments, N items.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from feature_repo.events.types import (
    CONSUMED,
    POPULARITY_LEVELS,
    POPULARITY_STEPS,
    RECENT_HALF_LIFE_DAYS,
    SHORT_HALF_LIFE_DAYS,
)
from training.history.sequences import Histories, Ints
from training.history.vocabulary import DAY_MS

Doubles = npt.NDArray[np.float64]
COUNT_HALF_LIVES_DAYS: Final = (RECENT_HALF_LIFE_DAYS, SHORT_HALF_LIFE_DAYS)
_LEVEL: Final = np.array([POPULARITY_LEVELS.get(name, -1) for name in CONSUMED])
_MOST_HALF_LIVES: Final = 1000.0


@dataclass(frozen=True, eq=False)
class LiveCounts:
    """What every event adds to the counts of its items, oldest first.

    Attributes
    ----------
    items
        Number of items N.
    first_day
        Day of the epoch from which the gains grow: by then, one of a later day counts more.
    time_ms, item, gain
        Of each gain: when, of which item (from 0), and how much. Shapes (G,), (G,), (H, G).
    """

    items: int
    first_day: int
    time_ms: Ints
    item: Ints
    gain: Doubles
    _days: dict[int, tuple[Doubles, int]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, histories: Histories, items: int) -> "LiveCounts":
        """Count the known items of some histories."""
        event = np.repeat(np.arange(len(histories.kind)), np.diff(histories.lines))
        level = _LEVEL[histories.kind[event]]
        kept = (level >= 0) & (histories.item > 0)
        event, level, item = event[kept], level[kept], histories.item[kept] - 1
        user = np.repeat(np.arange(len(histories.users)), histories.lengths())[event]
        time_ms = histories.time_ms[event]
        day = time_ms // DAY_MS
        pair, first_day = user * items + item, int(day.min(initial=1 << 40))
        rows, gains = list[Ints](), list[Doubles]()
        for number, step in enumerate(POPULARITY_STEPS):
            at = np.flatnonzero(level >= number)
            rows.append(at)
            gains.append(step * _fresh(pair[at], day[at] - first_day))
        rows_G, gain = np.concatenate(rows), np.concatenate(gains, axis=1)
        used = np.flatnonzero(gain[0] > 0)
        order = used[np.argsort(time_ms[rows_G[used]], kind="stable")]
        return cls(items, first_day, time_ms[rows_G[order]], item[rows_G[order]], gain[:, order])

    def at(self, time_ms: Ints) -> Doubles:
        """Return the counts of all items as of some moments, shape (P, H, N).

        An event of the very moment does not count yet. Of each half-life, counts stand in
        proportion to each other.
        """
        out = np.zeros((len(time_ms), len(COUNT_HALF_LIVES_DAYS), self.items))
        for day in np.unique(time_ms // DAY_MS).tolist():
            counted, first = self._until(day)
            counted = counted.copy()
            of_day = np.flatnonzero(time_ms // DAY_MS == day)
            for p in of_day[np.argsort(time_ms[of_day], kind="stable")].tolist():
                end = int(np.searchsorted(self.time_ms, time_ms[p]))
                self._add(counted, first, end)
                out[p], first = counted, end
        return out

    def users_at(self, time_ms: int) -> Doubles:
        """Return how many users all items together had as of a moment, shape (H,)."""
        age_days = time_ms // DAY_MS - self.first_day
        counted = self.at(np.array([time_ms]))[0].sum(axis=1)
        return np.array(
            [n * 0.5 ** (age_days / h) for n, h in zip(counted, COUNT_HALF_LIVES_DAYS, strict=True)]
        )

    def _until(self, day: int) -> tuple[Doubles, int]:
        """Return what counted before a day, and the first gain that did not."""
        if day not in self._days:
            end = int(np.searchsorted(self.time_ms, day * DAY_MS))
            counted = np.zeros((len(COUNT_HALF_LIVES_DAYS), self.items))
            self._add(counted, 0, end)
            self._days[day] = counted, end
        return self._days[day]

    def _add(self, counted: Doubles, first: int, end: int) -> None:
        for h, gain in enumerate(self.gain):
            np.add.at(counted[h], self.item[first:end], gain[first:end])


def _fresh(pair: Ints, day: Ints) -> Doubles:
    """Return what each touch of a user and an item adds to what the pair counts, shape (H, G)."""
    order = np.argsort(pair, kind="stable")  # a user's events stand in the order of their times
    day = day[order]
    again = np.diff(pair[order], prepend=-1) == 0
    out = np.zeros((len(COUNT_HALF_LIVES_DAYS), len(day)))
    for h, half_life in enumerate(COUNT_HALF_LIVES_DAYS):
        weight = np.exp2(np.minimum(day / half_life, _MOST_HALF_LIVES))
        counted = np.where(again, np.roll(weight, 1), 0.0)
        out[h, order] = np.maximum(weight - counted, 0.0)
    return out
