"""Item-item rows: what having one item says about every other, fitted in closed form.

For users u and items i let ``X[u, i] = 1`` where u had i. Four ways to rows B (N, N), of which
row i is added to the scores of who has i:

- `ease`: ``B = I − P / diag(P)``, ``P = (XᵀX + λI)⁻¹`` (Steck, "Embarrassingly Shallow
  Autoencoders for Sparse Data", WWW 2019), zero diagonal.
- `neighbour_ridge`: the same ridge regression of each item on its M nearest items by cosine
  alone, in the spirit of Ning and Karypis, "SLIM", ICDM 2011; linear in N.
- `cosine`: item neighbours with shrinkage.
- `transitions`: ``B[i, j] = Σ 1/d`` over the times j came d ≤ 10 events after i (i itself, too,
  where it is bought again), each row divided by its sum plus 5.

Belongs here: fitting rows, and counting items. Not here: what a user has (`state.item_table`), how
rows enter a score (`channels`).
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from numba import njit

from training.history.sequences import Histories
from training.history.vocabulary import DAY_MS, FULL_ITEMS

Floats = npt.NDArray[np.float32]
DISTANCE: Final = 10
MAX_TOGETHER: Final = 50_000_000
"""Most entries of XᵀX that rows of more than `FULL_ITEMS` items are made from."""
FEW_NEIGHBOURS: Final = 50
"""M for so many items: a regression on 150 takes ten times as long."""
_ROW_SHRINK: Final = 5.0


def interactions(histories: Histories, wanted: npt.NDArray[np.bool_], items: int) -> Any:
    """Return X, users × items, 1 where a wanted (shape (E,)), positive event has the item."""
    sizes = np.diff(histories.lines)
    owner = np.repeat(np.repeat(np.arange(len(histories.users)), histories.lengths()), sizes)
    used = np.repeat(wanted & (histories.weight > 0), sizes) & (histories.item > 0)
    shape = (len(histories.users), items)
    found = sp.csr_matrix(
        (np.ones(int(used.sum()), np.float32), (owner[used], histories.item[used] - 1)), shape
    )
    found.sum_duplicates()
    found.data[:] = 1.0
    return found


def recent_popularity(
    histories: Histories, items: int, *, until_ms: int, half_life_days: float
) -> Floats:
    """Return decayed counts of target lines before ``until_ms``, shape (N,)."""
    before = histories.target & (histories.time_ms < until_ms)
    age = (until_ms - histories.time_ms) / DAY_MS
    weight = np.where(before, 0.5 ** (np.maximum(age, 0.0) / half_life_days), 0.0)
    per_line = np.repeat(weight, np.diff(histories.lines))
    return np.bincount(histories.item, per_line, minlength=items + 1)[1:].astype(np.float32)


def ease(x: Any, ridge: float) -> Floats:
    """Return EASE's rows, dense; λ = ``ridge``."""
    gram = np.asarray((x.T @ x).todense(), np.float64)
    gram[np.diag_indices_from(gram)] += ridge
    inverse = np.linalg.inv(gram)
    rows = -inverse / np.diag(inverse)[None, :]
    rows[np.diag_indices_from(rows)] = 0.0
    return rows.astype(np.float32)


def cosine(x: Any, shrink: float) -> Any:
    """Return ``Xᵢ·Xⱼ / (|Xᵢ||Xⱼ| + shrink)``, sparse, zero diagonal."""
    both = (x.T @ x).tocoo()
    norm = np.sqrt(np.asarray(x.sum(axis=0)).ravel())
    value = both.data / (norm[both.row] * norm[both.col] + shrink)
    off = both.row != both.col
    shape = both.shape
    return sp.csr_matrix((value[off].astype(np.float32), (both.row[off], both.col[off])), shape)


def neighbour_ridge(x: Any, ridge: float, *, neighbours: int = 150) -> Any:
    """Return ridge regressions of each item on its nearest items, sparse.

    Column j of B holds ``(G_SS + λI)⁻¹ G_Sj`` on the S nearest items of j by cosine.
    """
    if x.shape[1] > FULL_ITEMS:
        x, neighbours = fewer(x, MAX_TOGETHER), FEW_NEIGHBOURS
    gram = (x.T @ x).tocsr().astype(np.float64)
    gram.sort_indices()
    near = top(cosine(x, 10.0).T.tocsr(), neighbours)
    value = np.zeros(len(near.indices), np.float32)
    _solve(gram.indptr, gram.indices, gram.data, near.indptr, near.indices, ridge, value)
    # Row j of `near` holds what column j of B needs.
    return sp.csr_matrix((value, near.indices, near.indptr), gram.shape).T.tocsr()


@njit
def _fill(
    row: Any, first: int, last: int, indices: Any, data: Any, chosen: Any, column: Any
) -> None:
    """Put one row's entries at the chosen columns in place."""
    if last - first < 16 * len(chosen):
        for k in range(first, last):
            if column[indices[k]] >= 0:
                row[column[indices[k]]] = data[k]
        return
    for b in range(len(chosen)):  # a popular item's row is long: look the few up
        k = first + np.searchsorted(indices[first:last], chosen[b])
        if k < last and indices[k] == chosen[b]:
            row[b] = data[k]


@njit(cache=True, nogil=True)
def _solve(
    indptr: Any, indices: Any, data: Any, near_indptr: Any, near_indices: Any, ridge: float,
    value: Any,
) -> None:  # fmt: skip
    """Solve one small ridge regression for each item; G is symmetric, by rows."""
    column = np.full(len(indptr) - 1, -1, np.int64)
    for j in range(len(near_indptr) - 1):
        begin, end = near_indptr[j], near_indptr[j + 1]
        if begin == end:
            continue
        chosen = near_indices[begin:end]
        for a in range(len(chosen)):
            column[chosen[a]] = a
        block, right = np.zeros((len(chosen), len(chosen))), np.zeros(len(chosen))
        for a in range(len(chosen)):
            _fill(block[a], indptr[chosen[a]], indptr[chosen[a] + 1], indices, data, chosen, column)
            block[a, a] += ridge
        for k in range(indptr[j], indptr[j + 1]):
            if column[indices[k]] >= 0:
                right[column[indices[k]]] = data[k]
        value[begin:end] = np.linalg.solve(block, right).astype(np.float32)
        for a in range(len(chosen)):
            column[chosen[a]] = -1


def fewer(x: Any, most: int) -> Any:
    """Return X with fewer items of who has most, so that few items are had together.

    Who has n items makes n² entries of XᵀX. Where those are more than ``most`` in all, nobody
    keeps more than a common bound of items: those that fewest others have, for they say most.

    Examples
    --------
    >>> x = sp.csr_matrix(np.array([[1, 1, 1, 1], [1, 0, 1, 0]], np.float32))
    >>> fewer(x, 13).toarray().astype(int).tolist(), fewer(x, 20) is x
    ([[1, 1, 0, 1], [1, 0, 1, 0]], True)
    """
    sizes = np.diff(x.indptr).astype(np.int64)
    if int((sizes**2).sum()) <= most:
        return x
    low, high = 1, int(sizes.max())
    while low < high:
        middle = (low + high + 1) // 2
        within = int((np.minimum(sizes, middle) ** 2).sum()) <= most
        low, high = (middle, high) if within else (low, middle - 1)
    popularity = np.asarray(x.sum(axis=0)).ravel()
    kept = np.ones(len(x.data), np.bool_)
    for row in np.flatnonzero(sizes > low):
        part = slice(x.indptr[row], x.indptr[row + 1])
        kept[part] = False
        order = np.argsort(popularity[x.indices[part]], kind="stable")
        kept[part][order[:low]] = True
    indptr = np.concatenate([[0], np.cumsum(np.minimum(sizes, low))])
    return sp.csr_matrix((x.data[kept], x.indices[kept], indptr), x.shape)


def transitions(
    histories: Histories, wanted: npt.NDArray[np.bool_], items: int, *, distance: int = DISTANCE
) -> Any:
    """Return directed rows, sparse: what came after, weighted by 1/distance in events."""
    sizes = np.diff(histories.lines)
    event = np.repeat(np.arange(len(sizes)), sizes)
    owner = np.repeat(np.arange(len(histories.users)), histories.lengths())
    position = np.cumsum(wanted & (histories.weight > 0))
    used = np.repeat(wanted & (histories.weight > 0), sizes) & (histories.item > 0)
    event, item = event[used], histories.item[used] - 1
    user, position = owner[event], position[event]
    number = np.unique(event, return_inverse=True)[1]
    before = sp.csr_matrix(
        (np.ones(len(item), np.float32), (number, item)), (int(number.max(initial=-1)) + 1, items)
    )
    first = np.unique(number, return_index=True)[1]
    user, position = user[first], position[first]
    total = sp.csr_matrix((items, items), dtype=np.float32)
    for d in range(1, min(distance, len(first) - 1) + 1):
        same = (user[d:] == user[:-d]).astype(np.float32) / (position[d:] - position[:-d])
        total = total + before[:-d].T @ sp.diags(same) @ before[d:]
    scale = 1.0 / (np.asarray(total.sum(axis=1)).ravel() + _ROW_SHRINK)
    return (sp.diags(scale.astype(np.float32)) @ total).tocsr()


def top(rows: Any, keep: int) -> Any:
    """Return each row's ``keep`` entries of largest size, sparse with sorted columns."""
    rows = sp.csr_matrix(rows)
    kept = np.ones(len(rows.data), np.bool_)
    for row in np.flatnonzero(np.diff(rows.indptr) > keep):
        part = slice(rows.indptr[row], rows.indptr[row + 1])
        kept[part] = False
        kept[part][np.argpartition(-np.abs(rows.data[part]), keep)[:keep]] = True
    sizes = np.minimum(np.diff(rows.indptr), keep)
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    value, column = rows.data[kept].astype(np.float32), rows.indices[kept]
    out = sp.csr_matrix((value, column, indptr), rows.shape)
    out.sort_indices()
    return out
