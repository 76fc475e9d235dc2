"""One user's request to a model: the score of every item, of some, or the best, of any catalogue.

With the vectors V and biases b of the network and the popularity ρ of `training.neighbours`::

    s_j = e₀ (u·V_j + b_j) + e·ρ_j + c_j

c, what the repeat head and the rows of the history's items add, is 0 but for few items. The best
are found by passing over what cannot be among them: an item's score is at most ``e₀ |u||V_j| +
e·[b_j, ρ_j]`` and c_j, e ≥ 0; blocks of items and items are left out by that bound. Exact, as are
the scores. Of a mixture (`training.network.mixture`) every item has a score of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from numba import njit

from training.network.mixture import COUNT_EXPERTS, Served
from training.network.reranker import RankedMoment, Reranker
from training.scoring.retrieval import ItemArrays
from training.state.candidate_facts import FACTS

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
BLOCK: Final = 1024
"""Items that are passed over together in a search."""
_ROUNDING: Final = 1e-4  # of bounds, relative


class ScoredIndex:
    """A model's items, laid out to be asked for; on the CPU and not changed afterwards."""

    def __init__(self, items: ItemArrays) -> None:
        self.items = items
        self.vectors = np.ascontiguousarray(items.vectors.numpy())
        self.extras = np.ascontiguousarray(items.extras.numpy())
        self.biases, self.popularity = items.extras[:, 0].contiguous(), self.extras.T[1:].copy()
        self.norms = np.linalg.norm(self.vectors, axis=1)
        begins = np.arange(0, len(self.norms), BLOCK)
        self.most = np.maximum.reduceat(self.norms, begins)
        self.most_extras = np.maximum.reduceat(self.extras, begins, axis=0)

    def logits(self, u: Floats) -> Floats:
        """Return ``u·V + b``; by torch, which keeps to the number of threads that it is told."""
        out: Floats = torch.addmv(self.biases, self.items.vectors, torch.from_numpy(u)).numpy()
        return out


@dataclass(frozen=True)
class ScoreQuery:
    """What one user asks.

    Attributes
    ----------
    u, e
        Profile vector, shape (D,); weights of the logits and of each popularity, shape (3,).
    item
        Items (from 0) with a correction, each once, the history's first. Shape (T,).
    bonus
        What the repeat head gives the history's, before any weight, shape (R,), R ≤ T.
    gain
        What the rows of the history's items add, shape (T,).
    mixture
        Where the answer is one.
    live
        What live popularity adds to every item, shape (N,); None: nothing.
    reranker, moment
        Trees that order the best anew, and what they are asked about; None: none do.
    """

    index: ScoredIndex
    u: Floats
    e: Floats
    item: Ints
    bonus: Floats
    gain: Floats
    mixture: Served | None = None
    live: Floats | None = None
    reranker: Reranker | None = None
    moment: RankedMoment | None = None

    def scores(self) -> Floats:
        """Return every item's score, shape (N,)."""
        out, base = self._before_trees()
        if self.reranker is not None and self.moment is not None:
            return self.reranker.rerank(out, base, self.moment)
        return out

    def explain(self, rows: Sequence[int]) -> list[list[tuple[str, float, float]]]:
        """Return the facts by which trees moved some items: name, value, amount, largest first.

        An empty list for an item off the shortlist, and where there are no trees.
        """
        if self.reranker is None or self.moment is None:
            return [[] for _ in rows]
        item, facts = self.reranker.facts(*self._before_trees(), self.moment)
        rank = {row: k for k, row in enumerate(item.tolist())}
        amounts = self.reranker.explain(facts)
        out = list[list[tuple[str, float, float]]]()
        for k in [rank.get(row) for row in rows]:
            told = (
                []
                if k is None
                else zip(FACTS, facts[k].tolist(), amounts[k, :-1].tolist(), strict=True)
            )
            out.append(sorted(told, key=lambda each: -abs(each[2])))
        return out

    def at(self, rows: Ints) -> Floats:
        """Return the scores of some items (from 0), in their order."""
        if not self._sparse:
            found: Floats = self.scores()[rows]
            return found
        index, order = self.index, np.argsort(self.item)
        out: Floats = index.vectors[rows] @ (self.e[0] * self.u) + index.extras[rows] @ self.e
        if len(order):
            near = order[np.searchsorted(self.item, rows, sorter=order).clip(max=len(order) - 1)]
            out += np.where(self.item[near] == rows, self._amount()[near], np.float32(0))
        return out

    def best(self, k: int, allowed: npt.NDArray[np.bool_] | None = None) -> tuple[Ints, Floats]:
        """Return the ``k`` best items from 0, best first, and their scores.

        Parameters
        ----------
        k
            At least 1; fewer are returned if fewer are allowed.
        allowed
            Which items may be given, shape (N,); None: all.
        """
        if not self._sparse:
            values = self.scores()
            order = np.argsort(-values, kind="stable")
            order = order[:k] if allowed is None else order[allowed[order]][:k]
            return order, values[order]
        item, top, _ = self.search(k, allowed)
        return item, top

    def search(self, k: int, allowed: npt.NDArray[np.bool_] | None) -> tuple[Ints, Floats, int]:
        """Do what `best` does of few corrections; return also how many scores were computed."""
        index, x = self.index, self.e[0] * self.u
        k, length = min(k, len(index.norms)), float(np.linalg.norm(x))
        item, top = np.full(k, -1, np.int64), np.full(k, -np.inf, np.float32)
        passed = np.zeros(len(index.norms), np.bool_) if allowed is None else ~allowed
        bounds = length * index.most + index.most_extras @ self.e
        bounds += _ROUNDING * np.abs(bounds)
        looked = _search(
            index.vectors, index.extras, index.norms, x, self.e, length, passed,
            np.argsort(-bounds), bounds, self.item, self._amount(), item, top,
        )  # fmt: skip
        found = np.flatnonzero(np.isfinite(top))
        found = found[np.lexsort((item[found], -top[found]))]
        return item[found], top[found], int(looked)

    def parts(self, rows: Sequence[int]) -> Doubles:
        """Return what each expert adds to the probability of some items, shape (K, len(rows)).

        See `training.network.mixture`. Where the answer is no mixture, the first has it all.
        """
        out = np.zeros((COUNT_EXPERTS, len(rows)))
        if self.mixture is None:
            out[0] = 1.0
            return out
        whole = np.zeros(len(self.index.norms))
        for k, where, part in self.mixture.parts(*self._weigh()):
            whole[:] = 0.0
            whole[where] = part
            out[k] = whole[rows]
        return out

    @property
    def _sparse(self) -> bool:
        """Whether only the items of ``item`` have more than the network's and the popularity's."""
        return self.mixture is None and self.live is None and self.reranker is None

    def _before_trees(self) -> tuple[Floats, Floats]:
        """Return every item's score without the reranker, and the network's own logit."""
        added, base = self._weigh()
        out = added if self.mixture is None else self.mixture.scores(added, base)
        return (out if self.live is None else out + self.live), base

    def _weigh(self) -> tuple[Floats, Floats]:
        """Return every item's weighed score, and the network's own logit."""
        base = self.index.logits(self.u)
        base[self.item[: len(self.bonus)]] += self.bonus
        out: Floats = self.e[0] * base
        if self.e[1:].any():
            out += self.e[1:] @ self.index.popularity
        out[self.item] += self.gain
        return out, base

    def _amount(self) -> Floats:
        """Return c of the items with a correction, shape (T,)."""
        amount = self.gain.copy()
        amount[: len(self.bonus)] += self.e[0] * self.bonus
        return amount


@njit
def _replace_worst(item: Any, top: Any, worst: int, j: int, score: float) -> int:
    """Put an item in place of the worst of ``top`` if it is better; return which is the worst."""
    if score < top[worst] or (score == top[worst] and j >= item[worst]):
        return worst
    top[worst], item[worst] = score, j
    for n in range(len(top)):
        if top[n] < top[worst] or (top[n] == top[worst] and item[n] > item[worst]):
            worst = n
    return worst


@njit(fastmath={"reassoc", "contract", "nsz"})
def _plus(start: float, row: Any, x: Any) -> Any:
    """Return ``start + row·x``."""
    total = np.float32(0)
    for n in range(len(x)):
        total += row[n] * x[n]
    return start + total


@njit(cache=True, nogil=True)
def _search(
    vectors: Any, extras: Any, norms: Any, x: Any, e: Any, length: float, passed: Any, order: Any,
    bounds: Any, corrected: Any, amount: Any, item: Any, top: Any,
) -> int:  # fmt: skip
    """Fill ``top`` with the best scores and ``item``, of equals the earlier; count the scores."""
    worst, looked = 0, len(corrected)
    for c in range(len(corrected)):
        j = corrected[c]
        if not passed[j]:
            score = _plus(_plus(amount[c], extras[j], e), vectors[j], x)
            worst = _replace_worst(item, top, worst, j, score)
        passed[j] = True
    for block in order:
        if bounds[block] < top[worst]:
            break
        for j in range(block * BLOCK, min(len(norms), (block + 1) * BLOCK)):
            if passed[j]:
                continue
            score = _plus(np.float32(0), extras[j], e)
            bound = score + length * norms[j]
            if bound + _ROUNDING * abs(bound) >= top[worst]:
                looked += 1
                worst = _replace_worst(item, top, worst, j, _plus(score, vectors[j], x))
    return looked
