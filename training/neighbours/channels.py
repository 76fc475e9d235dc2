"""Memories: what the items a user holds say about every other, beside the network's answer.

For a request with held items i, ``s_i`` positive events since each was last touched, and rows B
(`training.neighbours.item_rows`), a channel m gives::

    r_m[j] = Σ_i γ_m^{s_i} · B_m[i, j]
    φ_m    = r_m, or log(r_m / ε + 1)

What is held, and since when, is the repeat table (`state.item_table`): a memory adds nothing to
a user's state, and is bounded as the table is. Two channels more are the same for everybody:
the logarithm of popularity, recent and most recent. Five more count how often i was had, too, with
the table's decayed count in place of γ^s: what is held itself, and rows fitted to the next
basket. They are evidence of their own only (`training.network.mixture`). How much each counts is
`training.network.stacking`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from training.history.sequences import Histories, ranges
from training.history.vocabulary import DENSE_ITEMS
from training.neighbours import item_rows, next_basket_rows
from training.state.item_table import EVENTS, Rows

Floats = npt.NDArray[np.float32]
KEPT: Final = 200
"""Entries kept of each row."""
RIDGE: Final = 10.0
"""λ of the ridge regressions, in mean numbers of users an item: 500 on MovieLens-100K."""
EPSILON: Final = 1e-3


@dataclass(frozen=True)
class Channel:
    """One memory: which rows, how it fades, and whether its logarithm counts.

    ``count`` is the place in `state.item_table.COUNTS` of what a held item's row is multiplied
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
KINDS: Final = ("together", "after", "next_95", "next_80")
"""Rows that are fitted; ``own`` is each item for itself."""
PLACES: Final = {
    **dict(enumerate(CHANNELS)),
    **{COUNT + n: channel for n, channel in enumerate(EVIDENCE)},
}
"""Channels with rows by their place in a reading."""
READ: Final = COUNT + len(EVIDENCE)
NEXT_RIDGE: Final = 1000.0
FADING: Final = np.zeros((READ, 2048), np.float32)
"""γ_m^s by place and s."""
for _place, _channel in PLACES.items():
    FADING[_place] = np.power(_channel.per_event, np.arange(2048))


@dataclass(frozen=True, slots=True)
class ChannelTable:
    """Sparse rows: entries of item i at ``indptr[i] : indptr[i + 1]``."""

    indptr: npt.NDArray[np.int64]
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
class Touched:
    """What the rows of what is held say, where they say anything.

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
        Rows by kind, see `KINDS`.
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
        for kind, per_event in (("next_95", 0.95), ("next_80", 0.8)):
            tables[kind] = (
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
        for kind, table in self.tables.items():
            out[f"{kind}_indptr"] = table.indptr
            out[f"{kind}_item"] = table.item
            out[f"{kind}_value"] = table.value.astype(np.float16)
        return out

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "Channels":
        """Read what `arrays` gave."""
        tables = {
            kind: ChannelTable(
                arrays[f"{kind}_indptr"],
                arrays[f"{kind}_item"],
                arrays[f"{kind}_value"].astype(np.float32),
            )
            for kind in KINDS
        }
        return cls(tables, arrays["popularity"])

    @cached_property
    def rows(self) -> Mapping[str, ChannelTable]:
        """All rows by kind, ``own`` among them."""
        return {**self.tables, "own": ChannelTable.own(self.popularity.shape[1])}

    def read(self, held: Rows) -> Floats:
        """Return φ of each channel at P requests, shape (P, READ, N).

        Parameters
        ----------
        held
            Snapshot of P repeat tables.
        """
        out = np.zeros((len(held.scalars), READ, self.popularity.shape[1]), np.float32)
        weight = faded(held)
        for kind, table in self.rows.items():
            places = np.array([m for m, c in PLACES.items() if c.rows == kind], np.int64)
            _add(
                out, held.owner, held.rows["item"], weight, places,
                table.indptr, table.item, table.value,
            )  # fmt: skip
        for m, channel in PLACES.items():
            if channel.log:
                out[:, m] = np.log(np.maximum(out[:, m], 0.0) / EPSILON + 1.0)
        out[:, len(CHANNELS) : COUNT] = self.popularity
        return out

    def touched(self, held: Rows) -> Touched:
        """Return φ of the channels with rows where it is not 0: `read` for very many items."""
        items, weight = self.popularity.shape[1], faded(held)
        row = held.rows["item"].astype(np.int64) - 1
        keys, found = dict[str, Any](), dict[str, Any]()
        for kind in dict.fromkeys(channel.rows for channel in CHANNELS):
            table = self.tables[kind]
            sizes = table.indptr[row + 1] - table.indptr[row]
            line = ranges(table.indptr[row], sizes)
            found[kind] = line, np.repeat(np.arange(len(row)), sizes)
            keys[kind] = held.owner[found[kind][1]] * items + table.item[line]
        key = np.unique(np.concatenate(list(keys.values())))
        value = np.zeros((len(key), len(CHANNELS)), np.float32)
        for kind, (line, which) in found.items():
            place = np.searchsorted(key, keys[kind])
            for m, channel in enumerate(CHANNELS):
                if channel.rows == kind:
                    part = weight[m, which] * self.tables[kind].value[line]
                    value[:, m] = np.bincount(place, part, minlength=len(key))
        for m, channel in enumerate(CHANNELS):
            if channel.log:
                value[:, m] = np.log(np.maximum(value[:, m], 0.0) / EPSILON + 1.0)
        return Touched(
            torch.from_numpy(key // items), torch.from_numpy(key % items), torch.from_numpy(value)
        )


def faded(held: Rows) -> Floats:
    """Return what each held item's row is multiplied with, shape (READ, R)."""
    since = held.scalars[held.owner, EVENTS].astype(np.int64) - held.rows["last_event"]
    out: Floats = FADING[:, np.clip(since, 0, FADING.shape[1] - 1)]
    counts = held.rows["counts"]
    for m, channel in PLACES.items():
        if channel.count is not None:
            out[m] *= counts[:, channel.count]
    return out


def _popularity(histories: Histories, until_ms: int, items: int) -> Floats:
    counts = [
        item_rows.recent_popularity(histories, items, until_ms=until_ms, half_life_days=days)
        for days in HALF_LIVES_DAYS
    ]
    logs = np.log(np.stack(counts) + np.float32(0.5))
    out: Floats = logs - logs.mean(axis=1, keepdims=True)
    return out


@njit(cache=True, nogil=True)
def _add(
    out: Any, owner: Any, item: Any, weight: Any, channels: Any, indptr: Any, column: Any,
    value: Any,
) -> None:  # fmt: skip
    """Add each held item's row, weighted, to its owner's channels."""
    for r in range(len(owner)):
        begin, end = indptr[item[r] - 1], indptr[item[r]]
        for m in channels:
            row, w = out[owner[r], m], weight[m, r]
            if w > 1e-7:
                for k in range(begin, end):
                    row[column[k]] += w * value[k]
