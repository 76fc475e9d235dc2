"""The steps of training: gradients into weights, and the running average that is kept of them.

Belongs here: optimisers and averages of a network's weights. Not here: whose gradients
(`objective`), when they are asked for (`loop`), and tables of one row an item (`sparse_adam`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from training.fit.sparse_adam import SparseAdam
from training.fit.worker import WorkerSession
from training.network import sampled_softmax
from training.network.config import TrainConfig
from training.network.network import PortraitNetwork


class Optimizer:
    """Moves a network's weights; AdamW, and for ``stacked`` Adam.

    Parameters
    ----------
    network
        Already on the session's device.

    Attributes
    ----------
    average
        Of the weights over the steps, by name: what is validated and kept.
    rows
        What trains the item tables by rows; None where they are trained whole.
    """

    def __init__(
        self, network: PortraitNetwork, config: TrainConfig, session: WorkerSession
    ) -> None:
        self._network, self._config = network, config
        self._plain = network.config.recipe == "stacked"
        self.average = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.rows = self._row_updates(session)
        self._optimizer = self._make_optimizer()

    def _row_updates(self, session: WorkerSession) -> SparseAdam | None:
        """Return what trains the item tables by rows, where there are many items."""
        if self._network.items <= sampled_softmax.FULL_ITEMS or (
            session.world > 1 and session.device.type == "cuda"
        ):  # NCCL adds up no sparse gradients
            return None
        return SparseAdam(
            self._network.item_tables(), self.average, betas=self._betas(),
            weight_decay=0.0 if self._plain else self._config.weight_decay,
        )  # fmt: skip

    def _betas(self) -> tuple[float, float]:
        return (0.9, 0.999 if self._plain else 0.98)

    def _dense(self) -> list[nn.Parameter]:
        """Return the weights that are trained whole."""
        by_rows = self.rows.names if self.rows is not None else frozenset[str]()
        named = self._network.named_parameters()
        return [p for name, p in named if p.requires_grad and name not in by_rows]

    def _make_optimizer(self) -> torch.optim.Optimizer:
        wanted = self._dense()
        if self._plain:
            return torch.optim.Adam(wanted, lr=1e-3)
        return torch.optim.AdamW(
            wanted, lr=self._config.learning_rate, betas=self._betas(),
            weight_decay=self._config.weight_decay,
        )  # fmt: skip

    def step(self, rate: float, number: int) -> None:
        """Follow the gradients once, clipped to length 1.

        Parameters
        ----------
        rate
            Learning rate.
        number
            Of this step, from 1.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        keep = min(self._config.average, number / (number + 10))
        if self.rows is None:
            nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        else:
            self.rows.clip(self._dense(), 1.0)
            self.rows.step(rate, keep)
        self._optimizer.step()
        with torch.no_grad():
            current = self._whole(self._network.state_dict())
            average = [self.average[name] for name in current]
            get_ema_multi_avg_fn(keep)(  # type: ignore[no-untyped-call]
                average, list(current.values()), number
            )

    def _whole(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a state without the tables that are trained by rows."""
        if self.rows is None:
            return state
        return {name: value for name, value in state.items() if name not in self.rows.names}

    @contextmanager
    def use_average(self) -> Iterator[None]:
        """Let the network have the averaged weights meanwhile."""
        before = {k: v.clone() for k, v in self._whole(self._network.state_dict()).items()}
        self._network.load_state_dict(self._whole(self.average), strict=self.rows is None)
        if self.rows is not None:
            self.rows.settle()
            self.rows.swap()  # a copy of a large table would be one more in memory
        yield
        if self.rows is not None:
            self.rows.swap()
        self._network.load_state_dict(before, strict=self.rows is None)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the steps, the weights left out."""
        return {
            "average": self.average,
            "optimizer": self._optimizer.state_dict(),
            "rows": None if self.rows is None else self.rows.state(),
        }

    def load(self, kept: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._optimizer.load_state_dict(kept["optimizer"])
        self.average = kept["average"]
        if self.rows is not None:
            self.rows.load(kept["rows"], self.average)
