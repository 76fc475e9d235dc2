"""Peers for the tuning: settings, and the scores that each of them gives."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from training.lab.comparison.histories import Fade, faded
from training.lab.comparison.protocol import Score
from training.lab.comparison.shop import Shop

Setting = Mapping[str, Any]
Tell = Callable[[str], None]
Make = Callable[[int, Tell], Score]
Trial = tuple[Setting, Make]
"""A setting in plain values, and what fits it: given a seed, and whom to tell of progress."""


def unseeded(score: Callable[..., Score], *given: Any) -> Make:
    """Return ``score(*given)`` whatever the seed: closed forms have none."""

    def make(seed: int, tell: Tell) -> Score:
        del seed, tell
        return score(*given)

    return make


def constant(scores: Any) -> Score:
    """Return one ranking for everybody, shape (N,)."""
    return lambda wanted: torch.from_numpy(scores).expand(len(wanted.event), -1)


def rows(shop: Shop, matrix: Any, fade: Fade) -> Score:
    """Return the faded history times item-item rows."""
    return lambda wanted: dense(faded(shop, wanted, fade) @ matrix)


def own(shop: Shop, fade: Fade) -> Score:
    """Return the faded history itself."""
    return lambda wanted: dense(faded(shop, wanted, fade))


def summed(one: Score, other: Score, share: float) -> Score:
    """Return ``one + share · other``."""
    return lambda wanted: one(wanted) + share * other(wanted)


def dense(values: Any) -> Tensor:
    """Return a sparse or dense matrix as a tensor."""
    laid = values.toarray() if sp.issparse(values) else values
    return torch.from_numpy(np.asarray(laid, np.float32))
