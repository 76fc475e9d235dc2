"""Worker of a training loop: which one it is of how many, and on what device.

Belongs here: what the loop asks of its surroundings, and one process alone. Not here: Ray's workers
(`training.fit.ray_worker`).
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn


class WorkerSession(Protocol):
    """What the loop needs to know of where it runs."""

    rank: int
    world: int
    device: torch.device

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module that averages gradients over the workers."""
        ...

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Tell the outside about a finished epoch; called by every rank."""
        ...


class Alone:
    """One process, no Ray."""

    rank, world = 0, 1

    def __init__(
        self,
        device: torch.device | None = None,
        told: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self._tell = told

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module as it is."""
        return module

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Tell who asked for it; the progress file has it too."""
        if self._tell is not None:
            self._tell(metrics)


def mean(session: WorkerSession, total: float, count: int) -> float:
    """Return the mean over all workers of sums and numbers that each has a part of."""
    values = torch.tensor([total, float(count)], dtype=torch.float64)
    if session.world > 1:
        values = values.float().to(session.device)
        dist.all_reduce(values)
    return float(values[0] / max(float(values[1]), 1.0))
