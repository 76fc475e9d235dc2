"""Scores of one shopper at a time by compiled code, where it gives what torch gives.

`CompiledScores.of` compares the loops of `request_step` with the network on made-up shoppers
and gives nothing if they differ: a network whose equations change is served by torch until the
loops follow. Belongs here: that comparison, and weights as arrays. Not here: the loops.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch

from training.neighbours.channels import CHANNELS, COUNT, EPSILON, PLACES
from training.network import mixture
from training.network.model_dir import Model
from training.network.network import make_requests, statistics
from training.network.repeat_head import make_pairs
from training.scoring.learned_state import Layout, LearnedStates
from training.scoring.request_step import (
    PairWeights,
    VectorWeights,
    add_pairs,
    profile_vector,
    sum_rows,
)
from training.state.item_table import (
    EVENTS,
    FIRST_MS,
    KNOWN,
    LAST_MS,
    LAST_SIZE,
    ROW,
    SIZE_SUM,
    USED,
    Rows,
)

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
TOLERANCE: Final = 1e-4
"""Largest difference to torch, in scores of the size of ten."""
_LINEAR: Final = np.float32(20)  # torch's softplus is the identity from here on

Sums = tuple[npt.NDArray[np.int64], Floats]
"""What `sum_rows` returns."""


class _Fade(NamedTuple):
    """How one kind of rows is read: columns C, each a way to fade, and what becomes of them.

    ``places`` names a channel for each column, shape (C,); ``plain`` and ``logs`` say which
    columns are which of the M weighed channels, as they are and by their logarithm, shape (C, M);
    ``shares`` are those of the mixture, shape (C,).
    """

    rows: str
    places: npt.NDArray[np.int64]
    plain: Floats
    logs: Floats
    shares: Floats


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
            self._fades = _fades(self._shares)

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
        sums = dict[str, Sums]()
        for fade in self._fades:
            table = memory.rows[fade.rows]
            touched, found = sums[fade.rows] = sum_rows(
                fade.places, rows, scalars, table.indptr, table.item, table.value, len(scores)
            )
            gained = (fade.plain @ weight[1:]) @ found
            if fade.logs.any():
                gained += (fade.logs @ weight[1:]) @ _logarithm(found)
            scores[touched] += gained
        scores += weight[1 + len(CHANNELS) :] @ memory.popularity
        return self._mixed(scores, logits, rows, sums) if self._shares else scores

    def _mixed(self, added: Floats, logits: Floats, rows: Any, sums: Mapping[str, Sums]) -> Floats:
        """Return `training.network.mixture.mixed` of one shopper."""
        memory, shares = self._model.memory, self._shares
        assert memory is not None
        held = np.zeros(len(added), np.bool_)
        if self._once:
            held[rows["item"].astype(np.int64) - 1] = True
        out = np.float32(shares[0]) * _softmax(added, held)
        if shares[1]:
            out += np.float32(shares[1]) * _softmax(logits, held)
        for share, place in zip(
            shares[-len(mixture.POPULARITY) :], mixture.POPULARITY, strict=True
        ):
            if share:
                popularity = memory.popularity[place - len(CHANNELS)]
                out += np.float32(share) * _softmax(popularity, held)
        for fade in self._fades:
            if fade.shares.any():
                touched, found = sums[fade.rows]
                q = np.maximum(found, 0) * ~held[touched]
                out[touched] += (fade.shares / np.maximum(q.sum(axis=1), mixture.NOTHING)) @ q
        scores: Floats = np.log(out + np.float32(mixture.NOTHING))
        return scores

    def _weights(self, log_events: float) -> Floats:
        """Return `training.network.stacking.Stacking.at` of one shopper, shape (M + 1,)."""
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


def _fades(shares: Sequence[float]) -> list[_Fade]:
    """Return how each kind of rows that counts is read, given the mixture's shares."""
    evidence = dict(zip(mixture.EVIDENCE, shares[2:], strict=False))
    found = []
    for kind in dict.fromkeys(channel.rows for channel in PLACES.values()):
        used = {
            m: channel for m, channel in PLACES.items()
            if channel.rows == kind and (m < len(CHANNELS) or evidence.get(m))
        }  # fmt: skip
        if not used:
            continue
        columns = dict[tuple[float, int | None], int]()
        for m, channel in used.items():
            columns.setdefault((channel.per_event, channel.count), m)
        plain, logs = np.zeros((2, len(columns), COUNT), np.float32)
        share = np.zeros(len(columns), np.float32)
        for m, channel in used.items():
            column = list(columns).index((channel.per_event, channel.count))
            if m < len(CHANNELS):
                (logs if channel.log else plain)[column, m] = 1
            if not channel.log:
                share[column] += evidence.get(m, 0.0)
        found.append(_Fade(kind, np.array(list(columns.values())), plain, logs, share))
    return found


def _logarithm(sums: Floats) -> Floats:
    out: Floats = np.log(np.maximum(sums, 0) / np.float32(EPSILON) + np.float32(1))
    return out


def _softmax(scores: Floats, left_out: npt.NDArray[np.bool_]) -> Floats:
    """Return chances, none of what is left out."""
    out: Floats = np.exp(scores - scores.max())
    out[left_out] = 0
    out /= max(out.sum(), np.float32(mixture.NOTHING))
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
