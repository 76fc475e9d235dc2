"""Whether memories count beside a network, and how much: asked of the validation period."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor

from training import sampled
from training.baselines import Window, window
from training.batches import Targets, make_targets
from training.config import TrainConfig
from training.examples import Asked, Example, ExampleMaker
from training.memory import CHANNELS, COUNT, Memory, Touched
from training.metrics import Doubles, bootstrap, metrics_of, ranking_metrics
from training.mixing import Mixing, Piece
from training.network import PortraitNetwork
from training.prepared import Prepared
from training.retrieval import Items, Queries, ranks
from training.sampled import Shares, draw
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
    pieces = [answer.piece() for answer in asker.ask(asked, first)]
    told, mixing = dict[str, float](), network.mixing
    if not always:
        trial = Mixing()
        trial.fit(pieces)
        later = _sample(order[cut:], GAIN_ON, lengths)
        gains = [answer.gain(trial) for answer in asker.ask(asked, later)]
        found = bootstrap(np.nan_to_num(np.concatenate(gains)), asked.user[later])
        told = {"gain": found.mean, "gain_at_least": found.low}
        if found.low <= 0:
            return {**told, "used": 0.0}
        second = _sample(order[cut:], fitted_on // 2, lengths)
        pieces += [answer.piece() for answer in asker.ask(asked, second)]
    before, after = mixing.fit(pieces)
    return {**told, "used": 1.0, "network": before, "mixed": after}


def _sample(rows: Ints, most: int, lengths: Ints) -> Ints:
    """Return at most so many rows, evenly spread, those of like lengths together."""
    some = rows[:: max(1, -(-len(rows) // most))]
    return some[np.argsort(lengths[some], kind="stable")]


class _Answer(Protocol):
    """What network and memories answer to some requests."""

    def piece(self) -> Piece:
        """Return it for fitting, candidates that stand for all where there are many items."""
        ...

    def gain(self, trial: Mixing) -> Doubles:
        """Return what weights add to NDCG@10, all items ranked, shape (P,)."""
        ...


@dataclass(frozen=True)
class _Dense:
    """Scores of every item."""

    full: Piece
    shares: Shares

    def piece(self) -> Piece:
        full = self.full
        if full.base.shape[1] <= FULL_ITEMS:
            return full
        found = draw(self.shares, full.targets, DRAWS)
        return replace(
            full, base=full.base[:, found.items], memory=full.memory[:, :, found.items],
            candidates=found,
        )  # fmt: skip

    def gain(self, trial: Mixing) -> Doubles:
        full = self.full
        with torch.no_grad():
            mixed = trial(full.base, full.memory, full.log_events)
        return _ndcg(mixed, full.targets) - _ndcg(full.base, full.targets)


@dataclass(frozen=True)
class _Sparse:
    """Of very many items, what scores are made of; ``back`` is the order asked for, shape (P,)."""

    network: PortraitNetwork
    memory: Memory
    items: Items
    u: Tensor
    example: Example
    back: Ints
    shares: Shares

    def piece(self) -> Piece:
        example = self.example
        found = draw(self.shares, example.targets, DRAWS)
        with torch.no_grad():
            base = self.network.logits_of(found.items, self.u, example.pairs)
        touched = self._touched()
        memory = base.new_zeros(len(base), COUNT, base.shape[1])
        place = torch.searchsorted(found.items, touched.item).clamp(max=len(found.items) - 1)
        among = found.items[place] == touched.item
        memory[touched.owner[among], : len(CHANNELS), place[among]] = touched.value[among]
        memory[:, len(CHANNELS) :] = torch.from_numpy(self.memory.popularity)[:, found.items]
        return Piece(base, memory, example.requests.statistics[:, 0], example.targets, found)

    def gain(self, trial: Mixing) -> Doubles:
        return (self._ndcg(trial) - self._ndcg(None))[self.back]

    def _ndcg(self, mixing: Mixing | None) -> Doubles:
        example = self.example
        with torch.no_grad():
            queries = Queries.of(
                self.network, self.u, example.pairs, example.requests.statistics[:, 0],
                self._touched(), mixing,
            )  # fmt: skip
            found = ranks(self.items, queries, example.targets)
        return metrics_of(found, example.targets)[:, 0]

    def _touched(self) -> Touched:
        assert isinstance(self.example.memory, Touched)
        return self.example.memory


def _ndcg(scores: Tensor, targets: Targets) -> Doubles:
    return ranking_metrics(scores, targets)[:, 0]


class _Asker:
    """Asks a network and memories in pieces that fit into memory."""

    def __init__(self, network: PortraitNetwork, maker: ExampleMaker) -> None:
        self._network, self._maker = network, maker
        self._shares = Shares.of(maker.prepared.vocabulary.log_support)
        many = network.items > sampled.FULL_ITEMS
        self._items = Items.of(network, maker.memory) if many else None
        network.eval()

    def ask(self, asked: Window, rows: Ints) -> Iterator[_Answer]:
        """Yield the answers to some rows of a window, in their order."""
        for begin in range(0, len(rows), PIECE):
            part = rows[begin : begin + PIECE]
            yield self._answer(asked.user[part], asked.event[part])

    def _answer(self, user: Ints, event: Ints) -> _Answer:
        prepared, network, memory = self._maker.prepared, self._network, self._maker.memory
        users = np.unique(user)
        requests = Asked(user, event - 1, event, np.zeros(len(user), np.bool_))
        lengths = prepared.histories.lengths()[users]
        with torch.no_grad():
            example = self._maker.make(users, requests, np.zeros(0, np.int64), lengths)
            flat = network.unroll(example.events).flatten(0, 1)
            u = network.vector(flat[example.place], example.requests)
        # The batch stands by place in the history: put it back into the order asked for.
        place = np.argsort(np.argsort(event, kind="stable"), kind="stable")
        back = np.argsort(example.answers, kind="stable")[place]
        if self._items is not None:
            assert memory is not None
            return _Sparse(network, memory, self._items, u, example, back, self._shares)
        assert isinstance(example.memory, Tensor)
        with torch.no_grad():
            base = network.logits(u, example.pairs)[back]
        log_events = example.requests.statistics[back, 0]
        targets = make_targets(prepared.histories, event)
        return _Dense(Piece(base, example.memory[back], log_events, targets), self._shares)
