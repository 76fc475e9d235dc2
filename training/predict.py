"""Answers of a network along whole histories: what validation and evaluation read."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from training.baselines import window
from training.config import TrainConfig
from training.devices import autocast, move
from training.examples import Asked, ExampleMaker
from training.memory import COUNT, Memory
from training.metrics import ranking_metrics
from training.mixing import MAX_NUMBERS
from training.network import PortraitNetwork
from training.prepared import Prepared
from training.sequences import Ints

USERS_PER_PASS = 64
_CPU = torch.device("cpu")


def auc(labels: npt.NDArray[Any], scores: npt.NDArray[Any]) -> float:
    """Return the area under the ROC curve; 0.5 when one class is absent.

    Examples
    --------
    >>> auc(np.array([0, 0, 1, 1], np.float32), np.array([1, 3, 2, 4], np.float32))
    0.75
    """
    positive = labels > 0
    pairs = int(positive.sum()) * int((~positive).sum())
    if not pairs:
        return 0.5
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    won = ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2
    return float(won / pairs)


@dataclass(frozen=True)
class Scored:
    """What a network answered in a window: basket metrics and purchase chances."""

    metrics: npt.NDArray[np.float64]
    users: Ints
    answers: Ints
    chances: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    moment_rows: Ints


def score_window(
    network: PortraitNetwork,
    maker: ExampleMaker,
    users: Ints,
    window_ms: tuple[int, int],
    *,
    timed: bool,
    device: torch.device | None = None,
) -> Scored:
    """Predict every target event of ``users`` in a window, then apply it.

    Parameters
    ----------
    window_ms
        ``since <= time < until``, epoch milliseconds.
    timed
        Whether the network is told the time of the request.
    """
    where = device or _CPU
    network.eval()
    parts = list[Scored]()
    ordered = users[np.argsort(maker.prepared.histories.lengths()[users], kind="stable")]
    with torch.no_grad(), autocast(where):
        for begin in range(0, len(ordered), USERS_PER_PASS):
            some = ordered[begin : begin + USERS_PER_PASS]
            example = move(maker.evaluation(some, *window_ms, timed=timed), where)
            flat = network.unroll(example.events).flatten(0, 1)
            asked = network.vector(flat[example.moment_place], example.moments)
            u = network.vector(flat[example.place], example.requests)
            scores = network.scores(u, example.pairs, example.requests, example.memory)
            parts.append(
                Scored(
                    ranking_metrics(scores.float().cpu(), move(example.targets, _CPU)),
                    example.users,
                    example.answers,
                    torch.sigmoid(network.propensity(asked).float()).cpu().numpy(),
                    example.labels.cpu().numpy(),
                    example.moment_rows,
                )
            )
    names = ("metrics", "users", "answers", "chances", "labels", "moment_rows")
    if not parts:
        rows, chances = np.zeros(0, np.int64), np.zeros(0, np.float32)
        return Scored(np.zeros((0, 4)), rows, rows, chances, chances, rows)
    return Scored(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))


def fit_mixing(
    network: PortraitNetwork, prepared: Prepared, memory: Memory, *, seen: bool = False
) -> dict[str, float]:
    """Set the weights of the memories by the validation period; see `training.mixing`.

    Parameters
    ----------
    seen
        Set them by the training period instead, which network and memories were fitted on: an
        ablation.

    Returns
    -------
    dict
        Loss before and after, by name.
    """
    assert network.mixing is not None
    maker = ExampleMaker(prepared, network.config, TrainConfig(), memory)
    since, until = (prepared.train_until_ms, prepared.until_ms)
    asked = window(prepared.histories, *((-(2**62), since) if seen else (since, until)))
    most = max(100, MAX_NUMBERS // ((COUNT + 1) * len(prepared.vocabulary.items)))
    stride = max(1, -(-len(asked.event) // most))
    event, user = asked.event[::stride], asked.user[::stride]
    network.eval()
    users = np.unique(user)
    requests = Asked(user, event - 1, event, np.zeros(len(event), np.bool_))
    none = np.zeros(0, np.int64)
    with torch.no_grad():
        example = maker.make(users, requests, none, prepared.histories.lengths()[users])
        flat = network.unroll(example.events).flatten(0, 1)
        u = network.vector(flat[example.place], example.requests)
        base = network.logits(u, example.pairs)
    assert example.memory is not None
    before, after = network.mixing.fit(
        base, example.memory, example.requests.statistics[:, 0], example.targets
    )
    return {"network": before, "mixed": after}
