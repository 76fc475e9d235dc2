"""Selection of channels beside a network, and their weights: by the validation period."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from training.evaluation.baselines import EvaluationWindow, window
from training.evaluation.metrics import Doubles, Interval, bootstrap, metrics_of, ranking_metrics
from training.history.prepared import Prepared
from training.history.sequences import Ints
from training.history.vocabulary import DENSE_ITEMS
from training.neighbours.channels import CHANNELS, COUNT, Channels, SparseReading
from training.network import mixture, sampled_softmax
from training.network.batches import make_targets
from training.network.config import TrainConfig
from training.network.examples import BasketRequests, Example, ExampleMaker
from training.network.network import PortraitNetwork
from training.network.sampled_softmax import Shares, draw
from training.network.stacking import Piece, Stacking
from training.scoring.retrieval import ItemArrays, Queries, ranks
from training.state.item_table import Rows

PIECE: Final = 256
"""Requests asked at once."""
DRAWS: Final = 2000
"""Draws that stand for all items where there are more than `DENSE_ITEMS`."""
MAX_NUMBERS: Final = 120_000_000
"""Most numbers that fitting holds: requests · (M + 1) · items."""
SHARES_ON: Final = 1500
"""Most requests of each half of the period that the mixture's shares are fitted on."""
GAIN_ON: Final = 4000
"""Most requests on which it is seen whether memories pay."""


def weigh(
    network: PortraitNetwork, prepared: Prepared
) -> tuple[Channels | None, dict[str, float] | None]:
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
    memory = Channels.fit(prepared.histories, prepared.train_until_ms, items)
    told = fit_mixing(network, prepared, memory)
    if told["used"]:
        return memory, told
    network.without_memories()
    return None, told


def fit_mixing(
    network: PortraitNetwork,
    prepared: Prepared,
    memory: Channels,
    *,
    seen: bool = False,
    always: bool = False,
) -> dict[str, float]:
    """Set the weights of the memories by the validation period; see `training.network.stacking`.

    Whether they count at all is the data's to decide, by weights fitted on the first half of the
    period and asked of the second. The weighed sum has to raise NDCG@10 there, the 95 % interval of
    the gain above 0. The mixture (`network.mixture`; up to `FULL_ITEMS` items) has to
    raise the likelihood, its interval above 0, and must not lower NDCG@10, its interval below 0.

    Parameters
    ----------
    seen
        Set them by the training period instead, which network and memories were fitted on.
    always
        Set both without asking whether they pay. Both are for ablations.

    Returns
    -------
    dict
        On the second half, ``gain`` and ``gain_at_least`` of the sum, and ``mixture_gain`` of the
        mixture beside it, with its ``mixture_gain_at_most`` and ``mixture_likelihood_at_least``;
        ``added``, ``mixture`` and ``used`` (0 or 1: sum, mixture, either); of the sum, the loss of
        the ``network`` alone and ``mixed``.
    """
    assert network.mixing is not None
    histories, since, until = prepared.histories, prepared.train_until_ms, prepared.until_ms
    requests = window(histories, *((-(2**62), since) if seen else (since, until)))
    order = np.argsort(histories.time_ms[requests.event], kind="stable")
    maker = ExampleMaker(prepared, network.config, TrainConfig(), memory)
    asker = Asker(network, maker, requests, histories.lengths()[requests.user])
    parts = (order[: len(order) // 2], order[len(order) // 2 :])
    told = {"added": 1.0, "mixture": float(asker.dense)} if always else _ask(asker, *parts)
    mixing = network.mixing
    if told["added"]:
        told["network"], told["mixed"] = asker.fit(mixing, parts)
    if told["mixture"]:
        asker.fit_shares(mixing, parts, added=bool(told["added"]))
    return {**told, "used": max(told["added"], told["mixture"])}


def _ask(asker: "Asker", first: Ints, second: Ints) -> dict[str, float]:
    """Return whether the sum and the mixture pay, and by how much."""
    trial = Stacking()
    asker.fit(trial, [first])
    gain = asker.gain(second, trial, None)[0]
    told = {"gain": gain.mean, "gain_at_least": gain.low, "added": float(gain.low > 0)}
    told["mixture"] = 0.0
    if not asker.dense:
        return told
    added = copy.deepcopy(trial) if told["added"] else Stacking()
    trial = copy.deepcopy(added)
    asker.fit_shares(trial, [first], added=bool(told["added"]))
    gain, likelihood = asker.gain(second, trial, added)
    return {
        **told,
        "mixture": float(likelihood.low > 0 and gain.high >= 0),
        "mixture_gain": gain.mean,
        "mixture_gain_at_most": gain.high,
        "mixture_likelihood_at_least": likelihood.low,
    }


@dataclass(frozen=True)
class DenseAnswers:
    """Scores of every item at some requests, and the events that answer these, shape (P,).

    Attributes
    ----------
    tables
        Repeat table at each request.
    """

    full: Piece
    shares: Shares
    event: Ints
    tables: Rows | None

    def piece(self) -> Piece:
        """Return it for fitting, candidates that stand for all where there are many items."""
        full = replace(self.full, memory=self.full.memory[:, :COUNT])
        if full.base.shape[1] <= DENSE_ITEMS:
            return full
        found = draw(self.shares, full.targets, DRAWS)
        return replace(
            full, base=full.base[:, found.items], memory=full.memory[:, :, found.items],
            candidates=found,
        )  # fmt: skip

    def quality(self, mixing: Stacking | None) -> Doubles:
        """Return NDCG@10 and the mean log probability of the targets, shape (P, 2).

        All items are ranked, with weights or by the network alone.
        """
        full, targets = self.full, self.full.targets
        with torch.no_grad():
            scores = full.base
            if mixing is not None:
                scores = mixing(full.base, full.memory, full.log_events)
            line = torch.log_softmax(scores, dim=1)[targets.owner, targets.item]
            total = line.new_zeros(len(scores)).index_add_(0, targets.owner, line)
        log_probability = (total / targets.sizes.clamp(min=1)).double().numpy()
        return np.stack([ranking_metrics(scores, targets)[:, 0], log_probability], axis=1)

    def scores(self, network: PortraitNetwork) -> Tensor:
        """Return the network's scores as they are served, shape (P, N)."""
        full = self.full
        if network.mixing is None:
            return full.base
        with torch.no_grad():
            out: Tensor = network.mixing(full.base, full.memory, full.log_events)
        return out

    def ask_experts(self, mixing: Stacking) -> tuple[Tensor, Tensor]:
        """Return what every expert gave to each target line, and the lines' weights."""
        full = self.full
        with torch.no_grad():
            added = mixing.weigh(full.base, full.memory, full.log_events)
            found = mixture.of_targets(
                added, full.base, full.memory, full.targets, once=bool(mixing.once)
            )
        return found, mixture.line_weights(full.targets)

    def repeats(self) -> Tensor:
        """Return which target lines were in the history, shape (L,)."""
        targets = self.full.targets
        return self.full.memory[targets.owner, mixture.IN_HISTORY, targets.item] > 0


@dataclass(frozen=True)
class _Sparse:
    """Of very many items, what scores are made of; ``back`` is the order asked for, shape (P,).

    Asked as `DenseAnswers` is; log probabilities are 0.
    """

    network: PortraitNetwork
    memory: Channels
    items: ItemArrays
    u: Tensor
    example: Example
    back: Ints
    shares: Shares

    def piece(self) -> Piece:
        example = self.example
        found = draw(self.shares, example.targets, DRAWS)
        with torch.no_grad():
            base = self.network.logits_of(found.items, self.u, example.pairs)
        sparse = self._to_sparse()
        memory = base.new_zeros(len(base), COUNT, base.shape[1])
        index = torch.searchsorted(found.items, sparse.item).clamp(max=len(found.items) - 1)
        among = found.items[index] == sparse.item
        memory[sparse.owner[among], : len(CHANNELS), index[among]] = sparse.value[among]
        memory[:, len(CHANNELS) :] = torch.from_numpy(self.memory.popularity)[:, found.items]
        return Piece(base, memory, example.requests.statistics[:, 0], example.targets, found)

    def quality(self, mixing: Stacking | None) -> Doubles:
        example = self.example
        with torch.no_grad():
            queries = Queries.of(
                self.network, self.u, example.pairs, example.requests.statistics[:, 0],
                self._to_sparse(), mixing,
            )  # fmt: skip
            found = ranks(self.items, queries, example.targets)
        ndcg = metrics_of(found, example.targets)[self.back, 0]
        return np.stack([ndcg, np.zeros(len(ndcg))], axis=1)

    def _to_sparse(self) -> SparseReading:
        assert isinstance(self.example.memory, SparseReading)
        return self.example.memory


class Asker:
    """Asks a network and memories, in pieces that fit into memory, at requests of a window."""

    def __init__(
        self,
        network: PortraitNetwork,
        maker: ExampleMaker,
        requests: EvaluationWindow,
        lengths: Ints,
        *,
        timed: bool = False,
    ) -> None:
        self.network, self.maker, self._requests = network, maker, requests
        self._timed = timed
        self._lengths = lengths
        self._shares = Shares.of(maker.prepared.vocabulary.log_support)
        self.dense = network.items <= sampled_softmax.FULL_ITEMS
        self._items = None if self.dense else ItemArrays.of(network, maker.memory)
        network.eval()

    def fit(self, mixing: Stacking, parts: Sequence[Ints]) -> tuple[float, float]:
        """Weigh by parts of the window; see `training.network.stacking.Stacking.fit`."""
        items = min(self.network.items, DENSE_ITEMS)
        most = max(2 * PIECE, MAX_NUMBERS // ((COUNT + 1) * items)) // 2
        return mixing.fit([a.piece() for rows in parts for a in self.ask(rows, most)])

    def fit_shares(self, mixing: Stacking, parts: Sequence[Ints], *, added: bool) -> None:
        """Set the shares of the experts by parts of the window."""
        first = [a for rows in parts for a in self.ask(rows, PIECE) if isinstance(a, DenseAnswers)]
        repeats = torch.cat([a.repeats() for a in first]).float().mean()
        mixing.once.fill_(float(repeats < mixture.REPEATS_FROM))
        answers = (a for rows in parts for a in self.ask(rows, SHARES_ON))
        found = [a.ask_experts(mixing) for a in answers if isinstance(a, DenseAnswers)]
        given, weight = (torch.cat(one) for one in zip(*found, strict=True))
        usable = [True, added, *[True] * (mixture.COUNT_EXPERTS - 2)]
        mixing.shares.copy_(mixture.fit(given, weight, usable))

    def gain(
        self, rows: Ints, mixing: Stacking, over: Stacking | None
    ) -> tuple[Interval, Interval]:
        """Return what weights add to NDCG@10 and log probability, over others or none."""
        found = [a.quality(mixing) - a.quality(over) for a in self.ask(rows, GAIN_ON)]
        gains = np.nan_to_num(np.concatenate(found))
        user = self._requests.user[self.sample(rows, GAIN_ON)]
        return bootstrap(gains[:, 0], user), bootstrap(gains[:, 1], user)

    def sample(self, rows: Ints, most: int) -> Ints:
        """Return at most so many rows, evenly spread, those of like lengths together."""
        some = rows[:: max(1, -(-len(rows) // most))]
        return some[np.argsort(self._lengths[some], kind="stable")]

    def ask(self, rows: Ints, most: int) -> Iterator["DenseAnswers | _Sparse"]:
        """Yield the answers to a sample of a window's rows."""
        some = self.sample(rows, most)
        for begin in range(0, len(some), PIECE):
            part = some[begin : begin + PIECE]
            yield self._answer(self._requests.user[part], self._requests.event[part])

    def _answer(self, user: Ints, event: Ints) -> "DenseAnswers | _Sparse":
        prepared, network, memory = self.maker.prepared, self.network, self.maker.memory
        users = np.unique(user)
        requests = BasketRequests(user, event - 1, event, np.full(len(user), self._timed))
        lengths = prepared.histories.lengths()[users]
        with torch.no_grad():
            example = self.maker.make(users, requests, np.zeros(0, np.int64), lengths)
            flat = network.unroll(example.events).flatten(0, 1)
            u = network.vector(flat[example.request_index], example.requests)
        # The batch stands by index in the history: put it back into the order asked for.
        rank = np.argsort(np.argsort(event, kind="stable"), kind="stable")
        back = np.argsort(example.answers, kind="stable")[rank]
        if self._items is not None:
            assert memory is not None
            return _Sparse(network, memory, self._items, u, example, back, self._shares)
        with torch.no_grad():
            base = network.logits(u, example.pairs)[back]
        reading = base.new_zeros(len(base), 0, base.shape[1])  # of a network without memories
        if isinstance(example.memory, Tensor):
            reading = example.memory[back]
        log_events = example.requests.statistics[back, 0]
        targets = make_targets(prepared.histories, event)
        piece = Piece(base, reading, log_events, targets)
        tables = None if example.tables is None else example.tables.select(back)
        return DenseAnswers(piece, self._shares, event, tables)
