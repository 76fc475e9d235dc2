"""The loop's session inside a Ray Train worker."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class RaySession:
    """Rank, device and gradient averaging as Ray Train gives them."""

    def __init__(self) -> None:
        from ray import train
        from ray.train import torch as ray_torch

        context = train.get_context()
        self.rank: int = context.get_world_rank()
        self.world: int = context.get_world_size()
        self.device: torch.device = ray_torch.get_device()

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module in DistributedDataParallel."""
        if self.world == 1:
            return module
        ids = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=ids)

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Report an epoch to Ray."""
        from ray import train

        train.report(dict(metrics))
