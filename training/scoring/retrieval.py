"""Scores of very many items without a row of N numbers a request: an inner product, corrected.

With the vectors V and biases b of `training.network.network` and the popularity channels ρ of
`training.neighbours.channels`, what a request q gives item j is::

    s_qj = x_q·V_j + e_q·[b_j, ρ_j] + c_qj

c, what the pair head and the rows of the history's items add, is 0 but for few items. Without
memories x is u and e is [1, 0, 0]; with them both are weighed (`training.network.stacking`). So
ranks are counted block by block of items (`ranks`), which is exact. One user's request in service
is `training.scoring.query`'s.

Shape legend: P requests, N items, D width, R corrections, L target lines.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from training.neighbours.channels import CHANNELS, HALF_LIVES_DAYS, Channels, SparseReading
from training.network.batches import Targets
from training.network.network import PortraitNetwork
from training.network.repeat_head import Pairs
from training.network.stacking import Stacking

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
EXTRAS: Final = 1 + len(HALF_LIVES_DAYS)
COUNTED: Final = 8192
"""Items whose scores are looked at together when ranks are counted."""


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
        sparse: SparseReading | None = None,
        mixing: Stacking | None = None,
    ) -> "Queries":
        """Return what a network asks; with memories where both of the last two are given."""
        items = network.items
        x, e = u_PD.float(), u_PD.new_zeros(len(u_PD), EXTRAS, dtype=torch.float32)
        e[:, 0] = 1.0
        weight = None
        if network.config.recipe == "stacked":
            x = torch.zeros_like(x)
        elif mixing is not None and sparse is not None:
            weight = mixing.at(log_events_P.float())
            x = weight[:, :1] * x
            e = torch.cat([weight[:, :1], weight[:, 1 + len(CHANNELS) :]], dim=1)
        keys, amounts = [x.new_zeros(0, dtype=torch.int64)], [x.new_zeros(0)]
        if network.pair is not None and pairs is not None and len(pairs.owner):
            bonus = network.pair(u_PD, pairs).float()
            keys.append(pairs.owner * items + pairs.item - 1)
            amounts.append(bonus if weight is None else bonus * weight[pairs.owner, 0])
        if weight is not None and sparse is not None:
            channels = weight[sparse.owner, 1 : 1 + len(CHANNELS)]
            keys.append(sparse.owner * items + sparse.item)
            amounts.append((channels * sparse.value).sum(dim=1))
        key, index = torch.unique(torch.cat(keys), return_inverse=True)
        amount = x.new_zeros(len(key)).index_add_(0, index, torch.cat(amounts))
        return cls(x, e, key, amount)


def scores(items: ItemArrays, queries: Queries) -> Tensor:
    """Return every item's score, shape (P, N): for few requests, or few items."""
    out = torch.addmm(queries.e @ items.extras.T, queries.x, items.vectors.T)
    out.view(-1)[queries.key] += queries.amount
    return out


def ranks(items: ItemArrays, queries: Queries, targets: Targets) -> Tensor:
    """Return each target's rank among all items, shape (L,); see `evaluation.metrics`."""
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
        cell = (owner[low:high], item[low:high] - begin)
        scores.index_put_(cell, amount[low:high], accumulate=True)
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
