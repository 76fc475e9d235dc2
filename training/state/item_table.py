"""The repeat table: what each user already had, in bounded memory.

One sequential code (`state.item_table_kernels`) for training, replay and serving, so that the
three agree to the bit, evictions and rounding included. Decays are lazy: a row holds
its counts as of its own last event, and readers bring them forward. What the numbers are
worth is learned in `network.repeat_head`; `scoring.learned_state` keeps a table in bytes.

A row touched once holds its event's weight exactly. From the second touch on its decayed
counts are rounded to ``STEPS`` = 2^((c − 73)/30), c in 1…255 (at most 1.2 % off), so that
each takes one byte; its plain count is rounded to 16 bits.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from training.history.sequences import ranges
from training.state.item_table_kernels import (
    COUNTS,
    EVENTS,
    FIRST_MS,
    KNOWN,
    LAST_GAP_MS,
    LAST_MS,
    LAST_SIZE,
    ROW,
    SIZE_SUM,
    USED,
    count_events,
    round_counts,
)  # fmt: skip

__all__ = [
    "COUNTS", "EVENTS", "FIRST_MS", "KNOWN", "LAST_GAP_MS", "LAST_MS", "LAST_SIZE", "ROW",
    "SCALARS", "SIZE_SUM", "USED", "RepeatTables", "Rows", "round_to_kept",
]  # fmt: skip

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SCALARS: Final = (
    "events", "known", "size_sum", "last_size", "first_ms", "last_ms", "last_gap_ms", "used",
)  # fmt: skip


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

    def of(self, table: int) -> tuple[npt.NDArray[np.void], Doubles]:
        """Return the rows and scalars of one table; owners must not decrease."""
        first, end = np.searchsorted(self.owner, [table, table + 1])
        return self.rows[first:end], self.scalars[table]

    def select(self, tables: Ints) -> "Rows":
        """Return some tables, in the order asked for; owners must not decrease."""
        first, end = np.searchsorted(self.owner, tables), np.searchsorted(self.owner, tables + 1)
        owner = np.repeat(np.arange(len(tables)), end - first)
        return Rows(owner, self.rows[ranges(first, end - first)], self.scalars[tables])


class RepeatTables:
    """Tables of ``users``, with ``capacity`` rows each."""

    def __init__(self, users: int, capacity: int) -> None:
        self.capacity = capacity
        self.rows = np.empty((users, capacity), ROW)  # what is not taken is not read
        self.scalars: Doubles = np.zeros((users, len(SCALARS)), np.float64)

    def read_rows(self, user: int) -> npt.NDArray[np.void]:
        """Return the occupied rows of one user, in no particular order."""
        return self.rows[user, : int(self.scalars[user, USED])]

    def snapshot(self, users: Ints) -> Rows:
        """Copy the occupied rows of ``users``; `Rows.owner` counts along ``users``."""
        used = self.scalars[users, USED].astype(np.int64)
        owner = np.repeat(np.arange(len(users)), used)
        slot = np.arange(len(owner)) - np.repeat(np.cumsum(used) - used, used)
        return Rows(owner, self.rows[users[owner], slot], self.scalars[users].copy())

    def apply(self, users: Ints, time_ms: Ints, weight: Floats, lines: Ints, item: Ints) -> None:
        """Apply one event of each of ``users`` (distinct).

        Parameters
        ----------
        users, time_ms, weight
            Per event: table, time, weight in counts (0: only the clock moves).
        lines
            First line of each event, and the total.
        item
            Vocabulary row per line, 0 = not known, the others distinct per event.
        """
        count_events(self.rows, self.scalars, users, time_ms, weight, lines, item)


def round_to_kept(counts: Floats) -> Floats:
    """Round counts of shape (…, 6) to what a row can keep.

    Examples
    --------
    >>> round_to_kept(np.array([[3.0, 1.5, 1.0, 0.5, 2.0, 4.0]], np.float32))[0].tolist()[2:]
    [1.0, 0.5, 2.0, 4.0]
    """
    out = np.empty_like(counts)
    round_counts(counts.reshape(-1, len(COUNTS)), out.reshape(-1, len(COUNTS)))
    return out
