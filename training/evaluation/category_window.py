"""Answers of the next-category head in a window: what calibration, evaluation and studies read."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.evaluation.metrics import NAMES, ranking_metrics
from training.evaluation.predict import USERS_PER_PASS
from training.history.sequences import Ints
from training.history.vocabulary import DAY_MS
from training.network.batches import Targets
from training.network.examples import BasketRequests, ExampleMaker
from training.network.network import PortraitNetwork
from training.network.next_category import NEXT_DAYS

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CategoryAnswers:
    """Logits of all categories at some weekly moments, shape (M, K), and what was bought."""

    logits: Tensor
    bought: Targets
    moment_rows: Ints

    def labels(self) -> Tensor:
        """Return 1.0 where a category was bought, else 0.0, shape (M, K)."""
        out = torch.zeros_like(self.logits)
        out[self.bought.owner, self.bought.item] = 1.0
        return out


def moments_inside(maker: ExampleMaker, since_ms: int, until_ms: int) -> Ints:
    """Return the rows of the weekly moments that lie in a window with their 14 days."""
    times = maker.prepared.moments.time_ms
    return np.flatnonzero((times >= since_ms) & (times + NEXT_DAYS * DAY_MS <= until_ms))


def ask(network: PortraitNetwork, maker: ExampleMaker, rows: Ints) -> Iterator[CategoryAnswers]:
    """Yield the head's answers at some moments, ordered by user within each piece.

    Raises
    ------
    ValueError
        If the network has no such head.
    """
    head, moments = network.next_category, maker.prepared.moments
    if head is None:
        raise ValueError("the network has no head for the next category")
    lengths = maker.prepared.histories.lengths()
    users = np.unique(moments.user[rows])
    users = users[np.argsort(lengths[users], kind="stable")]
    none = np.zeros(0, np.int64)
    nothing = BasketRequests(none, none, none, np.zeros(0, np.bool_))
    network.eval()
    for begin in range(0, len(users), USERS_PER_PASS):
        some = users[begin : begin + USERS_PER_PASS]
        mine = rows[np.isin(moments.user[rows], some)]
        with torch.no_grad():
            example = maker.make(some, nothing, mine, lengths[some], pairs_at_moments=True)
            flat = network.unroll(example.events).flatten(0, 1)
            u = network.vector(flat[example.moment_index], example.moments)
            assert example.interests is not None
            logits = head(u, example.moment_pairs, example.interests)
        yield CategoryAnswers(logits, example.bought, mine)


@dataclass(frozen=True)
class Measured:
    """How good the head's order and its probabilities are.

    Attributes
    ----------
    metrics
        `training.evaluation.metrics.NAMES` at each moment, shape (M, 4); NaN: nothing bought.
    said, true, count
        Sums of probabilities and of labels, and their number, by tenth of the former. Shape (10,).
    """

    metrics: Doubles
    said: Doubles
    true: Doubles
    count: Doubles

    def calibration_error(self) -> float:
        """Return the mean distance between what was said and what came true, by tenth."""
        return float(np.abs(self.said - self.true).sum() / max(float(self.count.sum()), 1.0))


def measure(network: PortraitNetwork, maker: ExampleMaker, rows: Ints) -> Measured:
    """Measure the head at some moments."""
    metrics = np.full((len(maker.prepared.moments.time_ms), len(NAMES)), np.nan)
    sums = np.zeros((3, 10))
    for found in ask(network, maker, rows):
        metrics[found.moment_rows] = ranking_metrics(found.logits, found.bought)
        probabilities = torch.sigmoid(found.logits).flatten().double().numpy()
        tenth = np.minimum((probabilities * 10).astype(np.int64), 9)
        for n, of in enumerate((probabilities, found.labels().flatten().numpy(), None)):
            sums[n] += np.bincount(tenth, of, minlength=10)
    return Measured(metrics[rows], *sums)
