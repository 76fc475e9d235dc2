"""TIFU-KNN (Hu et al., SIGIR 2020): personal item frequency in time, and like-minded users.

A basket counts ``r_b^(its place from the end of its group)``, a group ``r_g^(groups since)``,
both averaged; the score is ``α · own + (1 − α) · mean of the k nearest users``, by Euclid.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import scipy.sparse as sp

from training.evaluation.baselines import EvaluationWindow
from training.lab.comparison.histories import counts, training_ends, weighted
from training.lab.comparison.peer import Trial, dense, unseeded
from training.lab.comparison.protocol import Score
from training.lab.comparison.shop import Shop

_GROUPS = ((7, 0.9, 0.7), (7, 1.0, 0.8), (3, 0.9, 0.7), (11, 0.9, 0.6), (7, 0.9, 0.9))


def tifu_knn(shop: Shop) -> Iterator[Trial]:
    """Neighbours are users as they were at the end of the training period."""
    known = training_ends(shop)
    for size, within, between in _GROUPS:
        table = vectors(shop, known, size, within, between)
        for neighbours, share in product((300, 100, 900), (0.7, 0.9, 0.5)):
            setting = {
                "group": size, "within": within, "between": between, "neighbours": neighbours,
                "own_share": share,
            }  # fmt: skip
            yield (
                setting,
                unseeded(_blended, shop, known, table, (size, within, between), neighbours, share),
            )


def vectors(shop: Shop, wanted: EvaluationWindow, size: int, within: float, between: float) -> Any:
    """Return user vectors before the requests, shape (P, N), sparse."""
    groups = np.maximum(1, -(-counts(shop, wanted) // size))
    return weighted(
        shop,
        wanted,
        lambda request, since, days: (
            within ** (since % size) * between ** (since // size) / size / groups[request]
        ),
    )


def _blended(
    shop: Shop,
    known: EvaluationWindow,
    table: Any,
    group: tuple[int, float, float],
    k: int,
    share: float,
) -> Score:
    square = np.asarray(table.multiply(table).sum(axis=1)).ravel()
    k = min(k, table.shape[0] - 1)

    def score(wanted: EvaluationWindow) -> Any:
        own = vectors(shop, wanted, *group)
        # The own length is the same for all neighbours.
        distance = square[None, :] - 2 * (own @ table.T).toarray()
        distance[wanted.user[:, None] == known.user[None, :]] = np.inf
        near = np.argpartition(distance, k - 1, axis=1)[:, :k]
        row = np.repeat(np.arange(len(near)), k)
        mean = sp.csr_matrix((np.full(near.size, 1 / k, np.float32), (row, near.ravel())),
                             (len(near), table.shape[0])) @ table  # fmt: skip
        return share * dense(own) + (1 - share) * dense(mean)

    return score
