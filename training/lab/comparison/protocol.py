"""Protocol of the comparison: the same requests, candidates, mask and metrics for every model."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.evaluation.baselines import EvaluationWindow
from training.evaluation.metrics import NAMES, ranking_metrics
from training.lab.comparison.shop import Shop
from training.network.batches import make_targets

CHUNK = 512
"""Requests scored at a time."""

Score = Callable[[EvaluationWindow], Tensor]
"""Takes at most `CHUNK` requests, returns scores of shape (P, N)."""

Doubles = npt.NDArray[np.float64]


def measure(shop: Shop, wanted: EvaluationWindow, score: Score) -> Doubles:
    """Return `training.evaluation.metrics.NAMES` per request, shape (P, 4)."""
    out = np.zeros((len(wanted.event), len(NAMES)))
    # Histories of like lengths together: a network reads them side by side, padded.
    order = np.argsort(shop.histories.lengths()[wanted.user], kind="stable")
    for begin in range(0, len(order), CHUNK):
        part = order[begin : begin + CHUNK]
        some = EvaluationWindow(wanted.event[part], wanted.user[part])
        scores = score(some).float()
        if shop.masked:
            scores = scores.clone()
            request, item = shop.had(some)
            scores[torch.from_numpy(request), torch.from_numpy(item)] = -torch.inf
        out[part] = ranking_metrics(scores, make_targets(shop.histories, some.event))
    return out


def sample(wanted: EvaluationWindow, most: int) -> EvaluationWindow:
    """Return an even sample of requests, all if there are no more than ``most``."""
    stride = max(1, -(-len(wanted.event) // most))
    return EvaluationWindow(wanted.event[::stride], wanted.user[::stride])
