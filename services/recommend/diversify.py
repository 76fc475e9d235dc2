"""Diversity of a list: the best of the allowed items, within caps, unlike each other.

Greedy by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): with strength d,
relevance r scaled to 0–1 over the pool and likeness s, the next item is the one of greatest
``(1 − d) · r − d · max s(chosen)``. Without demands the best n stay exactly as they are.
Belongs here: choosing among rows. Not here: which may be chosen (`rules`), exploration (`explore`).
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.catalogue.vectors import NONE
from services.recommend.assortment import Items, Rows
from services.recommend.caps import Caps
from services.recommend.rules import Rules

Floats = npt.NDArray[np.floating[Any]]
POOL: Final = 200
"""Fewest items that diversity chooses among; five times the list's length, if that is more."""
_BLOCK: Final = 64


def best(scores: Floats, n: int) -> Rows:
    """Return the rows of the ``n`` greatest finite scores, best first, equals by row."""
    found = np.flatnonzero(scores >= _bound(scores, n))
    found = found[np.isfinite(scores[found])]
    if len(found) > n > 0:  # sorting is quick among equals, which partition is not
        found = found[scores[found] >= np.sort(scores[found])[len(found) - n]]
    out: Rows = found[np.argsort(-scores[found], kind="stable")[: max(n, 0)]]
    return out


def _bound(scores: Floats, n: int) -> float:
    """Return what the ``n`` greatest are not below: the n-th of the greatest of each block."""
    blocks = scores[: len(scores) // _BLOCK * _BLOCK].reshape(-1, _BLOCK).max(axis=1)
    return float(np.sort(blocks)[-n]) if 0 < n <= len(blocks) else -np.inf


def diversify(
    items: Items,
    scores: Floats,
    n: int,
    rules: Rules,
    vectors: Floats | None,
    new: Rows,
) -> Rows:
    """Return the rows of the list, best first.

    Parameters
    ----------
    scores
        −∞ where a row may not be chosen, shape (M,).
    vectors
        Embeddings of the vocabulary, shape (V, D); None: items are alike by their own vectors,
        and without those by category and brand.
    new
        Rows that `Rules.new_items` counts.
    """
    capped = rules.cap.brand is not None or rules.cap.category is not None
    if not capped and rules.diversity == 0:
        chosen = best(scores, n)
    else:
        size = max(POOL, 5 * n)
        chosen = _greedy(items, scores, n, rules, vectors, size)
        if capped and len(chosen) < n and np.isfinite(scores).sum() > size:
            chosen = _greedy(items, scores, n, rules, vectors, len(scores))
    return _with_new(scores, chosen, rules.new_items, new)


def _greedy(
    items: Items,
    scores: Floats,
    n: int,
    rules: Rules,
    vectors: Floats | None,
    size: int,
) -> Rows:
    pool = best(scores, size)
    likest, caps = np.full(len(pool), -1.0), Caps(items, pool, rules.cap)
    relevance = scores[pool].astype(np.float64)
    span = relevance[0] - relevance[-1] if len(pool) else 0.0
    relevance = (relevance - relevance[-1:]) / span if span > 0 else np.ones(len(pool))
    chosen, strength = list[int](), rules.diversity
    alike = _likeness(items, pool, vectors) if strength > 0 else None
    while len(chosen) < n and caps.open.any():
        value = relevance if not chosen else (1 - strength) * relevance - strength * likest
        at = int(np.argmax(np.where(caps.open, value, -np.inf)))
        chosen.append(at)
        caps.take(at)
        if alike is not None:
            likest = np.maximum(likest, alike(at))
    out: Rows = pool[chosen] if chosen else pool[:0]
    return out


def _likeness(items: Items, pool: Rows, vectors: Floats | None) -> Callable[[int], Floats]:
    """Return what says how alike the pool's items are to one of it, −1 to 1."""
    shelf, brand = items.category[pool], items.brand[pool]
    known = pool < items.known
    index = np.cumsum(known) - 1
    some = None if vectors is None else vectors[pool[known]].astype(np.float64)
    if some is not None:
        some /= np.linalg.norm(some, axis=1, keepdims=True) + 1e-9
    rows = items.vectors.rows(items.names(pool))
    told, own = rows != NONE, items.vectors.gather(rows)

    def alike(at: int) -> Floats:
        out: Floats = np.zeros(len(pool))
        if shelf[at] > 0:
            out += 0.5 * (shelf == shelf[at])
        if brand[at] > 0:
            out += 0.5 * (brand == brand[at])
        if told[at]:
            out[told] = own[told] @ own[at]
        if some is not None and known[at]:
            out[known] = some @ some[index[at]]
        return out

    return alike


def _with_new(scores: Floats, chosen: Rows, wanted: int, new: Rows) -> Rows:
    """Put new items in the last places until ``wanted`` are in the list."""
    if not wanted or not len(new):
        return chosen
    fresh = set(new.tolist())
    there = [row for row in chosen.tolist() if row in fresh]
    ranked = sorted((r for r in fresh - set(there) if np.isfinite(scores[r])),
                    key=lambda row: (-scores[row], row))  # fmt: skip
    added = ranked[: max(0, min(wanted, len(chosen)) - len(there))]
    if not added:
        return chosen
    others = [row for row in chosen.tolist() if row not in fresh]
    dropped = set(others[len(others) - len(added) :])
    kept = [row for row in chosen.tolist() if row not in dropped]
    return np.array([*kept, *added], np.int64)
