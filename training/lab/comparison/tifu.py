"""TIFU-KNN (Hu et al., SIGIR 2020): personal item frequency in time, and like-minded users.

A basket counts ``r_b^(its place from the end of its group)``, a group ``r_g^(groups since)``,
both averaged; the score is ``α · own + (1 − α) · mean of the k nearest users``, by Euclid.
"""

from collections.abc import Iterable
from itertools import product
from typing import Any

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from training.evaluation.baselines import EvaluationWindow
from training.lab.comparison.histories import counts, training_ends, weight_histories
from training.lab.comparison.peer import Peer, Setting, dense
from training.lab.comparison.shop import Shop

_GROUPS = ((7, 0.9, 0.7), (7, 1.0, 0.8), (3, 0.9, 0.7), (11, 0.9, 0.6), (7, 0.9, 0.9))


class TifuKnn(Peer):
    """Neighbours are users as they were at the end of the training period."""

    name = "tifu_knn"
    repeats = True

    def settings(self) -> Iterable[Setting]:
        for group, neighbours, share in product(_GROUPS, (300, 100, 900), (0.7, 0.9, 0.5)):
            yield {
                **dict(zip(("group", "within", "between"), group, strict=True)),
                "neighbours": neighbours, "own_share": share,
            }  # fmt: skip

    def fit(self, setting: Setting) -> None:
        *self._group, self._most, self._share = setting.values()
        self._known = self.once(training_ends, self.shop)
        self._table = self.once(vectors, self.shop, self._known, *self._group)

    def score(self, wanted: EvaluationWindow) -> Tensor:
        table, k = self._table, min(self._most, self._table.shape[0] - 1)
        own = vectors(self.shop, wanted, *self._group)
        square = np.asarray(table.multiply(table).sum(axis=1)).ravel()
        # The own length is the same for all neighbours.
        distance = square[None, :] - 2 * (own @ table.T).toarray()
        distance[wanted.user[:, None] == self._known.user[None, :]] = np.inf
        near = np.argpartition(distance, k - 1, axis=1)[:, :k]
        row = np.repeat(np.arange(len(near)), k)
        mean = sp.csr_matrix((np.full(near.size, 1 / k, np.float32), (row, near.ravel())),
                             (len(near), table.shape[0])) @ table  # fmt: skip
        out: Tensor = self._share * dense(own) + (1 - self._share) * dense(mean)
        return out


def vectors(shop: Shop, wanted: EvaluationWindow, size: int, within: float, between: float) -> Any:
    """Return user vectors before the requests, shape (P, N), sparse."""
    groups = np.maximum(1, -(-counts(shop, wanted) // size))
    return weight_histories(
        shop,
        wanted,
        lambda request, since, days: (
            within ** (since % size) * between ** (since // size) / size / groups[request]
        ),
    )
