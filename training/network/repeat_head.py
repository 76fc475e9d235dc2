"""The pair head: how much an item that a user already had is worth now.

For a held item i and profile vector u, with 14 features f of the repeat table::

    pair_i = MLP([f; V_i; P·u]) + a·f + (M·u)·f + r_i

Features (`training.state.pair_features`) are made alike for training and serving; the table is
`training.state.item_table`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.state.item_table import Rows
from training.state.pair_features import FEATURES, fill

_SMALL = 8


@dataclass(frozen=True)
class Pairs:
    """Held items of a batch: whose (shape (R,)), which (from 1), and features (R, 14)."""

    owner: Tensor
    item: Tensor
    features: Tensor


def make_pairs(
    rows: Rows, now_ms: npt.NDArray[np.float64], median_gap_days: npt.NDArray[np.float32]
) -> Pairs:
    """Return the features of every held item as of ``now_ms`` (one per table).

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
    """Scores of held items; see the module's docstring."""

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
