"""Objective of the training: the losses of a batch's baskets, outcomes and categories added up.

Belongs here: which heads are asked and how their losses are weighed. Not here: each loss (`losses`,
`next_category`), or the steps that follow its gradients (`optimizer`).
"""

import torch
from torch import nn

from training.network.config import TrainConfig
from training.network.examples import Example
from training.network.losses import basket_loss, outcome_loss
from training.network.network import PortraitNetwork
from training.network.next_category import category_loss
from training.network.sampled_softmax import NEGATIVES, Shares, draw


class Objective(nn.Module):
    """The loss of one batch as a module, so that data-parallel wrapping sees a single forward."""

    def __init__(
        self, network: PortraitNetwork, config: TrainConfig, shares: Shares | None
    ) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.shares = shares  # of lines by item, where the softmax is sampled

    def forward(self, example: Example) -> torch.Tensor:
        """Return the loss of a batch."""
        network = self.network
        flat = network.unroll(example.events).flatten(0, 1)
        at_moments = network.vector(flat[example.moment_index], example.moments)
        logits = network.outcome_logits(at_moments)
        # Without a moment it is 0, and every worker still has the same gradients to average.
        loss = outcome_loss(logits, example.labels[:, : logits.shape[1]]) + flat.sum() * 0.0
        if network.config.recipe == "stacked":
            return loss
        u = network.vector(flat[example.request_index], example.requests)
        if self.shares is None:
            basket = basket_loss(network.logits(u, example.pairs), example.targets)
        else:
            found = draw(self.shares, example.targets, NEGATIVES)
            logits = network.logits_of(found.items, u, example.pairs)
            logits = found.corrected(logits, example.targets)
            basket = basket_loss(logits, found.to_candidates(example.targets))
        return basket + self.config.outcome_weight * loss + self._category_loss(at_moments, example)

    def _category_loss(self, u: torch.Tensor, example: Example) -> torch.Tensor:
        head = self.network.next_category
        if head is None or example.interests is None:
            return u.new_zeros(())
        logits = head(u, example.moment_pairs, example.interests)
        return self.config.category_weight * category_loss(logits, example.bought, example.ended)
