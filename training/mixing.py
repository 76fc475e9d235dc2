"""How much each memory counts beside the network: fitted on what came after the training.

For a request after n positive events, with the network's logits b and the channels φ_m of
`training.memory`::

    score = w_0(n) · b + Σ_m w_m(n) · φ_m,     w(n) = softplus(α + β · log(1 + n))

α and β, 2 (M + 1) numbers, are those of greatest likelihood on the validation period, whose
events neither the network nor the memories have seen, less `RIDGE` times the square of what each
channel adds; n counts within the range met there. Fitting network and weights together, on
rows that leave a user's fold out, loses most of what the two know apart (docs/adr).
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from training.batches import Targets
from training.losses import basket_loss
from training.memory import COUNT

MAX_NUMBERS: Final = 60_000_000
"""Most logits that fitting holds: requests · (M + 1) · items."""
_OFF, _ONE = -12.0, 0.5413  # softplus of these: 6e-6, 1
_ROUNDS: Final = 60
RIDGE: Final = 0.01


class Mixing(nn.Module):
    """The weights; until they are fitted, the network alone."""

    def __init__(self) -> None:
        super().__init__()
        start = torch.full((COUNT + 1, 2), 0.0)
        start[:, 0] = _OFF
        start[0, 0] = _ONE
        self.weights = nn.Parameter(start, requires_grad=False)
        self.range = nn.Parameter(torch.tensor([0.0, 20.0]), requires_grad=False)

    def forward(self, base_PN: Tensor, memory_PMN: Tensor, log_events_P: Tensor) -> Tensor:
        """Return the scores, shape (P, N)."""
        weight = self._at(log_events_P)
        out: Tensor = weight[:, :1] * base_PN + torch.einsum(
            "pm,pmn->pn", weight[:, 1:], memory_PMN
        )
        return out

    def _at(self, log_events_P: Tensor) -> Tensor:
        alpha, beta = self.weights.unbind(dim=1)
        within = log_events_P.clamp(self.range[0], self.range[1])
        return F.softplus(alpha + beta * within[:, None])

    def fit(
        self, base_PN: Tensor, memory_PMN: Tensor, log_events_P: Tensor, targets: Targets
    ) -> tuple[float, float]:
        """Set the weights to those of greatest likelihood; return the loss before and after."""
        with torch.no_grad():
            before = float(basket_loss(base_PN, targets))
            self.weights[1:, 0] = -2.0
            low, high = torch.quantile(log_events_P, torch.tensor([0.01, 0.99]))
            self.range.copy_(torch.stack([low, high]))
            size = memory_PMN.std(dim=(0, 2))
        self.weights.requires_grad_(True)
        optimizer = torch.optim.LBFGS(
            [self.weights], lr=0.5, max_iter=_ROUNDS, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            scores = self(base_PN, memory_PMN, log_events_P)
            added = self._at(log_events_P)[:, 1:] * size
            value = basket_loss(scores, targets) + RIDGE * added.square().sum(dim=1).mean()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        self.weights.requires_grad_(False)
        with torch.no_grad():
            after = float(basket_loss(self(base_PN, memory_PMN, log_events_P), targets))
        return before, after
