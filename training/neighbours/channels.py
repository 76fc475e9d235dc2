"""Memories: what the items of a history say about every other, beside the network's answer.

For a request with items i in the history, ``s_i`` positive events since each was last touched, and
rows B (`training.neighbours.item_rows`), a channel m gives::

    r_m[j] = Σ_i γ_m^{s_i} · B_m[i, j]
    φ_m    = r_m, or log(r_m / ε + 1)

What is in it, and since when, is the repeat table (`state.item_table`): a memory adds nothing to a
user's state, and is bounded as the table is. Two channels more are the same for everybody: the
logarithm of popularity, recent and most recent. Five more count how often i was had, too, with the
table's decayed count in place of γ^s: what is in the history itself, and rows fitted to the next
basket. They are evidence of their own only (`training.network.mixture`). How much each counts is
`training.network.stacking`'s.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from training.history.sequences import Histories
from training.history.vocabulary import DENSE_ITEMS
from training.neighbours import item_rows, next_basket_rows
from training.state.item_table import EVENTS, Rows

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
KEPT: Final = 200
"""Entries kept of each row."""
RIDGE: Final = 10.0
"""λ of the ridge regressions, in mean numbers of users an item: 500 on MovieLens-100K."""
EPSILON: Final = 1e-3


@dataclass(frozen=True)
class Channel:
    """One memory: which rows, how it fades, and whether its logarithm counts.

    ``count`` is the index in `state.item_table.COUNTS` of what an item's row is multiplied
    with as well; None: nothing.
    """

    rows: str
    per_event: float
    log: bool = False
    count: int | None = None


CHANNELS: Final = (
    Channel("together", 0.5),
    Channel("together", 0.8),
    Channel("together", 0.9),
    Channel("together", 0.98),
    Channel("after", 0.5, log=True),
    Channel("after", 0.8, log=True),
    Channel("after", 0.5),
    Channel("after", 0.8),
)
HALF_LIVES_DAYS: Final = (28.0, 7.0)
COUNT: Final = len(CHANNELS) + len(HALF_LIVES_DAYS)
"""Number of channels M that `training.network.stacking` adds up."""
EVIDENCE: Final = (
    Channel("own", 1.0, count=0),
    Channel("own", 0.95, count=1),
    Channel("own", 0.8, count=2),
    Channel("next_95", 0.95, count=1),
    Channel("next_80", 0.8, count=2),
)
"""Channels that are evidence of their own only; in a reading they come after the M."""
ROW_TYPES: Final = ("together", "after", "next_95", "next_80")
"""Rows that are fitted; ``own`` is each item for itself."""
CHANNEL_AT: Final = {
    **dict(enumerate(CHANNELS)),
    **{COUNT + n: channel for n, channel in enumerate(EVIDENCE)},
}
"""Channels with rows by their index in a reading."""
READ: Final = COUNT + len(EVIDENCE)
EMPTY: Final = np.zeros((0, len(CHANNELS)), np.float32)
_NOTHING: Final = 1e-7
"""A row that has faded to this is left out."""
NEXT_RIDGE: Final = 1000.0
FADING: Final = np.zeros((READ, 2048), np.float32)
"""γ_m^s by index and s."""
for _index, _channel in CHANNEL_AT.items():
    FADING[_index] = np.power(_channel.per_event, np.arange(2048))
_COUNTS: Final = np.full(READ, -1)
"""What a channel is multiplied with as well, −1 for nothing."""
for _index, _channel in CHANNEL_AT.items():
    _COUNTS[_index] = -1 if _channel.count is None else _channel.count


class ChannelTable(NamedTuple):
    """Sparse rows: entries of item i at ``indptr[i] : indptr[i + 1]``."""

    indptr: Ints
    item: npt.NDArray[np.int32]
    value: Floats

    @classmethod
    def of(cls, rows: Any) -> "ChannelTable":
        """Keep the `KEPT` largest entries of each row."""
        kept = item_rows.top(rows, KEPT)
        # What rests in a model directory is half precision: be the same before and after.
        value = kept.data.astype(np.float16).astype(np.float32)
        return cls(kept.indptr.astype(np.int64), kept.indices.astype(np.int32), value)

    @classmethod
    def empty(cls, items: int) -> "ChannelTable":
        """Return rows that say nothing."""
        return cls(np.zeros(items + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))

    @classmethod
    def own(cls, items: int) -> "ChannelTable":
        """Return each item for itself."""
        return cls(
            np.arange(items + 1), np.arange(items, dtype=np.int32), np.ones(items, np.float32)
        )


@dataclass(frozen=True)
class SparseReading:
    """What the rows of the history's items say, where they say anything.

    Attributes
    ----------
    owner, item
        Request and item (from 0), each two once, sorted. Shape (R,).
    value
        φ of the channels with rows, shape (R, len(CHANNELS)).
    """

    owner: Tensor
    item: Tensor
    value: Tensor


@dataclass(frozen=True)
class Channels:
    """Rows and popularity of a training period.

    Attributes
    ----------
    tables
        Rows by type, see `ROW_TYPES`.
    popularity
        Centred log of target lines, halved every `HALF_LIVES_DAYS`. Shape (2, N).
    """

    tables: Mapping[str, ChannelTable]
    popularity: Floats

    @classmethod
    def fit(cls, histories: Histories, until_ms: int, items: int) -> "Channels":
        """Fit everything on the events before ``until_ms``."""
        wanted = histories.time_ms < until_ms
        x = item_rows.interactions(histories, wanted, items)
        dense = items <= DENSE_ITEMS
        fit = item_rows.ease if dense else item_rows.neighbour_ridge
        together = fit(x, RIDGE * x.nnz / items)
        tables = {
            "together": ChannelTable.of(together),
            "after": ChannelTable.of(item_rows.transitions(histories, wanted, items)),
        }
        for name, per_event in (("next_95", 0.95), ("next_80", 0.8)):
            tables[name] = (
                ChannelTable.of(
                    next_basket_rows.fit(histories, wanted, items, per_event, NEXT_RIDGE)
                )
                if dense
                else ChannelTable.empty(items)
            )
        return cls(tables, _popularity(histories, until_ms, items))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return every array by name; values in half precision, which they are rounded to."""
        out: dict[str, npt.NDArray[Any]] = {"popularity": self.popularity}
        for name, table in self.tables.items():
            out[f"{name}_indptr"] = table.indptr
            out[f"{name}_item"] = table.item
            out[f"{name}_value"] = table.value.astype(np.float16)
        return out

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "Channels":
        """Read what `arrays` gave."""
        tables = {
            name: ChannelTable(
                arrays[f"{name}_indptr"],
                arrays[f"{name}_item"],
                arrays[f"{name}_value"].astype(np.float32),
            )
            for name in ROW_TYPES
        }
        return cls(tables, arrays["popularity"])

    @cached_property
    def rows(self) -> Mapping[str, ChannelTable]:
        """All rows by type, ``own`` among them."""
        return {**self.tables, "own": ChannelTable.own(self.popularity.shape[1])}

    def read(self, snapshot: Rows) -> Floats:
        """Return φ of each channel at P requests, shape (P, READ, N).

        Parameters
        ----------
        snapshot
            Snapshot of P repeat tables.
        """
        out = np.zeros((len(snapshot.scalars), READ, self.popularity.shape[1]), np.float32)
        for request, (item, sums) in enumerate(self._gather_each(snapshot, tuple(CHANNEL_AT))):
            for m, row in zip(CHANNEL_AT, sums, strict=True):
                out[request, m, item] = logarithm(row) if CHANNEL_AT[m].log else row
        out[:, len(CHANNELS) : COUNT] = self.popularity
        return out

    def read_sparse(self, snapshot: Rows) -> SparseReading:
        """Return φ of the channels with rows where it is not 0: `read` for very many items."""
        logs, found = [channel.log for channel in CHANNELS], [(np.zeros(0, np.int64), EMPTY)]
        for item, value in self._gather_each(snapshot, tuple(range(len(CHANNELS)))):
            value[logs] = logarithm(value[logs])
            found.append((item, value.T))
        owner = np.repeat(np.arange(len(found) - 1), [len(item) for item, _ in found[1:]])
        items, values = (np.concatenate(part) for part in zip(*found, strict=True))
        return SparseReading(
            torch.from_numpy(owner), torch.from_numpy(items), torch.from_numpy(values)
        )

    def _gather_each(
        self, snapshot: Rows, columns: tuple[int, ...]
    ) -> Iterator[tuple[Ints, Floats]]:
        """Yield what `gather` gives for each request."""
        rows = snapshot.rows[np.argsort(snapshot.owner, kind="stable")]
        sizes = np.bincount(snapshot.owner, minlength=len(snapshot.scalars))
        parts = np.split(rows, np.cumsum(sizes)[:-1]) if len(sizes) else []
        for part, scalars in zip(parts, snapshot.scalars, strict=True):
            yield self.gather(part, scalars, columns)

    def gather(self, rows: Any, scalars: Any, columns: tuple[int, ...]) -> tuple[Ints, Floats]:
        """Add up the rows of what one user holds, faded.

        Parameters
        ----------
        rows, scalars
            The occupied rows of one repeat table, shape (R,), and its scalars.
        columns
            Indices of channels in a reading, those of one type of rows side by side.

        Returns
        -------
        tuple
            Items from 0, each once, the history's first, shape (T,); the sums before any
            logarithm, shape (C, T).
        """
        channels, spans = _plan(tuple(self.rows), columns)
        tables = tuple(self.rows.values())
        found: tuple[Ints, Floats] = _gather(self._index, tables, spans, channels, rows, scalars)
        return found

    @cached_property
    def _index(self) -> npt.NDArray[np.int32]:
        """Where an item is among those found; −1 but while `_gather` runs, which keeps the GIL."""
        return np.full(self.popularity.shape[1], -1, np.int32)


@lru_cache
def _plan(row_types: tuple[str, ...], columns: tuple[int, ...]) -> tuple[Ints, Ints]:
    """Return the columns, and the first of each type of rows and how many, shape (2, types)."""
    of = [CHANNEL_AT[m].rows for m in columns]
    first = [of.index(row_type) if row_type in of else 0 for row_type in row_types]
    return np.array(columns), np.array([first, [of.count(row_type) for row_type in row_types]])


@njit(cache=True)
def fade_rows(rows: Any, scalars: Any, channels: Any) -> Any:
    """Return what each item's row is multiplied with in some channels, shape (R, C)."""
    out = np.empty((len(rows), len(channels)), np.float32)
    for r in range(len(rows)):
        since = min(FADING.shape[1] - 1, max(0, int(scalars[EVENTS]) - rows[r].last_event))
        for c in range(len(channels)):
            left, count = FADING[channels[c], since], _COUNTS[channels[c]]
            if count >= 0:
                left *= rows[r].counts[count]
            out[r, c] = left if left > _NOTHING else np.float32(0)
    return out


def logarithm(sums: Floats) -> Floats:
    """Return φ of a channel that takes the logarithm of r."""
    out: Floats = np.log(np.maximum(sums, 0) / np.float32(EPSILON) + np.float32(1))
    return out


def _popularity(histories: Histories, until_ms: int, items: int) -> Floats:
    counts = [
        item_rows.recent_popularity(histories, items, until_ms=until_ms, half_life_days=days)
        for days in HALF_LIVES_DAYS
    ]
    logs = np.log(np.stack(counts) + np.float32(0.5))
    out: Floats = logs - logs.mean(axis=1, keepdims=True)
    return out


@njit
def _most(tables: Any, spans: Any, rows: Any) -> tuple[int, int]:
    """Return how many entries the rows of a history's items have in all, and at most."""
    total, most = 0, 0
    for t in range(len(tables)):
        if spans[1, t] > 0:
            for r in range(len(rows)):
                size = tables[t].indptr[rows[r].item] - tables[t].indptr[rows[r].item - 1]
                total, most = total + size, max(most, size)
    return total, most


@njit(cache=True)
def _gather(index: Any, tables: Any, spans: Any, channels: Any, rows: Any, scalars: Any) -> Any:
    """Do what `Channels.gather` does; columns ``first : first + count`` are of each table."""
    weight, (total, most) = fade_rows(rows, scalars, channels), _most(tables, spans, rows)
    size, count = min(total + len(rows), len(index)), len(rows)
    found, sums = np.empty(size, np.int64), np.zeros((len(channels), size), np.float32)
    at = np.empty(most, np.int32)
    for r in range(len(rows)):
        index[rows[r].item - 1], found[r] = r, rows[r].item - 1
    for t in range(len(tables)):
        for r in range(len(rows) if spans[1, t] > 0 else 0):
            begin, end = tables[t].indptr[rows[r].item - 1], tables[t].indptr[rows[r].item]
            item, value = tables[t].item[begin:end], tables[t].value[begin:end]
            for k in range(len(item)):
                # Without a branch, which would be guessed wrong at every other entry.
                new = index[item[k]] < 0
                at[k] = count if new else index[item[k]]
                index[item[k]], found[at[k]] = at[k], item[k]
                count += new
            for c in range(spans[0, t], spans[0, t] + spans[1, t]):
                left, row = weight[r, c], sums[c]
                for k in range(len(item) if left > 0 else 0):
                    row[at[k]] += left * value[k]
    for n in range(count):
        index[found[n]] = -1
    return found[:count], sums[:, :count]
