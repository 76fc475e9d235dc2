"""Implicit ALS (Hu, Koren and Volinsky, ICDM 2008): factors of items, users folded in."""

from collections.abc import Iterable
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.evaluation.baselines import EvaluationWindow
from training.lab.comparison.histories import Fade, fade_histories
from training.lab.comparison.linear import interactions
from training.lab.comparison.peer import Peer, Setting
from training.lab.comparison.shop import Shop

DIM = 64


class Ials(Peer):
    """Fold the faded history in at each request."""

    name = "ials"

    def settings(self) -> Iterable[Setting]:
        pairs = ((5.0, 10.0), (2.0, 10.0), (10.0, 10.0), (5.0, 50.0), (5.0, 2.0))
        for (alpha, ridge), gamma in product(pairs, (1.0, 0.95, 0.9, 0.98)):
            yield {"dim": DIM, "alpha": alpha, "ridge": ridge, "per_event": gamma}

    def fit(self, setting: Setting) -> None:
        self._confidence = {"alpha": setting["alpha"], "ridge": setting["ridge"]}
        self._fade = Fade(setting["per_event"])
        self._factors = self.once(_factors, self.shop, *self._confidence.values())

    def score(self, wanted: EvaluationWindow) -> Tensor:
        past = fade_histories(self.shop, wanted, self._fade)
        return solve(past, self._factors, **self._confidence) @ self._factors.T


def _factors(shop: Shop, alpha: float, ridge: float) -> Tensor:
    return als(interactions(shop), dim=DIM, alpha=alpha, ridge=ridge)


def als(x: Any, *, dim: int, alpha: float, ridge: float, rounds: int = 12, seed: int = 0) -> Tensor:
    """Return item factors of weighted matrix factorisation, shape (N, dim).

    Minimises ``Σ c_ui (p_ui − u·v)² + λ(|u|² + |v|²)`` with ``c = 1 + α x``, ``p = [x > 0]``.
    """
    generator = torch.Generator().manual_seed(seed)
    items = 0.01 * torch.randn(x.shape[1], dim, generator=generator)
    columns = x.T.tocsr()
    for _ in range(rounds):
        users = solve(x, items, alpha=alpha, ridge=ridge)
        items = solve(columns, users, alpha=alpha, ridge=ridge)
    return items


def solve(x: Any, other: Tensor, *, alpha: float, ridge: float) -> Tensor:
    """Return the factors of the rows of x, given those of its columns; shape (rows, dim)."""
    dim = other.shape[1]
    whole = other.T @ other + ridge * torch.eye(dim)
    out = torch.zeros(x.shape[0], dim)
    for row in range(x.shape[0]):
        part = slice(x.indptr[row], x.indptr[row + 1])
        vectors = other[torch.from_numpy(x.indices[part].astype(np.int64))]
        value = alpha * torch.from_numpy(x.data[part])
        left = whole + (vectors * value[:, None]).T @ vectors
        out[row] = torch.linalg.solve(left, (vectors * (1 + value)[:, None]).sum(dim=0))
    return out
