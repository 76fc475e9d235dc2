"""Training losses."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from training.network.batches import Targets

_DEPTH = 10


def ideal_gain(sizes: Tensor) -> Tensor:
    """Return IDCG@10 of baskets of given sizes: Σ_{k≤min(n, 10)} 1/log2(k + 1).

    Examples
    --------
    >>> [round(v, 3) for v in ideal_gain(torch.tensor([1, 2])).tolist()]
    [1.0, 1.631]
    """
    ranks = torch.arange(_DEPTH, device=sizes.device, dtype=torch.float32)
    gains = torch.cat([ranks.new_zeros(1), (1.0 / torch.log2(ranks + 2.0)).cumsum(0)])
    return gains[sizes.clamp(max=_DEPTH)]


def basket_loss(logits_PN: Tensor, targets: Targets) -> Tensor:
    """Return full cross-entropy over the baskets.

    ``−Σ_b w_b Σ_{i∈b} log softmax_i / Σ_b w_b |b|`` with ``w_b = 1 / IDCG(min(|b|, 10))``.

    Parameters
    ----------
    logits_PN
        Scores of all items per request.
    targets
        Baskets; a request with an empty one has no part.
    """
    log_probability = F.log_softmax(logits_PN.float(), dim=1)
    weight = 1.0 / ideal_gain(targets.sizes.clamp(min=1))
    chosen = log_probability[targets.owner, targets.item]
    total = (weight * targets.sizes).sum().clamp(min=1e-6)
    return -(weight[targets.owner] * chosen).sum() / total


def outcome_loss(logits_MK: Tensor, labels_MK: Tensor) -> Tensor:
    """Return mean binary cross-entropy over the known labels; NaN is not known."""
    known = ~labels_MK.isnan()
    losses = F.binary_cross_entropy_with_logits(
        logits_MK.float(), labels_MK.nan_to_num(), reduction="none"
    )
    return (losses * known).sum() / known.sum().clamp(min=1)
