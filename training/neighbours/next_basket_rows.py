"""Item-item rows fitted to the next basket: what a decayed count of each item says of it.

A ridge regression over all requests t with something before them::

    B = (Σ_t h_t h_tᵀ + λI)⁻¹ Σ_t h_t y_tᵀ,   h_t = γ h_{t−1} + w_{t−1} x_{t−1}

x is the multi-hot of an event, w its weight in counts, y the target basket. Unlike EASE (of
`item_rows`) it is directed, knows how often and how lately an item was had, and has a diagonal:
what is bought again. It is the ridge model that is a peer where baskets repeat
(`training.lab.comparison.linear`), over each γ apart. Belongs here: fitting these rows, dense.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

from training.history.sequences import Histories

Floats = npt.NDArray[np.float32]
_LEAST: Final = 0.01
"""A decayed count below this is forgotten."""


def fit(
    histories: Histories,
    wanted: npt.NDArray[np.bool_],
    items: int,
    per_event: float,
    ridge: float,
) -> Floats:
    """Return B, shape (N, N): row i is added to the scores of who holds i.

    Parameters
    ----------
    wanted
        Which events count, shape (E,); of each user the first ones.
    per_event, ridge
        γ and λ.
    """
    gram, right = np.zeros((items, items)), np.zeros((items, items))
    _sums(
        histories.starts, histories.lines, histories.item, histories.weight.astype(np.float64),
        histories.target, wanted, per_event, gram, right,
    )  # fmt: skip
    gram += np.tril(gram, -1).T
    gram[np.diag_indices(items)] += ridge
    rows: Floats = np.linalg.solve(gram, right).astype(np.float32)
    return rows


@njit
def _ask(h: Any, active: Any, basket: Any, gram: Any, right: Any) -> None:
    """Add one request: h hᵀ, its lower triangle, and h yᵀ."""
    for i in active:
        for j in active:
            if j <= i:
                gram[i, j] += h[i] * h[j]
        for item in basket:
            if item > 0:
                right[i, item - 1] += h[i]


@njit
def _fade(h: Any, active: Any, count: int, per_event: float) -> int:
    """Fade the history by one event; return how many items are left in ``active``."""
    left = 0
    for a in range(count):
        i = active[a]
        h[i] *= per_event
        if h[i] < _LEAST:
            h[i] = 0.0
        else:
            active[left] = i
            left += 1
    return left


@njit(cache=True, nogil=True)
def _sums(
    starts: Any, lines: Any, item: Any, weight: Any, target: Any, wanted: Any, per_event: float,
    gram: Any, right: Any,
) -> None:  # fmt: skip
    """Add up every user's requests."""
    h, active = np.zeros(len(gram)), np.empty(len(gram), np.int64)
    for user in range(len(starts) - 1):
        h[:] = 0.0
        count = 0
        for e in range(starts[user], starts[user + 1]):
            if not wanted[e]:
                break
            basket = item[lines[e] : lines[e + 1]]
            if target[e]:
                _ask(h, active[:count], basket, gram, right)
            if weight[e] <= 0:
                continue
            count = _fade(h, active, count, per_event)
            for row in basket:
                if row > 0:
                    if h[row - 1] == 0.0:
                        active[count] = row - 1
                        count += 1
                    h[row - 1] += weight[e]
