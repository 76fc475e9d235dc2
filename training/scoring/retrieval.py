"""Scores of very many items without a row of N numbers a request: an inner product, corrected.

With the vectors V and biases b of `training.network.network` and the popularity channels ρ of
`training.neighbours.channels`, what a request q gives item j is::

    s_qj = x_q·V_j + e_q·[b_j, ρ_j] + c_qj

c, what the pair head and the rows of what is held add, is 0 but for few items. Without memories x
is u and e is [1, 0, 0]; with them both are weighed (`network.stacking`). So ranks are counted block
by block of items (`ranks`), and the best found by passing over what cannot be among them (`best`):
an item's score is at most ``|x||V_j| + e·[b_j, ρ_j]``, e ≥ 0. Both are exact.

Shape legend: P requests, N items, D width, R corrections, L target lines.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from training.neighbours.channels import CHANNELS, HALF_LIVES_DAYS, Channels, Touched
from training.network.batches import Targets
from training.network.network import PortraitNetwork
from training.network.repeat_head import Pairs
from training.network.stacking import Stacking

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
EXTRAS: Final = 1 + len(HALF_LIVES_DAYS)
COUNTED: Final = 8192
"""Items whose scores are looked at together when ranks are counted."""
BLOCK: Final = 1024
"""Items that are passed over together in a search."""
_ROUNDING: Final = 1e-4  # of bounds, relative


@dataclass(frozen=True)
class ItemArrays:
    """V and [b, ρ] of all items, shapes (N, D) and (N, 3)."""

    vectors: Tensor
    extras: Tensor

    @classmethod
    def of(cls, network: PortraitNetwork, memory: Channels | None = None) -> "ItemArrays":
        """Return a network's items, with a memory's popularity."""
        biases = network.biases.detach()
        extras = biases.new_zeros(len(biases), EXTRAS)
        extras[:, 0] = biases
        if memory is not None:
            extras[:, 1:] = torch.from_numpy(memory.popularity.T).to(biases.device)
        if network.config.recipe == "stacked":
            return cls(biases.new_zeros(len(biases), network.encoder.dim), extras)
        return cls(network.item_vectors().detach(), extras)


@dataclass(frozen=True)
class Queries:
    """Requests: x (P, D), e (P, 3), and c by request and item (from 0), one entry each, sorted.

    ``key`` is request · N + item, shape (R,).
    """

    x: Tensor
    e: Tensor
    key: Tensor
    amount: Tensor

    @classmethod
    def of(
        cls,
        network: PortraitNetwork,
        u_PD: Tensor,
        pairs: Pairs | None,
        log_events_P: Tensor,
        touched: Touched | None = None,
        mixing: Stacking | None = None,
    ) -> "Queries":
        """Return what a network asks; with memories where both of the last two are given."""
        items = network.items
        x, e = u_PD.float(), u_PD.new_zeros(len(u_PD), EXTRAS, dtype=torch.float32)
        e[:, 0] = 1.0
        weight = None
        if network.config.recipe == "stacked":
            x = torch.zeros_like(x)
        elif mixing is not None and touched is not None:
            weight = mixing.at(log_events_P.float())
            x = weight[:, :1] * x
            e = torch.cat([weight[:, :1], weight[:, 1 + len(CHANNELS) :]], dim=1)
        keys, amounts = [x.new_zeros(0, dtype=torch.int64)], [x.new_zeros(0)]
        if network.pair is not None and pairs is not None and len(pairs.owner):
            bonus = network.pair(u_PD, pairs).float()
            keys.append(pairs.owner * items + pairs.item - 1)
            amounts.append(bonus if weight is None else bonus * weight[pairs.owner, 0])
        if weight is not None and touched is not None:
            channels = weight[touched.owner, 1 : 1 + len(CHANNELS)]
            keys.append(touched.owner * items + touched.item)
            amounts.append((channels * touched.value).sum(dim=1))
        key, place = torch.unique(torch.cat(keys), return_inverse=True)
        amount = x.new_zeros(len(key)).index_add_(0, place, torch.cat(amounts))
        return cls(x, e, key, amount)


def scores(items: ItemArrays, queries: Queries) -> Tensor:
    """Return every item's score, shape (P, N): for few requests, or few items."""
    out = torch.addmm(queries.e @ items.extras.T, queries.x, items.vectors.T)
    out.view(-1)[queries.key] += queries.amount
    return out


def ranks(items: ItemArrays, queries: Queries, targets: Targets) -> Tensor:
    """Return each target's place from 1 among all items, shape (L,); see `evaluation.metrics`."""
    with torch.autocast(items.vectors.device.type, enabled=False):
        return _ranks(items, queries, targets)


def _ranks(items: ItemArrays, queries: Queries, targets: Targets) -> Tensor:
    count = len(items.vectors)
    owner, item = queries.key // count, queries.key % count
    lines = targets.owner * count + targets.item
    near = torch.searchsorted(queries.key, lines).clamp(max=max(0, len(queries.key) - 1))
    own = (queries.x[targets.owner] * items.vectors[targets.item]).sum(dim=1)
    own += (queries.e[targets.owner] * items.extras[targets.item]).sum(dim=1)
    if len(queries.key):
        own += torch.where(queries.key[near] == lines, queries.amount[near], 0.0)
    by_item = torch.argsort(item)
    owner, item, amount = owner[by_item], item[by_item], queries.amount[by_item]
    begins = torch.arange(0, count, COUNTED, device=item.device)
    bounds = torch.searchsorted(item, torch.cat([begins, begins.new_tensor([count])])).tolist()
    before = np.zeros(len(lines), np.int64)
    who, which = targets.owner.cpu().numpy(), targets.item.cpu().numpy()
    least = own.cpu().numpy()
    for begin, low, high in zip(begins.tolist(), bounds[:-1], bounds[1:], strict=True):
        part = slice(begin, begin + COUNTED)
        scores = torch.addmm(queries.e @ items.extras[part].T, queries.x, items.vectors[part].T)
        place = (owner[low:high], item[low:high] - begin)
        scores.index_put_(place, amount[low:high], accumulate=True)
        _count(scores.cpu().numpy(), begin, who, which, least, before)
    return torch.from_numpy(before + 1).double()


@njit(cache=True, nogil=True)
def _count(scores: Any, begin: int, owner: Any, item: Any, own: Any, before: Any) -> None:
    """Count the items of a block that stand before each target: of equals, the earlier."""
    width = scores.shape[1]
    for line in range(len(owner)):
        row, least = scores[owner[line]], own[line]
        middle = min(max(item[line] - begin, 0), width)
        found = 0
        for at in range(middle):
            found += row[at] >= least
        after = middle + 1 if item[line] >= begin else 0
        for at in range(after, width):
            found += row[at] > least
        before[line] += found


class Search:
    """Finds the best items of one request.

    Parameters
    ----------
    items
        On the CPU; not changed afterwards.
    """

    def __init__(self, items: ItemArrays) -> None:
        self._items = items
        self._vectors = np.ascontiguousarray(items.vectors.numpy())
        self._extras = np.ascontiguousarray(items.extras.numpy())
        self._norms = np.linalg.norm(self._vectors, axis=1)
        begins = np.arange(0, len(self._norms), BLOCK)
        self._most = np.maximum.reduceat(self._norms, begins) if len(begins) else self._norms
        self._most_extras = (
            np.maximum.reduceat(self._extras, begins, axis=0) if len(begins) else self._extras
        )

    def scores(self, queries: Queries) -> Floats:
        """Return every item's score at the one request, shape (N,)."""
        out: Floats = scores(self._items, queries)[0].numpy()
        return out

    def at(self, queries: Queries, rows: Ints) -> Floats:
        """Return the scores of some items at the one request, shape (len(rows),)."""
        out: Floats = self._vectors[rows] @ queries.x[0].numpy()
        out += self._extras[rows] @ queries.e[0].numpy()
        if len(queries.key):
            key, amount = queries.key.numpy(), queries.amount.numpy()
            near = np.searchsorted(key, rows).clip(max=len(key) - 1)
            out += np.where(key[near] == rows, amount[near], 0.0).astype(np.float32)
        return out

    def best(
        self, queries: Queries, k: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Ints, Floats, int]:
        """Return the ``k`` best items at the one request, best first; fewer if fewer are allowed.

        Parameters
        ----------
        allowed
            Which items may be found, shape (N,); None: all.

        Returns
        -------
        tuple
            Items from 0, their scores, and how many items had their score computed.
        """
        x, e = queries.x[0].numpy(), queries.e[0].numpy()
        corrected = queries.key.numpy()
        score = self._vectors[corrected] @ x + self._extras[corrected] @ e + queries.amount.numpy()
        if allowed is not None:
            score[~allowed[corrected]] = -np.inf
        chosen = np.argsort(-score, kind="stable")[:k]
        item = np.full(k, -1, np.int64)
        top = np.full(k, -np.inf, np.float32)
        item[: len(chosen)], top[: len(chosen)] = corrected[chosen], score[chosen]
        passed = np.zeros(len(self._norms), np.bool_) if allowed is None else ~allowed
        passed[corrected] = True
        bounds = np.linalg.norm(x) * self._most + self._most_extras @ e
        bounds += _ROUNDING * np.abs(bounds)
        order = np.argsort(-bounds)
        looked = _search(
            self._vectors, self._extras, self._norms, x, e, float(np.linalg.norm(x)), passed,
            order, bounds, item, top,
        )  # fmt: skip
        found = np.flatnonzero(np.isfinite(top))
        found = found[np.lexsort((item[found], -top[found]))]
        return item[found], top[found], int(looked) + len(corrected)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _search(
    vectors: Any, extras: Any, norms: Any, x: Any, e: Any, length: float, passed: Any, order: Any,
    bounds: Any, item: Any, top: Any,
) -> int:  # fmt: skip
    """Put better items in place of the worst of ``top``; return how many scores were computed."""
    looked, worst = 0, int(np.argmin(top))
    for block in order:
        if bounds[block] < top[worst]:
            break
        for j in range(block * BLOCK, min(len(norms), (block + 1) * BLOCK)):
            if passed[j]:
                continue
            score = np.float32(0.0)
            for n in range(len(e)):
                score += extras[j, n] * e[n]
            bound = score + length * norms[j]
            if bound + _ROUNDING * abs(bound) < top[worst]:
                continue
            looked += 1
            row = vectors[j]
            product = np.float32(0.0)
            for n in range(len(x)):
                product += row[n] * x[n]
            score += product
            if score > top[worst]:
                top[worst], item[worst] = score, j
                worst = int(np.argmin(top))
    return looked
