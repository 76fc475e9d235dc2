"""Implicit ALS (Hu, Koren and Volinsky, ICDM 2008): factors of items, users folded in."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.lab.comparison.histories import Fade, faded
from training.lab.comparison.peer import Trial, unseeded
from training.lab.comparison.protocol import Score
from training.lab.comparison.shop import Shop
from training.neighbours import item_rows

DIM = 64


def ials(shop: Shop) -> Iterator[Trial]:
    """Fold the faded history in at each request."""
    x = item_rows.interactions(shop.histories, shop.trained, shop.items)
    for alpha, ridge in ((5.0, 10.0), (2.0, 10.0), (10.0, 10.0), (5.0, 50.0), (5.0, 2.0)):
        factors = als(x, dim=DIM, alpha=alpha, ridge=ridge)
        for gamma in (1.0, 0.95, 0.9, 0.98):
            setting = {"dim": DIM, "alpha": alpha, "ridge": ridge, "per_event": gamma}
            yield setting, unseeded(_folded, shop, factors, alpha, ridge, Fade(per_event=gamma))


def _folded(shop: Shop, factors: Tensor, alpha: float, ridge: float, fade: Fade) -> Score:
    return lambda wanted: (
        solve(faded(shop, wanted, fade), factors, alpha=alpha, ridge=ridge) @ factors.T
    )


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
