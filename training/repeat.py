"""The repeat table: what each shopper already had, in bounded memory.

One sequential code for training, replay and serving, run for many users at once, so that
the three agree to the bit, evictions included. Decays are lazy: a row holds its counts as
of its own last event, and readers bring them forward. What the numbers are worth is learned
in `training.pair`.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from training.vocabulary import DAY_MS

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

COUNTS: Final = ("count", "decayed_95", "decayed_80", "decayed_97", "days_30", "days_120")
EVENT_DECAYS: Final = (0.95, 0.8, 0.97)
DAY_SCALES: Final = (30.0, 120.0)
SCALARS: Final = (
    "events", "known", "size_sum", "last_size", "first_ms", "last_ms", "last_gap_ms", "used",
)  # fmt: skip
EVENTS, KNOWN, SIZE_SUM, LAST_SIZE, FIRST_MS, LAST_MS, LAST_GAP_MS, USED = range(8)
"""events: positive events; known: any consumed event seen (0/1); used: rows taken."""

_EVICT: Final = 3  # index in COUNTS of the decayed count that decides who leaves
_POWERS: Final = np.power(
    np.array([1.0, *EVENT_DECAYS], np.float64)[:, None], np.arange(4096)[None, :]
).astype(np.float32)
ROW: Final = np.dtype(
    [("item", "<i4"), ("last_event", "<i4"), ("first_ms", "<i8"), ("last_ms", "<i8"),
     ("counts", "<f4", (len(COUNTS),))]
)  # fmt: skip
"""One row as it is kept in a state: 48 bytes."""


@dataclass(frozen=True)
class Rows:
    """Occupied rows of several tables, laid end to end, with each table's scalars.

    Attributes
    ----------
    owner
        Which table a row is of. Shape (R,).
    rows
        `ROW` records, shape (R,).
    scalars
        `SCALARS` per table, shape (B, 8).
    """

    owner: Ints
    rows: npt.NDArray[np.void]
    scalars: Doubles


class RepeatTables:
    """Tables of ``users`` shoppers with ``capacity`` rows each.

    Parameters
    ----------
    users, capacity
        Number of tables and rows per table.
    items
        Size of the vocabulary; rows hold items 1 to ``items``.
    """

    def __init__(self, users: int, capacity: int, items: int) -> None:
        self.capacity = capacity
        self.rows = np.zeros((users, capacity), ROW)
        self.scalars: Doubles = np.zeros((users, len(SCALARS)), np.float64)
        self._slot = np.full((users, items + 1), -1, np.int32)

    def load(self, user: int, rows: npt.NDArray[np.void], scalars: Doubles) -> None:
        """Put a stored table into place."""
        self.rows[user, : len(rows)] = rows
        self.scalars[user] = scalars
        self._slot[user, rows["item"]] = np.arange(len(rows), dtype=np.int32)

    def taken(self, user: int) -> npt.NDArray[np.void]:
        """Return the occupied rows of one user, in slot order."""
        return self.rows[user, : int(self.scalars[user, USED])]

    def snapshot(self, users: Ints) -> Rows:
        """Copy the occupied rows of ``users``; `Rows.owner` counts along ``users``."""
        used = self.scalars[users, USED].astype(np.int64)
        owner = np.repeat(np.arange(len(users)), used)
        slot = np.arange(len(owner)) - np.repeat(np.cumsum(used) - used, used)
        return Rows(owner, self.rows[users[owner], slot], self.scalars[users].copy())

    def apply(
        self,
        users: Ints,
        time_ms: Ints,
        weight: Floats,
        sizes: Ints,
        owner: Ints,
        item: Ints,
    ) -> None:
        """Apply one event of each of ``users`` (distinct).

        Parameters
        ----------
        users, time_ms, weight, sizes
            Per event: table, time, weight in counts (0: only the clock moves), basket size.
        owner, item
            Per line: index into ``users``, and vocabulary row > 0, distinct per event.
        """
        state = self.scalars[users]
        known = state[:, KNOWN] > 0
        gap = np.maximum(time_ms - state[:, LAST_MS], 0.0)
        state[:, LAST_GAP_MS] = np.where(known, gap, 0.0)
        state[:, FIRST_MS] = np.where(known, state[:, FIRST_MS], time_ms)
        state[:, LAST_MS] = np.where(known, np.maximum(time_ms, state[:, LAST_MS]), time_ms)
        state[:, KNOWN] = 1.0
        positive = weight > 0
        state[:, EVENTS] += positive
        state[:, SIZE_SUM] += np.where(positive, sizes, 0)
        state[:, LAST_SIZE] = np.where(positive, sizes, state[:, LAST_SIZE])
        self.scalars[users] = state
        counted = positive[owner]
        owner, item = owner[counted], item[counted]
        if len(owner):
            self._count(users[owner], item, state[owner, LAST_MS], weight[owner])

    def _count(self, user: Ints, item: Ints, now_ms: Doubles, weight: Floats) -> None:
        number = self.scalars[user, EVENTS].astype(np.int32)
        slot = self._slot[user, item]
        new = slot < 0
        before = np.where(new, number, self.rows["last_event"][user, slot])
        if new.any():
            # Items of this basket that are held already must not be evicted by the others.
            held = ~new
            self.rows["last_event"][user[held], slot[held]] = number[held]
            slot[new] = self._place(user[new], item[new], number[new], now_ms[new])
        row = self.rows[user, slot]
        counts = forward(row["counts"], (number - before).astype(np.int64), now_ms - row["last_ms"])
        row["counts"] = counts + weight[:, None]
        row["last_event"] = number
        row["last_ms"] = now_ms.astype(np.int64)
        self.rows[user, slot] = row

    def _place(
        self, user: Ints, item: Ints, number: npt.NDArray[np.int32], now_ms: Doubles
    ) -> npt.NDArray[np.int32]:
        """Find a slot for each new item (grouped by user): free ones first, then the weakest."""
        first, place = np.r_[True, user[1:] != user[:-1]], np.arange(len(user))
        rank = place - np.maximum.accumulate(np.where(first, place, 0))
        slot = self.scalars[user, USED].astype(np.int64) + rank
        blank = np.zeros(len(user), ROW)
        blank["item"], blank["last_event"] = item, number
        blank["first_ms"] = blank["last_ms"] = now_ms.astype(np.int64)
        # Free slots are filled before anything is evicted: an empty slot must not look weak.
        full = slot >= self.capacity
        self.rows[user[~full], slot[~full]] = blank[~full]
        for table in np.unique(user[full]):
            over = np.flatnonzero((user == table) & full)
            slot[over] = self._evict(int(table), int(number[over[0]]), len(over))
        self.rows[user, slot] = blank
        self._slot[user, item] = slot
        taken = np.bincount(user, minlength=0)
        tables = np.flatnonzero(taken)
        self.scalars[tables, USED] = np.minimum(
            self.scalars[tables, USED] + taken[tables], self.capacity
        )
        found: npt.NDArray[np.int32] = slot.astype(np.int32)
        return found

    def _evict(self, table: int, number: int, places: int) -> Ints:
        rows = self.rows[table]
        passed = np.clip(number - rows["last_event"], 0, _POWERS.shape[1] - 1)
        score = rows["counts"][:, _EVICT] * _POWERS[_EVICT, passed]
        score = np.where(rows["last_event"] == number, np.inf, score)
        weakest = np.argsort(score, kind="stable")[:places]
        self._slot[table, rows["item"][weakest]] = -1
        return weakest


def forward(counts: Floats, events: Ints, elapsed_ms: Doubles) -> Floats:
    """Bring counts forward by a number of events and by elapsed time.

    ``count`` stays; the three event decays are multiplied by γ^events; the two time decays
    by exp(−days / scale).
    """
    passed = np.clip(events, 0, _POWERS.shape[1] - 1)
    days = np.maximum(elapsed_ms, 0.0) / DAY_MS
    out: Floats = counts.copy()
    out[:, :4] *= _POWERS[:, passed].T
    for column, scale in enumerate(DAY_SCALES, start=4):
        out[:, column] *= np.exp(-days / scale).astype(np.float32)
    return out
