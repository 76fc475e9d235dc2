"""The repeat table: what each shopper already had, in bounded memory.

One sequential code for training, replay and serving, run for many users at once, so that
the three agree to the bit, evictions and rounding included. Decays are lazy: a row holds
its counts as of its own last event, and readers bring them forward. What the numbers are
worth is learned in `training.pair`; how a table is kept in bytes is `training.state`'s.

A row touched once holds its event's weight exactly. From the second touch on its decayed
counts are rounded to `STEPS` = 2^((c − 73)/30), c in 1…255 (at most 1.2 % off), so that
each takes one byte; its plain count is rounded to 16 bits.
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

STEPS: Final[Floats] = np.exp2((np.arange(256) - 73) / 30).astype(np.float32)
"""Values a decayed count is rounded to, by its code; code 0 is not used."""

_EVICT: Final = 3  # index in COUNTS of the decayed count that decides who leaves
_POWERS: Final = np.power(
    np.array([1.0, *EVENT_DECAYS], np.float64)[:, None], np.arange(4096)[None, :]
).astype(np.float32)
ROW: Final = np.dtype(
    [("item", "<i4"), ("last_event", "<i4"), ("last_s", "<i8"), ("first_day", "<i4"),
     ("again", "<i4"), ("counts", "<f4", (len(COUNTS),))]
)  # fmt: skip
"""One row: vocabulary row, positive events up to its last touch, time of that touch (epoch
seconds), epoch day of its first touch, whether it was touched again, `COUNTS`."""


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
    """

    def __init__(self, users: int, capacity: int) -> None:
        self.capacity = capacity
        self.rows = np.zeros((users, capacity), ROW)
        self.scalars: Doubles = np.zeros((users, len(SCALARS)), np.float64)
        self._items = np.zeros((users, capacity), np.int32)  # rows["item"], to search in

    def load(self, owner: Ints, rows: npt.NDArray[np.void]) -> None:
        """Put the rows of stored tables into empty ones, as many as `USED` of each says.

        Parameters
        ----------
        owner
            Which table a row is of, not decreasing. Shape (R,).
        """
        first = np.searchsorted(owner, owner)
        slot = np.arange(len(owner)) - first
        self.rows[owner, slot] = rows
        self._items[owner, slot] = rows["item"]

    def taken(self, user: int) -> npt.NDArray[np.void]:
        """Return the occupied rows of one user, in no particular order."""
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
        found = self._items[user] == item[:, None]
        slot = found.argmax(axis=1)
        held = found[np.arange(len(slot)), slot]
        if not held.all():
            new = ~held
            # Items of this basket that are held already must not be evicted by the others.
            before = self.rows["last_event"][user[held], slot[held]]
            self.rows["last_event"][user[held], slot[held]] = number[held]
            slot[new] = self._place(user[new], item[new], number[new], now_ms[new])
            row = self.rows[user, slot]
            row["last_event"][held] = before
        else:
            row = self.rows[user, slot]
        passed = (number - row["last_event"]).astype(np.int64)
        counts = forward(row["counts"], passed, now_ms - row["last_s"] * 1000.0)
        counts += weight[:, None]
        row["counts"] = np.where(held[:, None], rounded(counts), weight[:, None])
        row["again"] |= held
        row["last_event"] = number
        row["last_s"] = now_ms // 1000
        self.rows[user, slot] = row

    def _place(
        self, user: Ints, item: Ints, number: npt.NDArray[np.int32], now_ms: Doubles
    ) -> Ints:
        """Find a slot for each new item (grouped by user): free ones first, then the weakest."""
        first, place = np.r_[True, user[1:] != user[:-1]], np.arange(len(user))
        rank = place - np.maximum.accumulate(np.where(first, place, 0))
        slot: Ints = self.scalars[user, USED].astype(np.int64) + rank
        blank = np.zeros(len(user), ROW)
        blank["item"], blank["last_event"] = item, number
        blank["last_s"], blank["first_day"] = now_ms // 1000, now_ms // DAY_MS
        # Free slots are filled before anything is evicted: an empty slot must not look weak.
        full = slot >= self.capacity
        self.rows[user[~full], slot[~full]] = blank[~full]
        for table in np.unique(user[full]):
            over = np.flatnonzero((user == table) & full)
            slot[over] = self._evict(int(table), int(number[over[0]]), len(over))
        self.rows[user, slot] = blank
        self._items[user, slot] = item
        taken = np.bincount(user, minlength=0)
        tables = np.flatnonzero(taken)
        self.scalars[tables, USED] = np.minimum(
            self.scalars[tables, USED] + taken[tables], self.capacity
        )
        return slot

    def _evict(self, table: int, number: int, places: int) -> Ints:
        """Return the slots of the weakest rows; equals leave oldest first, then by item."""
        rows = self.rows[table]
        passed = np.clip(number - rows["last_event"], 0, _POWERS.shape[1] - 1)
        score: Floats = rows["counts"][:, _EVICT] * _POWERS[_EVICT, passed]
        score[rows["last_event"] == number] = np.inf
        # Not by slot: where a row stands depends on how often the table was packed.
        weakest = np.lexsort((rows["item"], rows["last_event"], score))
        slots: Ints = weakest[:places].astype(np.int64)
        return slots


def codes(counts: Floats) -> npt.NDArray[np.uint8]:
    """Return the code in `STEPS` nearest to each positive value, by its logarithm."""
    found = np.rint(np.log2(np.maximum(counts, STEPS[1]).astype(np.float64)) * 30) + 73
    code: npt.NDArray[np.uint8] = np.clip(found, 1, 255).astype(np.uint8)
    return code


def rounded(counts: Floats) -> Floats:
    """Round counts of shape (…, 6) to what a row can keep.

    Examples
    --------
    >>> rounded(np.array([[3.0, 1.5, 1.0, 0.5, 2.0, 4.0]], np.float32))[0].tolist()[2:]
    [1.0, 0.5, 2.0, 4.0]
    """
    out = STEPS[codes(counts)]
    out[..., 0] = np.minimum(counts[..., 0], 60_000).astype(np.float16)
    return out


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
