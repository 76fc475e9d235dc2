"""Whether memories count beside a network, and how much: asked of the validation period."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from training.baselines import Window, window
from training.batches import make_targets
from training.config import TrainConfig
from training.examples import Asked, ExampleMaker
from training.memory import COUNT, Memory
from training.metrics import Doubles, bootstrap, ranking_metrics
from training.mixing import Mixing, Piece
from training.network import PortraitNetwork
from training.prepared import Prepared
from training.sampled import draw
from training.sequences import Ints

PIECE: Final = 256
"""Requests asked at once."""
FULL_ITEMS: Final = 4000
DRAWS: Final = 2000
"""Draws that stand for all items where there are more than `FULL_ITEMS`."""
MAX_NUMBERS: Final = 120_000_000
"""Most numbers that fitting holds: requests · (M + 1) · items."""
GAIN_ON: Final = 4000
"""Most requests on which it is seen whether memories pay."""


def weigh(
    network: PortraitNetwork, prepared: Prepared
) -> tuple[Memory | None, dict[str, float] | None]:
    """Fit memories to a network and keep them if they pay.

    Returns
    -------
    tuple
        The memories, or None where the network stands better alone (it is then told so); and
        what `fit_mixing` gave, None for a network without.
    """
    if network.mixing is None:
        return None, None
    items = len(prepared.vocabulary.items)
    memory = Memory.fit(prepared.histories, prepared.train_until_ms, items)
    told = fit_mixing(network, prepared, memory)
    if told["used"]:
        return memory, told
    network.without_memories()
    return None, told


def fit_mixing(
    network: PortraitNetwork,
    prepared: Prepared,
    memory: Memory,
    *,
    seen: bool = False,
    always: bool = False,
) -> dict[str, float]:
    """Set the weights of the memories by the validation period; see `training.mixing`.

    Whether they count at all is the data's to decide: weights fitted on the first half of the
    period must raise NDCG@10 on the second, the 95 % interval of the gain above 0.

    Parameters
    ----------
    seen
        Set them by the training period instead, which network and memories were fitted on.
    always
        Set them without asking whether they pay. Both are for ablations.

    Returns
    -------
    dict
        ``gain`` on the second half and its lower bound ``gain_at_least``; ``used`` (0 or 1); where
        they are, the loss of the ``network`` alone and ``mixed``.
    """
    assert network.mixing is not None
    histories, since, until = prepared.histories, prepared.train_until_ms, prepared.until_ms
    asked = window(histories, *((-(2**62), since) if seen else (since, until)))
    order = np.argsort(histories.time_ms[asked.event], kind="stable")
    items = min(len(prepared.vocabulary.items), FULL_ITEMS)
    fitted_on = max(2 * PIECE, MAX_NUMBERS // ((COUNT + 1) * items))
    lengths = histories.lengths()[asked.user]
    asker = _Asker(network, ExampleMaker(prepared, network.config, TrainConfig(), memory))
    cut = len(order) if always else len(order) // 2
    first = _sample(order[:cut], fitted_on if always else fitted_on // 2, lengths)
    pieces = [asker.reduced(full) for full in asker.ask(asked, first)]
    told, mixing = dict[str, float](), network.mixing
    if not always:
        trial, gains = Mixing(), list[Doubles]()
        trial.fit(pieces)
        later = _sample(order[cut:], GAIN_ON, lengths)
        for full in asker.ask(asked, later):
            with torch.no_grad():
                mixed = trial(full.base, full.memory, full.log_events)
            gains.append(_ndcg(mixed, full) - _ndcg(full.base, full))
        found = bootstrap(np.nan_to_num(np.concatenate(gains)), asked.user[later])
        told = {"gain": found.mean, "gain_at_least": found.low}
        if found.low <= 0:
            return {**told, "used": 0.0}
        second = _sample(order[cut:], fitted_on // 2, lengths)
        pieces += [asker.reduced(full) for full in asker.ask(asked, second)]
    before, after = mixing.fit(pieces)
    return {**told, "used": 1.0, "network": before, "mixed": after}


def _sample(rows: Ints, most: int, lengths: Ints) -> Ints:
    """Return at most so many rows, evenly spread, those of like lengths together."""
    some = rows[:: max(1, -(-len(rows) // most))]
    return some[np.argsort(lengths[some], kind="stable")]


def _ndcg(scores: Tensor, piece: Piece) -> Doubles:
    return ranking_metrics(scores, piece.targets)[:, 0]


class _Asker:
    """Asks a network and memories in pieces that fit into memory."""

    def __init__(self, network: PortraitNetwork, maker: ExampleMaker) -> None:
        self._network, self._maker = network, maker
        support = torch.from_numpy(maker.prepared.vocabulary.log_support)
        self._share = torch.softmax(support, 0)
        network.eval()

    def ask(self, asked: Window, rows: Ints) -> Iterator[Piece]:
        """Yield the answers to some rows of a window, in their order, all items each."""
        for begin in range(0, len(rows), PIECE):
            part = rows[begin : begin + PIECE]
            yield self._piece(asked.user[part], asked.event[part])

    def _piece(self, user: Ints, event: Ints) -> Piece:
        prepared, network = self._maker.prepared, self._network
        users = np.unique(user)
        requests = Asked(user, event - 1, event, np.zeros(len(user), np.bool_))
        lengths = prepared.histories.lengths()[users]
        with torch.no_grad():
            example = self._maker.make(users, requests, np.zeros(0, np.int64), lengths)
            flat = network.unroll(example.events).flatten(0, 1)
            u = network.vector(flat[example.place], example.requests)
            base = network.logits(u, example.pairs)
        assert example.memory is not None
        # The batch stands by place in the history: put it back into the order asked for.
        place = np.argsort(np.argsort(event, kind="stable"), kind="stable")
        back = torch.from_numpy(np.argsort(example.answers, kind="stable")[place])
        log_events = example.requests.statistics[back, 0]
        targets = make_targets(prepared.histories, event)
        return Piece(base[back], example.memory[back], log_events, targets)

    def reduced(self, full: Piece) -> Piece:
        """Keep candidates that stand for all, where there are many items."""
        if full.base.shape[1] <= FULL_ITEMS:
            return full
        found = draw(self._share, full.targets, DRAWS)
        return replace(
            full, base=full.base[:, found.items], memory=full.memory[:, :, found.items],
            candidates=found,
        )  # fmt: skip
