"""Layers for one user at a time, compiled: calling torch costs more than their sums.

Each head writes its equation once for batches (torch's ``forward``) and once with these for one
user, and ``test_serving_contract.py`` holds the two equal. Belongs here: layers. Not here: heads.
"""

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from torch import Tensor, nn

from training.state import recurrence
from training.state.recurrence import normalise, product

Floats = npt.NDArray[np.float32]
_ROOT_HALF: Final = math.sqrt(0.5)


class Dense(NamedTuple):
    """``x Wᵀ + b``, its weight laid out by input, shapes (inputs, outputs) and (outputs,)."""

    weight: Floats
    bias: Floats


class Norm(NamedTuple):
    """Scale and shift of a layer norm."""

    weight: Floats
    bias: Floats


def array(weight: Tensor) -> Floats:
    """Return a weight as an array."""
    return np.ascontiguousarray(weight.detach().numpy())


def dense(layer: nn.Linear | None, outputs: int = 0) -> Dense:
    """Return a linear layer; of None one without inputs."""
    if layer is None:
        return Dense(np.zeros((0, outputs), np.float32), np.zeros(outputs, np.float32))
    no_bias = np.zeros(layer.out_features, np.float32)
    return Dense(array(layer.weight.T), no_bias if layer.bias is None else array(layer.bias))


def norm(layer: nn.LayerNorm) -> Norm:
    """Return a layer norm."""
    return Norm(array(layer.weight), array(layer.bias))


@njit
def affine(w: Any, x: Any) -> Any:
    """Return what a `Dense` gives."""
    out = w.bias.copy()
    product(out, x, w.weight)
    return out


@njit
def normalised(w: Any, x: Any) -> Any:
    """Return what a `Norm` gives."""
    out = x.copy()
    normalise(out, w.weight, w.bias)
    return out


@njit
def sigmoid(x: Any) -> Any:
    """Return σ(x)."""
    out = x.copy()
    recurrence.sigmoid(out, np.float32(1), np.empty(len(x), np.float32))
    return out


@njit
def gelu(x: Any) -> Any:
    """Return ``x Φ(x)`` of one number."""
    return x * np.float32(0.5 * (1.0 + math.erf(x * _ROOT_HALF)))
