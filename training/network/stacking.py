"""Stacking: each channel's weight beside the network, fitted on what came after the training.

For a request after n positive events, with the network's logits b and the channels φ_m of
`training.neighbours.channels`::

    score = w_0(n) · b + Σ_m w_m(n) · φ_m,     w(n) = softplus(α + β · log(1 + n))

α and β, 2 (M + 1) numbers, are those of greatest likelihood on the validation period, whose
events neither the network nor the memories have seen, less `RIDGE` times the square of what each
channel adds; n counts within the range met there. Fitting network and weights together, on
rows that leave a user's fold out, loses most of what the two know apart (docs/adr).

Where that pays, the answer is a mixture of these scores and of evidence by itself
(`training.network.mixture`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from training.neighbours.channels import COUNT
from training.network import mixture
from training.network.batches import Targets
from training.network.losses import basket_loss
from training.network.sampled_softmax import Candidates

_OFF, _ONE = -12.0, 0.5413  # softplus of these: 6e-6, 1
_ROUNDS: Final = 60
RIDGE: Final = 0.01


@dataclass(frozen=True)
class Piece:
    """Some requests, what network and memories answer, and what was right.

    Attributes
    ----------
    base, memory, log_events
        Logits b, channels φ and log(1 + n). Shapes (P, C), (P, M, C), (P,).
    targets
        Baskets, items counted among all.
    candidates
        The C items that stand for all; None: all are there.
    """

    base: Tensor
    memory: Tensor
    log_events: Tensor
    targets: Targets
    candidates: Candidates | None = None

    def loss(self, scores_PC: Tensor) -> Tensor:
        """Return `training.network.losses.basket_loss`."""
        if self.candidates is None:
            return basket_loss(scores_PC, self.targets)
        logits = self.candidates.corrected(scores_PC, self.targets)
        return basket_loss(logits, self.candidates.to_candidates(self.targets))


class Stacking(nn.Module):
    """The weights; until they are fitted, the network alone."""

    def __init__(self) -> None:
        super().__init__()
        start = torch.full((COUNT + 1, 2), 0.0)
        start[:, 0] = _OFF
        start[0, 0] = _ONE
        self.weights = nn.Parameter(start, requires_grad=False)
        self.range = nn.Parameter(torch.tensor([0.0, 20.0]), requires_grad=False)
        self.shares = nn.Parameter(torch.zeros(mixture.COUNT_EXPERTS), requires_grad=False)
        self.shares[0] = 1.0
        self.once = nn.Parameter(torch.tensor(0.0), requires_grad=False)

    @property
    def mixture(self) -> bool:
        """Whether the answer is a mixture of more than the weighed scores."""
        return bool(self.shares[0] < 1.0)

    def forward(self, base_PN: Tensor, memory_PMN: Tensor, log_events_P: Tensor) -> Tensor:
        """Return the scores, shape (P, N): a mixture's are the logarithm of the probability."""
        added = self.weigh(base_PN, memory_PMN, log_events_P)
        if not self.mixture:
            return added
        return mixture.mix(self.shares, added, base_PN, memory_PMN, once=bool(self.once))

    def weigh(self, base_PN: Tensor, memory_PMN: Tensor, log_events_P: Tensor) -> Tensor:
        """Return the weighed sum of logits and channels, shape (P, N)."""
        weight = self.at(log_events_P)
        out: Tensor = weight[:, :1] * base_PN + torch.einsum(
            "pm,pmn->pn", weight[:, 1:], memory_PMN[:, :COUNT]
        )
        return out

    def at(self, log_events_P: Tensor) -> Tensor:
        """Return the weights of the network and of each channel, shape (P, M + 1)."""
        alpha, beta = self.weights.unbind(dim=1)
        within = log_events_P.clamp(self.range[0], self.range[1])
        return F.softplus(alpha + beta * within[:, None])

    def fit(self, pieces: Sequence[Piece]) -> tuple[float, float]:
        """Set the weights to those of greatest likelihood; return the loss before and after."""
        share = torch.tensor([float(len(piece.base)) for piece in pieces])
        share /= share.sum()

        def mean(of: Callable[[Piece], Tensor]) -> Tensor:
            parts = [w * of(piece) for w, piece in zip(share, pieces, strict=True)]
            return torch.stack(parts).sum(dim=0)

        with torch.no_grad():
            before = float(mean(lambda piece: piece.loss(piece.base)))
            self.weights[1:, 0] = -2.0
            log_events = torch.cat([piece.log_events for piece in pieces])
            low, high = torch.quantile(log_events, torch.tensor([0.01, 0.99]))
            self.range.copy_(torch.stack([low, high]))
            size = mean(lambda piece: piece.memory[:, :COUNT].std(dim=(0, 2)))
        self.weights.requires_grad_(True)
        optimizer = torch.optim.LBFGS(
            [self.weights], lr=0.5, max_iter=_ROUNDS, line_search_fn="strong_wolfe"
        )

        def measure(piece: Piece) -> Tensor:
            return piece.loss(self.weigh(piece.base, piece.memory, piece.log_events))

        def loss() -> Tensor:
            optimizer.zero_grad()
            added = self.at(log_events)[:, 1:] * size
            value = mean(measure) + RIDGE * added.square().sum(dim=1).mean()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        self.weights.requires_grad_(False)
        with torch.no_grad():
            after = float(mean(measure))
        return before, after
