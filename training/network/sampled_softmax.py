"""Sampled softmax for large catalogues: the loss over a few items stands for that over all.

A batch's candidates are its own targets and `NEGATIVES` draws by popularity. Item i with share
p_i of the training lines is among them with probability about ``π_i = 1 − (1 − p_i)^(S + L)``
for S draws and L target lines; ``logit_i − log π_i`` in the softmax makes up for it (logQ
correction: Bengio and Senécal, "Adaptive Importance Sampling", IEEE TNN 2008; within a batch: Yi et
al., RecSys 2019). What a request's own basket holds is there for certain and is not corrected, so
that the sum over candidates has the full sum as its expectation (Khrylchenko et al., "Correcting
the LogQ Correction", RecSys 2025).

Shape legend: N items, C candidates, P requests.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.history import vocabulary
from training.network.batches import Targets

FULL_ITEMS: Final = vocabulary.FULL_ITEMS
NEGATIVES: Final = 4096


@dataclass(frozen=True)
class Candidates:
    """Items (from 0, rising) that stand for all, and the log of their probability to do so.

    Both have shape (C,).
    """

    items: Tensor
    log_probability: Tensor

    def corrected(self, logits_PC: Tensor, targets: Targets) -> Tensor:
        """Return logits less the log of their items' probabilities, but for a basket's own."""
        index = self.to_candidates(targets).item
        less: Tensor = logits_PC - self.log_probability
        return less.index_put((targets.owner, index), self.log_probability[index], accumulate=True)

    def to_candidates(self, targets: Targets) -> Targets:
        """Return the same targets, items counted among the candidates."""
        return replace(targets, item=torch.searchsorted(self.items, targets.item))


class Shares:
    """Share of the training lines of each item, 1 in all, ready to be drawn by in log N."""

    def __init__(self, share_N: Tensor) -> None:
        self.share = share_N
        self._up_to = share_N.double().cumsum(0)  # a million of them do not add up in single

    @classmethod
    def of(cls, log_support: npt.NDArray[np.float32], device: torch.device | None = None) -> Self:
        """Return the shares that centred logs of counts stand for."""
        return cls(torch.softmax(torch.from_numpy(log_support), 0).to(device))

    def draw(self, draws: int) -> Tensor:
        """Return items (from 0) drawn with replacement, shape (draws,)."""
        up_to = self._up_to
        at = torch.rand(draws, dtype=up_to.dtype, device=up_to.device) * up_to[-1]
        return torch.searchsorted(up_to, at, right=True).clamp(max=len(up_to) - 1)


def draw(shares: Shares, targets: Targets, negatives: int) -> Candidates:
    """Draw a batch's candidates with torch's own generator.

    Parameters
    ----------
    shares
        What is drawn by.
    negatives
        Number of draws S; one item may be drawn more than once.
    """
    items = torch.unique(torch.cat([targets.item, shares.draw(negatives)]))
    draws = negatives + len(targets.item)
    missed = draws * torch.log1p(-shares.share[items].clamp(max=1 - 1e-6))
    return Candidates(items, torch.log(-torch.expm1(missed)))
