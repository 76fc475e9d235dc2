"""The pair head: how much an item that a user already had is worth now.

For an item i in the history and profile vector u, with 14 features f of the repeat table::

    pair_i = MLP([f; V_i; P·u]) + a·f + (M·u)·f + r_i

Features (`training.state.pair_features`) are made alike for training and serving; the table is
`training.state.item_table`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor, nn

from training.network.one_user import Dense, Floats, affine, array, dense, gelu
from training.state.item_table import Rows
from training.state.pair_features import FEATURES, fill, write_one

_SMALL = 8


@dataclass(frozen=True)
class Pairs:
    """Items in a batch's histories: whose (shape (R,)), which (from 1), and features (R, 14)."""

    owner: Tensor
    item: Tensor
    features: Tensor


def make_pairs(
    rows: Rows, now_ms: npt.NDArray[np.float64], median_gap_days: npt.NDArray[np.float32]
) -> Pairs:
    """Return the features of every item in the history as of ``now_ms`` (one per table).

    Parameters
    ----------
    rows
        Snapshot of the tables.
    now_ms
        Time of the request per table; the last event's own time when it is not known.
    median_gap_days
        Of the vocabulary, shape (N,).
    """
    features = np.empty((len(rows.owner), len(FEATURES)), np.float32)
    fill(features, rows.owner, rows.rows, rows.scalars, now_ms, median_gap_days)
    return Pairs(
        torch.from_numpy(rows.owner),
        torch.from_numpy(rows.rows["item"].astype(np.int64)),
        torch.from_numpy(features),
    )


class PairHead(nn.Module):
    """Scores of the history's items; see the module's docstring."""

    def __init__(self, items: int, dim: int) -> None:
        super().__init__()
        width = len(FEATURES)
        self.item = nn.Embedding(items + 1, _SMALL)
        self.user = nn.Linear(dim, _SMALL)
        self.first = nn.Linear(width + 2 * _SMALL, 32)
        self.second = nn.Linear(32, 1)
        self.linear = nn.Linear(width, 1)
        self.mix = nn.Linear(dim, width, bias=False)
        self.repurchase = nn.Embedding(items + 1, 1)
        nn.init.normal_(self.item.weight, std=0.1)
        nn.init.zeros_(self.repurchase.weight)
        nn.init.zeros_(self.mix.weight)

    def forward(self, u_PD: Tensor, pairs: Pairs) -> Tensor:
        """Return one score per pair, shape (R,)."""
        features = pairs.features
        small = self.user(u_PD)[pairs.owner]
        both = torch.cat([features, self.item(pairs.item), small], dim=1)
        deep = self.second(nn.functional.gelu(self.first(both)))[:, 0]
        mixed = (self.mix(u_PD)[pairs.owner] * features).sum(dim=1)
        linear = self.linear(features)[:, 0] + self.repurchase(pairs.item)[:, 0]
        out: Tensor = deep + mixed + linear
        return out

    def serving(self, median_gap_days: Floats) -> "PairWeights":
        """Return what `pairs_of_one` reads."""
        return PairWeights(
            dense(self.user), dense(self.first), dense(self.second), dense(self.linear),
            dense(self.mix), array(self.item.weight), array(self.repurchase.weight),
            median_gap_days,
        )  # fmt: skip


class PairWeights(NamedTuple):
    """Weights of `PairHead`, and the median gaps of items in days."""

    user: Dense
    first: Dense
    second: Dense
    linear: Dense
    mix: Dense
    item: Floats
    repurchase: Floats
    median_gap_days: Floats


@njit(cache=True)
def pairs_of_one(w: Any, u: Any, rows: Any, scalars: Any, now_ms: float) -> Any:
    """Return what `PairHead` gives of the rows that one user holds, shape (R,)."""
    width, small = len(w.linear.weight), w.item.shape[1]
    slope = w.linear.weight[:, 0] + affine(w.mix, u)
    both, out = np.empty(width + 2 * small, np.float32), np.empty(len(rows), np.float32)
    both[width + small :] = affine(w.user, u)
    for r in range(len(rows)):
        f, item = both[:width], rows[r].item
        write_one(f, rows[r], scalars, now_ms, w.median_gap_days)
        both[width : width + small] = w.item[item]
        hidden = affine(w.first, both)
        value = w.second.bias[0] + w.linear.bias[0] + w.repurchase[item, 0]
        for n in range(len(hidden)):
            value += w.second.weight[n, 0] * gelu(hidden[n])
        for n in range(width):
            value += slope[n] * f[n]
        out[r] = value
    return out
