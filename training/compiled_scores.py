"""Scores of one shopper at a time by compiled code, where it gives what torch gives.

`CompiledScores.of` compares the loops of `request_step` with the network on made-up shoppers
and gives nothing if they differ: a network whose equations change is served by torch until the
loops follow. Belongs here: that comparison, and weights as arrays. Not here: the loops.
"""

from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import torch

from training import experts
from training.memory import CHANNELS, PLACES
from training.model_dir import Model
from training.network import make_requests, statistics
from training.pair import make_pairs
from training.repeat import EVENTS, FIRST_MS, KNOWN, LAST_MS, LAST_SIZE, ROW, SIZE_SUM, USED, Rows
from training.request_step import (
    PairWeights,
    VectorWeights,
    add_evidence,
    add_pairs,
    add_rows,
    profile_vector,
)  # fmt: skip
from training.state import Layout, LearnedStates

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
TOLERANCE: Final = 1e-4
"""Largest difference to torch, in scores of the size of ten."""
_NONE: Final = np.zeros(0, np.int64)
_LINEAR: Final = np.float32(20)  # torch's softplus is the identity from here on


class CompiledScores:
    """Scores of one shopper at a time; made by `of`."""

    def __init__(self, model: Model) -> None:
        network = model.network
        self._model = model
        self._hidden = network.encoder.hidden
        self._vector = _vector_weights(network)
        self._pair = None if network.pair is None else _pair_weights(model)
        self._items = network.item_vectors().detach()
        with torch.inference_mode():
            self._bias = network.logits(torch.zeros(1, network.config.dim), None)[0]
        mixing = network.mixing
        if mixing is not None:
            alpha, beta = mixing.weights.detach().numpy().T
            self._mixing = alpha, beta, float(mixing.range[0]), float(mixing.range[1])
            self._shares = mixing.shares.tolist() if mixing.mixture else []
            self._once = bool(mixing.once)
        self._channels = [
            (kind, np.array([m for m, channel in enumerate(CHANNELS) if channel.rows == kind]))
            for kind in dict.fromkeys(channel.rows for channel in CHANNELS)
        ]

    @classmethod
    def of(cls, model: Model) -> Self | None:
        """Return the compiled scores of a model; None if they are not torch's."""
        if model.config.recipe == "stacked":
            return None
        try:
            made = cls(model)
            return made if made._agrees() else None
        except (AttributeError, TypeError, ValueError):  # another network than this file knows
            return None

    def scores(
        self, scalars: Doubles, floats: Floats, rows: Any, now_ms: float, *, timed: bool,
        features: Floats,
    ) -> Floats:  # fmt: skip
        """Return the score of every item, shape (N,).

        Parameters
        ----------
        scalars, floats, rows
            Of one state: shapes (8,), (K + 2H,) and the occupied rows of the repeat table.
        now_ms, timed
            Time of the request, and whether it counts.
        features
            Standardised user features, shape (F,).
        """
        summary = statistics(scalars[None])[0]
        u = profile_vector(
            self._vector, floats, self._hidden, scalars, summary, features, now_ms, timed
        )
        # By torch: it keeps to the number of threads it is told.
        scores: Floats = torch.addmv(self._bias, self._items, torch.from_numpy(u)).numpy()
        if self._pair is not None and len(rows):
            add_pairs(scores, self._pair, u, rows, scalars, now_ms)
        memory, mixing = self._model.memory, self._model.network.mixing
        if memory is None or mixing is None:
            return scores
        weight, logits = self._weights(float(summary[0])), scores.copy()
        scores *= weight[0]
        for kind, channels in self._channels:
            table = memory.tables[kind]
            add_rows(
                scores, channels, weight[1:], rows, scalars, table.indptr, table.item, table.value
            )
        scores += weight[1 + len(CHANNELS) :] @ memory.popularity
        return self._mixed(scores, logits, rows, scalars) if self._shares else scores

    def _mixed(self, added: Floats, logits: Floats, rows: Any, scalars: Doubles) -> Floats:
        """Return `training.experts.mixed` of one shopper."""
        memory, shares = self._model.memory, self._shares
        assert memory is not None
        left_out = rows["item"].astype(np.int64) - 1 if self._once else _NONE
        out = np.float32(shares[0]) * _softmax(added, left_out)
        if shares[1]:
            out += np.float32(shares[1]) * _softmax(logits, left_out)
        for share, place in zip(shares[2:], (*experts.EVIDENCE, *experts.POPULARITY), strict=True):
            if not share:
                continue
            if place in experts.POPULARITY:
                popularity = memory.popularity[place - len(CHANNELS)]
                out += np.float32(share) * _softmax(popularity, left_out)
                continue
            table = memory.rows[PLACES[place].rows]
            add_evidence(
                out, place, share, left_out, rows, scalars, table.indptr, table.item, table.value
            )
        scores: Floats = np.log(out + np.float32(experts.NOTHING))
        return scores

    def _weights(self, log_events: float) -> Floats:
        """Return `training.mixing.Mixing.at` of one shopper, shape (M + 1,)."""
        alpha, beta, low, high = self._mixing
        x = alpha + beta * np.float32(min(max(log_events, low), high))
        out: Floats = np.where(x > _LINEAR, x, np.log1p(np.exp(np.minimum(x, _LINEAR))))
        return out

    def _agrees(self) -> bool:
        """Compare with torch on made-up shoppers."""
        draw = np.random.default_rng(0)
        for used in (0, 1, 40):
            state = _made_up(self._model, draw, used)
            features = draw.normal(size=len(self._model.user_features.names)).astype(np.float32)
            for timed in (False, True):
                now_ms = state.tables.scalars[0, LAST_MS] + 3e8
                ours = self.scores(
                    state.tables.scalars[0], state.floats[0], state.tables.taken(0), now_ms,
                    timed=timed, features=features,
                )  # fmt: skip
                theirs = _by_torch(self._model, state, now_ms, timed, features)
                if not np.allclose(ours, theirs, rtol=1e-5, atol=TOLERANCE):
                    return False
        return True


def _by_torch(
    model: Model, state: LearnedStates, now_ms: float, timed: bool, features: Floats
) -> Floats:
    network, now = model.network, np.array([now_ms])
    held: Rows = state.tables.snapshot(np.zeros(1, np.int64))
    requests = make_requests(held.scalars, now, np.array([timed]), features[None])
    floats = torch.from_numpy(state.floats)
    carried = floats.shape[1] - 2 * network.encoder.hidden
    with torch.inference_mode():
        e = network.encoder.read(
            floats[:, :carried], floats[:, carried : carried + network.encoder.hidden]
        )
        memory = None if model.memory is None else torch.from_numpy(model.memory.read(held))
        pairs = make_pairs(held, now, model.vocabulary.median_gap_days)
        out: Floats = network.scores(network.vector(e, requests), pairs, requests, memory)[
            0
        ].numpy()
    return out


def _made_up(model: Model, draw: np.random.Generator, used: int) -> LearnedStates:
    state = LearnedStates(1, Layout.of(model))
    state.floats[:] = draw.normal(size=state.floats.shape) * 0.5
    used = min(used, len(model.vocabulary.items))
    scalars, rows = state.tables.scalars[0], state.tables.rows[0]
    events, last_ms = 60, 1_700_000_000_000
    scalars[[EVENTS, KNOWN, SIZE_SUM, LAST_SIZE, USED]] = events, 1, 150, 3, used
    scalars[[FIRST_MS, LAST_MS]] = last_ms - 1e10, last_ms
    for n, item in enumerate(draw.permutation(len(model.vocabulary.items))[:used]):
        row = np.zeros(1, ROW)
        row["item"], row["last_event"] = item + 1, events - n
        row["last_s"] = last_ms // 1000 - n * 50_000
        row["first_day"], row["again"] = row["last_s"] // 86_400 - 5 * (n % 2), n % 2
        row["counts"] = 1.0 + draw.random(6) * (n % 2)
        rows[n] = row[0]
    return state


def _softmax(scores: Floats, left_out: npt.NDArray[np.int64]) -> Floats:
    """Return chances, none of what is left out."""
    out: Floats = np.exp(scores - scores.max())
    out[left_out] = 0
    out /= max(out.sum(), np.float32(experts.NOTHING))
    return out


def _t(linear: Any) -> Floats:
    return np.ascontiguousarray(linear.weight.detach().numpy().T)


def _n(parameter: Any) -> Floats:
    return np.ascontiguousarray(parameter.detach().numpy())


def _vector_weights(network: Any) -> VectorWeights:
    encoder, now = network.encoder, network.now
    features = network.features
    none = np.zeros((0, network.config.dim), np.float32)
    return VectorWeights(
        network.config.encoder, _t(encoder.project), _n(encoder.project.bias), _t(encoder.gate),
        _n(encoder.gate.bias), _n(encoder.norm.weight), _n(encoder.norm.bias), _t(encoder.out),
        _n(encoder.out.bias), _t(network.statistics), _n(network.statistics.bias),
        none if features is None else _t(features), _n(now.gap.weight), _n(now.hour.weight),
        _n(now.weekday.weight), _n(now.norm.weight), _n(now.norm.bias), _n(network.norm.weight),
        _n(network.norm.bias),
    )  # fmt: skip


def _pair_weights(model: Model) -> PairWeights:
    pair = model.network.pair
    assert pair is not None
    return PairWeights(
        _n(pair.item.weight), _t(pair.user), _n(pair.user.bias), _t(pair.first),
        _n(pair.first.bias), _n(pair.second.weight[0]), _n(pair.second.bias),
        _n(pair.linear.weight[0]), _n(pair.linear.bias), _t(pair.mix), _n(pair.repurchase.weight),
        model.vocabulary.median_gap_days,
    )  # fmt: skip
