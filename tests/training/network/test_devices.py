"""Batches go where they are sent, and come back."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from training.network.devices import accelerator, move

META, CPU = torch.device("meta"), torch.device("cpu")
"""``meta`` stands in for a GPU: it has shapes, no numbers."""


@dataclass(frozen=True)
class Inner:
    values: Tensor
    lengths: Tensor
    name: str


@dataclass(frozen=True)
class Outer:
    inner: Inner
    missing: Tensor | None


def batch() -> Outer:
    return Outer(Inner(torch.arange(3), torch.arange(2), "one"), None)


def test_every_tensor_goes_but_the_lengths() -> None:
    moved = move(batch(), META)
    assert moved.inner.values.device == META
    assert moved.inner.lengths.device == CPU
    assert (moved.inner.name, moved.missing) == ("one", None)


def test_what_is_there_already_stays() -> None:
    given = batch()
    assert move(given, CPU).inner.values is given.inner.values


def test_a_batch_on_a_gpu_is_brought_back() -> None:
    with pytest.raises(NotImplementedError, match="meta"):
        move(move(batch(), META), CPU)


def test_a_machine_has_a_device() -> None:
    assert accelerator().type == ("cuda" if torch.cuda.is_available() else "cpu")
