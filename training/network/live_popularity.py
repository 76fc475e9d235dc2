"""Live popularity: what is selling just now, added to every score.

For a moment's counts c of users (`neighbours.live_counts`), with one half-life of weeks and one
of days::

    score_j = s_j + Σ_h w_h · log(1 + m_h · c_hj / Σ_i c_hi)

m is the number of users that the counts came to at the end of training: the counts of another
time are brought to it, so that only their proportions matter. The weights w are those of greatest
likelihood on the validation period; that of the longer half-life comes out below 0 where what
counts is the trend. Belongs here: the sum and its fit. Not here: whether it pays
(`training.fit.live`).

Shape legend: H half-lives, N items, P requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.neighbours.live_counts import COUNT_HALF_LIVES_DAYS
from training.network.batches import Targets
from training.network.losses import basket_loss

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
RIDGE: Final = 1e-3
_ROUNDS: Final = 40
NAMES: Final = ("live.weights", "live.users")
"""Of what is kept of it among a network's weights; an older model has none of them."""


@dataclass(frozen=True)
class LivePiece:
    """Some requests: every score without live popularity, the logs, and what was right.

    Attributes
    ----------
    scores, logs
        Shapes (P, N), (P, H, N).
    """

    scores: Tensor
    logs: Tensor
    targets: Targets


class LivePopularity(nn.Module):
    """The weights; until they are fitted, 0: nothing is added."""

    def __init__(self) -> None:
        super().__init__()
        half_lives = len(COUNT_HALF_LIVES_DAYS)
        self.weights = nn.Parameter(torch.zeros(half_lives), requires_grad=False)
        self.users = nn.Parameter(torch.zeros(half_lives), requires_grad=False)

    @property
    def used(self) -> bool:
        """Whether anything is added."""
        return bool((self.weights != 0).any())

    def logs(self, counts: Any) -> Floats:
        """Return the logs that are weighed.

        Parameters
        ----------
        counts
            Counts of all items in any scale, shape (..., H, N). Where they are all 0, nobody
            knows what sells, and the logs are 0.
        """
        found = np.asarray(counts, np.float64)
        total = np.maximum(found.sum(axis=-1, keepdims=True), 1e-300)
        scale = self.users.double().numpy()[:, None] / total
        out: Floats = np.log1p(found * scale).astype(np.float32)
        return out

    def added(self, counts: Any) -> Floats:
        """Return what is added to every score, shape (..., N); counts as for `logs`."""
        out: Floats = np.einsum("h,...hn->...n", self.weights.numpy(), self.logs(counts))
        return out

    def fit(self, pieces: Sequence[LivePiece]) -> None:
        """Set the weights to those of greatest likelihood; ``users`` must be set before."""
        share = torch.tensor([float(len(piece.scores)) for piece in pieces])
        share /= share.sum()
        size = torch.stack([piece.logs.std(dim=(0, 2)) for piece in pieces]).mean(dim=0)
        self.weights.requires_grad_(True)
        optimizer = torch.optim.LBFGS(
            [self.weights], max_iter=_ROUNDS, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = RIDGE * (self.weights * size).square().sum()
            for part, piece in zip(share, pieces, strict=True):
                added = torch.einsum("h,phn->pn", self.weights, piece.logs)
                value = value + part * basket_loss(piece.scores + added, piece.targets)
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        self.weights.requires_grad_(False)
