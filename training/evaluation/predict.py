"""Answers of a network along whole histories: what validation and evaluation read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from training.evaluation.metrics import Doubles, metrics_of, ranking_metrics
from training.history.prepared import OUTCOMES
from training.history.sequences import Ints
from training.neighbours.channels import SparseReading
from training.network import sampled_softmax
from training.network.devices import autocast, move
from training.network.examples import Example, ExampleMaker
from training.network.network import PortraitNetwork
from training.network.reranker import Reranker
from training.scoring.as_of_now import AsOfNow
from training.scoring.retrieval import ItemArrays, Queries, ranks

USERS_PER_PASS = 64
_CPU = torch.device("cpu")


def auc(labels: npt.NDArray[Any], scores: npt.NDArray[Any]) -> float:
    """Return the area under the ROC curve; 0.5 when one class is absent.

    Examples
    --------
    >>> auc(np.array([0, 0, 1, 1], np.float32), np.array([1, 3, 2, 4], np.float32))
    0.75
    """
    from sklearn.metrics import roc_auc_score

    positive = labels > 0
    if positive.all() or not positive.any():
        return 0.5
    return float(roc_auc_score(positive, scores))


@dataclass(frozen=True)
class Scored:
    """What a network answered in a window: basket metrics, and probabilities of outcomes.

    ``probabilities`` and ``labels`` have a column for each outcome, ``labels`` NaN where days do
    not end in the window.
    """

    metrics: npt.NDArray[np.float64]
    users: Ints
    answers: Ints
    probabilities: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    moment_rows: Ints

    def select_known(self, outcome: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return the labels of an outcome that are known, and their probabilities."""
        there = ~np.isnan(self.labels[:, outcome])
        return self.labels[there, outcome], self.probabilities[there, outcome]


def score_window(
    network: PortraitNetwork,
    maker: ExampleMaker,
    users: Ints,
    window_ms: tuple[int, int],
    *,
    timed: bool,
    reranker: Reranker | None = None,
    device: torch.device | None = None,
    ranked: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scored:
    """Predict every target event of ``users`` in a window, then apply it.

    Parameters
    ----------
    window_ms
        ``since <= time < until``, epoch milliseconds.
    timed
        Whether the network is told the time of the request.
    reranker
        The model's trees; they need the time.
    ranked
        False leaves the basket metrics out (NaN), where only probabilities are wanted.
    progress
        Called with the users done and all.
    """
    where = device or _CPU
    network.eval()
    items = None
    if network.items > sampled_softmax.FULL_ITEMS:
        items = ItemArrays.of(network, maker.memory)
    now = AsOfNow(network, maker.prepared.histories, reranker)
    parts = list[Scored]()
    ordered = users[np.argsort(maker.prepared.histories.lengths()[users], kind="stable")]
    with torch.no_grad(), autocast(where):
        for begin in range(0, len(ordered), USERS_PER_PASS):
            progress(begin, len(ordered))
            some = ordered[begin : begin + USERS_PER_PASS]
            example = move(maker.evaluation(some, *window_ms, timed=timed), where)
            flat = network.unroll(example.events).flatten(0, 1)
            at_moments = network.vector(flat[example.moment_index], example.moments)
            u = network.vector(flat[example.request_index], example.requests)
            parts.append(
                Scored(
                    _metrics(network, items, u, example, now if timed else None)
                    if ranked
                    else np.full((len(u), 4), np.nan),
                    example.users,
                    example.answers,
                    torch.sigmoid(network.outcome_logits(at_moments).float()).cpu().numpy(),
                    example.labels.cpu().numpy(),
                    example.moment_rows,
                )
            )
    names = ("metrics", "users", "answers", "probabilities", "labels", "moment_rows")
    if not parts:
        rows, probabilities = np.zeros(0, np.int64), np.zeros((0, len(OUTCOMES)), np.float32)
        return Scored(np.zeros((0, 4)), rows, rows, probabilities, probabilities, rows)
    return Scored(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))


def _metrics(
    network: PortraitNetwork,
    items: ItemArrays | None,
    u: torch.Tensor,
    example: Example,
    now: AsOfNow | None,
) -> Doubles:
    """Return the basket metrics of an example, shape (P, 4); ``items`` where there are many."""
    on_cpu = move(example.targets, _CPU)
    if items is None:
        assert not isinstance(example.memory, SparseReading)
        scores = network.scores(u, example.pairs, example.requests, example.memory)
        if now is not None and now.moves and example.tables is not None:
            at_ms = now.histories.time_ms[example.answers]
            logits = network.logits(u, example.pairs)
            scores = now.move(scores, logits, example.tables, at_ms)
        return ranking_metrics(scores.float().cpu(), on_cpu)
    sparse = example.memory if isinstance(example.memory, SparseReading) else None
    queries = Queries.of(
        network, u, example.pairs, example.requests.statistics[:, 0], sparse, network.mixing
    )
    return metrics_of(ranks(items, queries, example.targets), on_cpu)
