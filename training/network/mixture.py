"""A mixture: the network's answer, and each channel's answer by itself, as probabilities added up.

Every expert k spreads one probability over the items, and the answer is the probability of each::

    p[j] = Σ_k π_k · q_k[j],     score = log p

q_0 is the softmax of the weighed scores of `network.stacking`, q_1 that of the network's logits
alone; the others are `neighbours.channels`'s channels that count evidence, ``max(r_m, 0)`` divided
by its sum over all items, and the softmax of each popularity. A sum of scores lets one side veto
what another is sure of; a sum of probabilities does not, so an item with few events keeps what its
neighbours say.

The shares π are those of greatest likelihood on the validation period, found by expectation
maximisation (Dempster, Laird and Rubin, 1977): the problem is convex and has no setting. An expert
without evidence at a request gives nothing to it, which changes no order. Where users take nothing
twice (fewer than `REPEATS_FROM` of the target lines), no expert gives the history's items a
probability: otherwise it would lose to the others what it spends on items out of the question.
Belongs here: the mixture and its fit. Not here: what the channels are (`neighbours.channels`),
whether it pays (`training.fit.selection`).

Shape legend: P requests, N items, L target lines, K experts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.neighbours.channels import CHANNEL_AT, CHANNELS, COUNT
from training.network.batches import Targets
from training.network.losses import ideal_gain

Floats = npt.NDArray[np.float32]
EVIDENCE: Final = tuple(m for m, channel in CHANNEL_AT.items() if not channel.log)
"""Indices in a reading of the experts from 2 on."""
IN_HISTORY: Final = next(m for m, channel in CHANNEL_AT.items() if channel.rows == "own")
"""An index in a reading that is above 0 for what is in the history."""
REPEATS_FROM: Final = 0.01
"""Share of target lines that were in the history, from which items are taken to be bought again."""
POPULARITY: Final = tuple(range(len(CHANNELS), COUNT))
COUNT_EXPERTS: Final = 2 + len(EVIDENCE) + len(POPULARITY)
_ROUNDS: Final = 300
_LEAST: Final = 5e-3
NOTHING: Final = 1e-30
"""A probability of at least this, so that every score is finite."""


def probabilities(
    added_PN: Tensor, base_PN: Tensor, memory_PRN: Tensor, expert: int, *, once: bool = False
) -> Tensor:
    """Return q of one expert, shape (P, N).

    Parameters
    ----------
    added_PN, base_PN, memory_PRN
        Weighed scores, the network's logits, and what `neighbours.channels.Channels.read` gives.
    once
        Whether nothing is taken twice: what is in the history has no probability.
    """
    if expert < 2:
        logits = (added_PN, base_PN)[expert]
    elif expert >= 2 + len(EVIDENCE):
        logits = memory_PRN[:, POPULARITY[expert - 2 - len(EVIDENCE)]]
    else:
        return _divide(memory_PRN[:, EVIDENCE[expert - 2]].clamp(min=0.0), memory_PRN, once)
    return _divide(torch.exp(logits - logits.amax(dim=1, keepdim=True)), memory_PRN, once)


def _divide(amounts_PN: Tensor, memory_PRN: Tensor, once: bool) -> Tensor:
    if once:
        amounts_PN = amounts_PN * (memory_PRN[:, IN_HISTORY] <= 0)
    return amounts_PN / amounts_PN.sum(dim=1, keepdim=True).clamp(min=NOTHING)


def mix(
    shares_K: Tensor, added_PN: Tensor, base_PN: Tensor, memory_PRN: Tensor, *, once: bool = False
) -> Tensor:
    """Return log p, shape (P, N)."""
    out = torch.zeros_like(base_PN)
    for k in torch.nonzero(shares_K)[:, 0].tolist():
        out += shares_K[k] * probabilities(added_PN, base_PN, memory_PRN, k, once=once)
    return torch.log(out + NOTHING)


@dataclass(frozen=True)
class Served:
    """`mix` of one user, in NumPy.

    Attributes
    ----------
    shares, once
        π, and whether what is in the history has no probability.
    popularity
        `training.neighbours.channels.Channels.popularity`.
    item, in_history
        Items that the rows of the user's items name (from 0); the first ``in_history`` are theirs.
    evidence
        Sums of their rows by index in a reading, of each expert with a share, shape (T,).
    """

    shares: Sequence[float]
    once: bool
    popularity: Floats
    item: npt.NDArray[np.int64]
    in_history: int
    evidence: Mapping[int, Floats]

    def parts(self, added: Floats, base: Floats) -> Iterator[tuple[int, Any, Floats]]:
        """Yield each expert with a share, the items it speaks of, and what it adds to their p."""
        out = np.zeros(len(added), np.bool_)
        if self.once:
            out[self.item[: self.in_history]] = True
        for k, share in enumerate(self.shares):
            if not share:
                continue
            where: Any = slice(None)
            if 2 <= k < 2 + len(EVIDENCE):
                where, amounts = self.item, np.maximum(self.evidence[EVIDENCE[k - 2]], 0)
            else:
                logits = (added, base, *self.popularity)[k if k < 2 else k - len(EVIDENCE)]
                amounts = np.exp(logits - logits.max())
            amounts = amounts * ~out[where]
            yield k, where, np.float32(share) / max(amounts.sum(), np.float32(NOTHING)) * amounts

    def scores(self, added: Floats, base: Floats) -> Floats:
        """Return log p, shape (N,), of the weighed scores and the network's logits."""
        p = np.zeros(len(added), np.float32)
        for _, where, part in self.parts(added, base):
            p[where] += part
        out: Floats = np.log(p + np.float32(NOTHING))
        return out


def of_targets(
    added_PN: Tensor, base_PN: Tensor, memory_PRN: Tensor, targets: Targets, *, once: bool = False
) -> Tensor:
    """Return what each expert gave to each target line, shape (L, K)."""
    line = targets.owner, targets.item
    every = range(COUNT_EXPERTS)
    return torch.stack(
        [probabilities(added_PN, base_PN, memory_PRN, k, once=once)[line] for k in every], dim=1
    )


def line_weights(targets: Targets) -> Tensor:
    """Return the weight of each line in the loss, shape (L,); see `training.network.losses`."""
    return 1.0 / ideal_gain(targets.sizes.clamp(min=1))[targets.owner]


def fit(given_LK: Tensor, weight_L: Tensor, usable: list[bool]) -> Tensor:
    """Return the shares π of greatest likelihood, those too small to matter 0, shape (K,).

    Parameters
    ----------
    given_LK, weight_L
        What each expert gave to each target line, and how much the line counts.
    usable
        Which experts may have a share, K of them.

    Examples
    --------
    >>> given = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])
    >>> [round(v, 2) for v in fit(given, torch.ones(3), [True, True]).tolist()]
    [0.71, 0.29]
    """
    q, weight = given_LK.double() + NOTHING, weight_L.double() / weight_L.sum()
    shares = torch.tensor(usable, dtype=torch.float64)
    for _ in range(2):
        shares /= shares.sum()
        for _ in range(_ROUNDS):
            parts = q * shares
            shares = weight @ (parts / parts.sum(dim=1, keepdim=True))
        shares[shares < _LEAST] = 0.0
    return (shares / shares.sum()).float()
