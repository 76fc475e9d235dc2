"""Ranking metrics over full rankings, and their uncertainty by user.

Relevance is binary. Per basket: NDCG@10 with IDCG over min(|b|, 10), recall@10 = hits / |b|,
HR@10 = any hit, MRR = 1 / rank of the first hit in the whole ranking.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.network.batches import Targets
from training.network.losses import ideal_gain

NAMES = ("ndcg@10", "recall@10", "hr@10", "mrr")
DEPTH = 10
_LINES = 256
Doubles = npt.NDArray[np.float64]


def ranking_metrics(scores_PN: Tensor, targets: Targets) -> Doubles:
    """Return `NAMES` per request, shape (P, 4); NaN where the basket is empty.

    Of equal scores the item with the lower row, the more frequent one, comes first.
    """
    return metrics_of(_ranks(scores_PN.float(), targets), targets)


def metrics_of(rank: Tensor, targets: Targets) -> Doubles:
    """Return `NAMES` per request from the rank (from 1) of each target, shape (L,)."""
    sizes = targets.sizes
    hit = (rank <= DEPTH).double()
    zeros = torch.zeros(len(sizes), dtype=torch.float64)
    gain = zeros.index_add(0, targets.owner, hit / torch.log2(rank + 1.0))
    hits = zeros.index_add(0, targets.owner, hit)
    first = torch.full((len(sizes),), torch.inf, dtype=torch.float64)
    first = first.scatter_reduce(0, targets.owner, rank, "amin")
    out = torch.stack(
        [
            gain / ideal_gain(sizes.clamp(min=1)).double(),
            hits / sizes.clamp(min=1),
            (hits > 0).double(),
            1.0 / first,
        ],
        dim=1,
    )
    out[sizes == 0] = torch.nan
    return out.numpy()


def _ranks(scores: Tensor, targets: Targets) -> Tensor:
    """Return each target's rank; lines go in chunks that stay in the cache."""
    out = torch.empty(len(targets.owner), dtype=torch.float64)
    row = torch.arange(scores.shape[1])
    for begin in range(0, len(out), _LINES):
        part = slice(begin, begin + _LINES)
        item = targets.item[part]
        rows = scores[targets.owner[part]]
        own = rows.gather(1, item[:, None])
        before = (rows > own) | ((rows == own) & (row < item[:, None]))
        out[part] = before.sum(dim=1).double() + 1.0
    return out


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def bootstrap(values: Doubles, users: npt.NDArray[np.int64]) -> Interval:
    """Return the mean of ``values`` with an interval from resampling whole users.

    Parameters
    ----------
    values
        One per request, shape (P,).
    users
        Whose request it is, small integers, shape (P,).
    """
    count = int(users.max(initial=-1)) + 1
    sums = np.bincount(users, values, minlength=count)
    sizes = np.bincount(users, minlength=count).astype(np.float64)
    present = sizes > 0
    sums, sizes = sums[present], sizes[present]
    if not len(sums):
        return Interval(float("nan"), float("nan"), float("nan"))
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=1000)
    means = (drawn @ sums) / np.maximum(drawn @ sizes, 1.0)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(sums.sum() / sizes.sum()), float(low), float(high))


def summary(per_request: Doubles, users: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return means and intervals by metric name: ``{"ndcg@10": …, "ci": {"ndcg@10": [l, h]}}``."""
    out: dict[str, Any] = {}
    limits: dict[str, list[float]] = {}
    for column, name in enumerate(NAMES):
        interval = bootstrap(per_request[:, column], users)
        out[name] = interval.mean
        limits[name] = [interval.low, interval.high]
    out["ci"] = limits
    return out


def difference(
    one: Doubles, other: Doubles, users: npt.NDArray[np.int64]
) -> Mapping[str, Mapping[str, Any]]:
    """Return the paired difference ``one − other`` per metric with its interval."""
    result: dict[str, dict[str, Any]] = {}
    for column, name in enumerate(NAMES):
        interval = bootstrap(one[:, column] - other[:, column], users)
        result[name] = {"mean": interval.mean, "ci": [interval.low, interval.high]}
    return result
