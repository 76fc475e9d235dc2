"""Live popularity beside a network: whether it pays, and its weights, by the validation period."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from training.evaluation.baselines import window
from training.evaluation.metrics import Doubles, bootstrap, ranking_metrics
from training.fit.selection import MAX_NUMBERS, Asker, DenseAnswers
from training.history.prepared import Prepared
from training.history.sequences import Ints
from training.history.vocabulary import FULL_ITEMS
from training.neighbours.channels import Channels
from training.neighbours.live_counts import COUNT_HALF_LIVES_DAYS, LiveCounts
from training.network.config import TrainConfig
from training.network.examples import ExampleMaker
from training.network.live_popularity import LivePiece, LivePopularity
from training.network.network import PortraitNetwork

FITTED_ON: Final = 1500
"""Most requests of each half of the period that weights are fitted on, or tried on."""


def fit_live(
    network: PortraitNetwork, prepared: Prepared, memory: Channels | None
) -> dict[str, float] | None:
    """Set the weights of `network.live_popularity` where it pays; else they stay 0.

    It pays where weights fitted on the first half of the validation period raise NDCG@10 on the
    second, the 95 % interval of the gain above 0. Counts are as of each request.

    Returns
    -------
    dict
        On the second half ``gain`` and ``gain_at_least``, and whether it is ``used`` (0 or 1);
        None where it cannot be had: of a recipe without it, of more than
        `network.sampled_softmax.FULL_ITEMS` items, or without requests or counted events.
    """
    live, histories = network.live, prepared.histories
    if live is None or network.items > FULL_ITEMS:
        return None
    requests = window(histories, prepared.train_until_ms, prepared.until_ms)
    counts = LiveCounts.of(histories, network.items)
    users = torch.from_numpy(counts.users_at(prepared.train_until_ms))
    if not users.all() or len(requests.event) < 2:
        return None
    maker = ExampleMaker(prepared, network.config, TrainConfig(), memory)
    asker = Asker(network, maker, requests, histories.lengths()[requests.user])
    order = np.argsort(histories.time_ms[requests.event], kind="stable")
    trial = LivePopularity()
    for each in (trial, live):
        each.users.copy_(users)
    first, second = (_Tried.of(asker, counts, trial, rows) for rows in np.array_split(order, 2))
    trial.fit(first.pieces)
    gain = bootstrap(second.gains(trial), requests.user[second.rows])
    used = gain.low > 0
    if used:
        live.fit([*first.pieces, *second.pieces])
    return {"gain": gain.mean, "gain_at_least": gain.low, "used": float(used)}


@dataclass(frozen=True)
class _Tried:
    """Requests, and what the network answers without live popularity."""

    pieces: list[LivePiece]
    rows: Ints

    @classmethod
    def of(cls, asker: Asker, counts: LiveCounts, live: LivePopularity, rows: Ints) -> "_Tried":
        """Ask a sample of some rows of the window."""
        half_lives = len(COUNT_HALF_LIVES_DAYS)
        most = min(FITTED_ON, MAX_NUMBERS // (2 * (half_lives + 1) * counts.items))
        pieces, histories = list[LivePiece](), asker.maker.prepared.histories
        for found in asker.ask(rows, most):
            assert isinstance(found, DenseAnswers)
            logs = live.logs(counts.at(histories.time_ms[found.event]))
            pieces.append(
                LivePiece(found.scores(asker.network), torch.from_numpy(logs), found.full.targets)
            )
        return cls(pieces, asker.sample(rows, most))

    def gains(self, live: LivePopularity) -> Doubles:
        """Return what live popularity adds to the NDCG@10 of each request, shape (P,)."""
        found = list[Doubles]()
        for piece in self.pieces:
            with torch.no_grad():
                moved = piece.scores + torch.einsum("h,phn->pn", live.weights, piece.logs)
                both = [ranking_metrics(s, piece.targets)[:, 0] for s in (moved, piece.scores)]
            found.append(both[0] - both[1])
        return np.nan_to_num(np.concatenate(found))
