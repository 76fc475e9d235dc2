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
from typing import Final

import torch
from torch import Tensor

from training.batches import Targets

FULL_ITEMS: Final = 20_000
"""Up to so many items the softmax is over all of them."""
NEGATIVES: Final = 4096


@dataclass(frozen=True)
class Candidates:
    """Items (from 0, rising) that stand for all, and the log of their chance to do so.

    Both have shape (C,).
    """

    items: Tensor
    log_chance: Tensor

    def corrected(self, logits_PC: Tensor, targets: Targets) -> Tensor:
        """Return logits less the log of their items' chances, a basket's own left as they are."""
        place = self.places(targets).item
        less: Tensor = logits_PC - self.log_chance
        return less.index_put((targets.owner, place), self.log_chance[place], accumulate=True)

    def places(self, targets: Targets) -> Targets:
        """Return the same targets, items counted among the candidates."""
        return replace(targets, item=torch.searchsorted(self.items, targets.item))


def draw(share_N: Tensor, targets: Targets, negatives: int) -> Candidates:
    """Draw a batch's candidates with torch's own generator.

    Parameters
    ----------
    share_N
        Share of the training lines of each item, adding up to 1.
    negatives
        Number of draws S; one item may be drawn more than once.
    """
    drawn = torch.multinomial(share_N, negatives, replacement=True)
    items = torch.unique(torch.cat([targets.item, drawn]))
    draws = negatives + len(targets.item)
    missed = draws * torch.log1p(-share_N[items].clamp(max=1 - 1e-6))
    return Candidates(items, torch.log(-torch.expm1(missed)))
