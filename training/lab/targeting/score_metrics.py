"""Score metrics for finding the few: AUC, average precision and lift, with intervals by user.

Each measure takes weights of rows, one line a bootstrap round, so that a thousand rounds cost
a few sorted sums. Of equal scores every order counts alike in the AUC; in average precision and
lift they stand in the rows' order. Not here: Qini (`training.evaluation.uplift_metrics`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from training.evaluation.predict import auc

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NAMES: Final = ("auc", "ap", "lift@10%")
ROUNDS: Final = 1000


def weighted_auc(label: Doubles, score: Doubles, weight_RN: Doubles) -> Doubles:
    """Return the area under the ROC curve for each line of weights, shape (R,).

    NaN where one label has no weight.

    Examples
    --------
    >>> weighted_auc(np.array([0, 1.0, 1]), np.array([1, 2.0, 0]), np.ones((1, 3)))
    array([0.5])
    """
    order = np.argsort(score, kind="stable")
    label, weight_RN = label[order], weight_RN[:, order]
    first = np.flatnonzero(np.append(True, np.diff(score[order]) != 0))
    won = np.add.reduceat(weight_RN * (label > 0), first, axis=1)
    lost = np.add.reduceat(weight_RN * (label <= 0), first, axis=1)
    below = np.cumsum(lost, axis=1) - lost / 2
    pairs = won.sum(axis=1) * lost.sum(axis=1)
    return _ratio((won * below).sum(axis=1), pairs)


def weighted_ap(label: Doubles, score: Doubles, weight_RN: Doubles) -> Doubles:
    """Return the average precision (mean precision at each positive), shape (R,).

    Examples
    --------
    >>> weighted_ap(np.array([1, 0, 1.0]), np.array([3, 2, 1.0]), np.ones((1, 3))).round(4)
    array([0.8333])
    """
    order = np.argsort(-score, kind="stable")
    weight_RN = weight_RN[:, order]
    hit = weight_RN * (label[order] > 0)
    precision = np.cumsum(hit, axis=1) / np.maximum(np.cumsum(weight_RN, axis=1), 1e-12)
    return _ratio((precision * hit).sum(axis=1), hit.sum(axis=1))


def weighted_lift(
    label: Doubles, score: Doubles, weight_RN: Doubles, *, share: float = 0.1
) -> Doubles:
    """Return the rate of positives among the ``share`` of highest scores over that of all.

    Examples
    --------
    >>> label = np.array([1.0] + [0] * 8 + [1])
    >>> weighted_lift(label, -np.arange(10.0), np.ones((1, 10)))
    array([5.])
    """
    order = np.argsort(-score, kind="stable")
    weight_RN = weight_RN[:, order]
    total = weight_RN.sum(axis=1, keepdims=True)
    before = np.cumsum(weight_RN, axis=1) - weight_RN
    within = np.clip(share * total - before, 0.0, weight_RN)
    positive = label[order] > 0
    rate = (within * positive).sum(axis=1) / np.maximum(within.sum(axis=1), 1e-12)
    return _ratio(rate, (weight_RN * positive).sum(axis=1) / np.maximum(total[:, 0], 1e-12))


def _ratio(above: Doubles, below: Doubles) -> Doubles:
    out = np.full(len(above), np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


_MEASURES: Final = {"auc": weighted_auc, "ap": weighted_ap, "lift@10%": weighted_lift}


@dataclass(frozen=True)
class Judged:
    """Scores of one model, or of several, judged on the same rows.

    Attributes
    ----------
    label, user, group
        As in `training.lab.targeting.block_model.Rows`. Measures are taken within each group, and
        averaged by the groups' positives.
    """

    label: Doubles
    user: Ints
    group: Ints

    def measures(self, score: Doubles, *, rounds: int = ROUNDS) -> dict[str, Doubles]:
        """Return each measure as it is, and in every bootstrap round, shape (1 + rounds,).

        Whole users are drawn; rounds are the same for every score, so that they may be paired.
        """
        _, row = np.unique(self.user, return_inverse=True)
        users = int(row.max()) + 1
        drawn = np.random.default_rng(0).multinomial(users, np.full(users, 1 / users), rounds)
        counts = np.vstack([np.ones(users), drawn]).astype(np.float64)
        sums = {name: np.zeros(1 + rounds) for name in NAMES}
        total = np.zeros(1 + rounds)
        for each in np.unique(self.group):
            there = self.group == each
            label, weight = self.label[there], counts[:, row[there]]
            positives = weight @ (label > 0)
            usable = (positives > 0) & (positives < weight.sum(axis=1))
            total += np.where(usable, positives, 0.0)
            for name, measure in _MEASURES.items():
                found = measure(label, score[there], weight)
                sums[name] += np.where(usable, positives * np.nan_to_num(found), 0.0)
        return {name: _ratio(values, total) for name, values in sums.items()}


def summary(found: Mapping[str, Doubles]) -> dict[str, Any]:
    """Return means and 95 % intervals: ``{"auc": …, "ci": {"auc": [low, high]}}``."""
    return {
        **{name: float(values[0]) for name, values in found.items()},
        "ci": {name: interval(values) for name, values in found.items()},
    }


def interval(values: Doubles) -> list[float]:
    """Return the 95 % interval of the bootstrap rounds, which follow the value itself."""
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return [float(low), float(high)]


def over(
    found: Mapping[str, Mapping[str, Doubles]], own: str, peers: Sequence[str], metric: str
) -> dict[str, Any]:
    """Return ``own`` less the best of the peers by a metric, paired."""
    best = max(peers, key=lambda name: float(found[name][metric][0]))
    mine, other = found[own][metric], found[best][metric]
    return {
        "peer": best,
        "ratio": float(mine[0] / other[0]),
        "difference": float(mine[0] - other[0]),
        "ci": interval(mine - other),
    }


def grouped_auc(label: Doubles, score: Doubles, group: Ints) -> float:
    """Return the mean AUC within groups, weighted by their positives; groups of one label out."""
    values, weights = [], []
    for each in np.unique(group):
        there = group == each
        positive = int((label[there] > 0).sum())
        if 0 < positive < there.sum():
            values.append(auc(label[there], score[there]))
            weights.append(positive)
    return float(np.average(values, weights=weights)) if values else 0.5
