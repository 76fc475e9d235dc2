"""Updates of the rows that a batch touched, for tables of too many rows to go through each step.

A step of Adam changes the rows with a gradient alone (torch's ``SparseAdam``), and so does weight
decay. The running average ``a ← k·a + (1 − k)·θ`` of a row that stood still for steps s+1…t is
brought up when it is next touched, or by `SparseAdam.settle`::

    a_t = θ + (a_s − θ) · Π_{s<τ≤t} k_τ

which is what averaging every row at every step gives.

Belongs here: tables of one row an item. Not here: all other weights (`training.fit.loop`).
"""

from collections.abc import Iterable, Mapping
from math import log
from typing import Any

import torch
from torch import Tensor, nn


class SparseAdam:
    """Optimises and averages tables by rows.

    Parameters
    ----------
    tables
        Modules with sparse gradients, by their weight's name in the state.
    average
        The running average of every weight by name; the tables' are changed in place.
    betas, weight_decay
        As of AdamW.
    """

    def __init__(
        self,
        tables: Mapping[str, nn.Embedding | nn.EmbeddingBag],
        average: Mapping[str, Tensor],
        *,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        for module in tables.values():
            module.sparse = True
        self._weights = {name: module.weight for name, module in tables.items()}
        self._average = average
        self._decay = weight_decay
        self._optimizer = torch.optim.SparseAdam(list(self._weights.values()), betas=betas)
        self._kept = 0.0  # Σ log k so far
        self._settled = {
            name: torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
            for name, weight in self._weights.items()
        }

    @property
    def names(self) -> frozenset[str]:
        """Names of the tables' weights."""
        return frozenset(self._weights)

    def clip(self, others: Iterable[nn.Parameter], most: float) -> None:
        """Scale all gradients, the other weights' too, to a common norm of at most ``most``."""
        found = [p.grad for p in others if p.grad is not None]
        for weight in self._weights.values():
            if weight.grad is not None:
                weight.grad = weight.grad.coalesce()
                found.append(weight.grad.values())
        norm = nn.utils.get_total_norm(found)
        torch._foreach_mul_(found, (most / (norm + 1e-6)).clamp(max=1.0))

    @torch.no_grad()
    def step(self, rate: float, keep: float) -> None:
        """Change the touched rows and their averages.

        Parameters
        ----------
        rate
            Learning rate.
        keep
            The average's decay k at this step, above 0.
        """
        updated = dict[str, Tensor]()
        for name, weight in self._weights.items():
            if weight.grad is None:
                continue
            updated[name] = weight.grad.coalesce().indices()[0]
            self._bring_up(name, updated[name])
            weight[updated[name]] *= 1.0 - rate * self._decay
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()  # type: ignore[no-untyped-call]
        self._kept += log(keep)
        for name, rows in updated.items():
            average, weight = self._average[name], self._weights[name]
            average[rows] = torch.lerp(average[rows], weight[rows], 1.0 - keep)
            self._settled[name][rows] = self._kept

    @torch.no_grad()
    def settle(self) -> None:
        """Bring the average of every row up to the last step."""
        for name, weight in self._weights.items():
            gone = self._gone(self._settled[name])
            self._average[name].lerp_(weight, gone.to(weight.dtype)[:, None])
            self._settled[name].fill_(self._kept)

    def swap(self) -> None:
        """Exchange the tables' weights and their averages; twice is nothing."""
        for name, weight in self._weights.items():
            average = self._average[name]
            kept = weight.data
            weight.data = average.data
            average.data = kept

    def state(self) -> dict[str, Any]:
        """Return what goes on from here; to be asked for right after `settle`."""
        return {"optimizer": self._optimizer.state_dict(), "kept": self._kept}

    def load(self, state: Mapping[str, Any], average: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave, with the averages of that moment."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._kept, self._average = state["kept"], average
        for settled in self._settled.values():
            settled.fill_(self._kept)

    def _bring_up(self, name: str, rows: Tensor) -> None:
        average, weight = self._average[name], self._weights[name]
        gone = self._gone(self._settled[name][rows]).to(weight.dtype)
        average[rows] = torch.lerp(average[rows], weight[rows], gone[:, None])

    def _gone(self, settled: Tensor) -> Tensor:
        return -torch.expm1(self._kept - settled)
