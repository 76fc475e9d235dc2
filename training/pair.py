"""The pair head: how much an item that a shopper already had is worth now.

For a held item i and profile vector u, with 14 features f of the repeat table::

    pair_i = MLP([f; V_i; P·u]) + a·f + (M·u)·f + r_i

Features are made here, alike for training and serving; the table is `training.repeat`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.repeat import EVENTS, LAST_MS, Rows, forward
from training.vocabulary import DAY_MS

FEATURES = (
    "log_count", "decayed_95", "decayed_80", "decayed_97", "root_share", "log_events_since",
    "log_days_since", "log_personal_gap", "twice", "log_days_to_gap", "log_days_to_median",
    "log_days_30", "log_days_120", "in_last",
)  # fmt: skip
_PRIOR_GAPS = 2.0
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
    owner, row = rows.owner, rows.rows
    events = rows.scalars[owner, EVENTS]
    now = np.maximum(now_ms, rows.scalars[:, LAST_MS])[owner]
    since = (events - row["last_event"]).astype(np.int64)
    elapsed = np.maximum(now - row["last_s"] * 1000.0, 0.0)
    count = forward(row["counts"], since, elapsed)
    days = (elapsed / DAY_MS).astype(np.float32)
    # The first touch is known by its day only.
    span = np.maximum(row["last_s"] / 86_400 - row["first_day"] - 0.5, 0.0).astype(np.float32)
    span *= row["again"]
    times = np.maximum(count[:, 0] - 1.0, 0.0)
    gap = span / np.maximum(times, 1.0)
    median = median_gap_days[row["item"] - 1]
    shrunk = (gap * times + median * _PRIOR_GAPS) / (times + _PRIOR_GAPS)
    features = np.stack(
        [
            np.log1p(count[:, 0]),
            np.log1p(count[:, 1]),
            np.log1p(count[:, 2]),
            np.log1p(count[:, 3]),
            np.sqrt(count[:, 0] / np.maximum(events, 1.0)),
            np.log1p(since),
            np.log1p(days),
            np.log1p(gap),
            row["again"].astype(np.float32),
            np.log((days + 0.5) / (shrunk + 0.5)),
            np.log((days + 0.5) / (median + 0.5)),
            np.log1p(count[:, 4]),
            np.log1p(count[:, 5]),
            (since == 0).astype(np.float32),
        ],
        axis=1,
    ).astype(np.float32)
    return Pairs(
        torch.from_numpy(owner),
        torch.from_numpy(row["item"].astype(np.int64)),
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
