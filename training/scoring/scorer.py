"""The scorer, the only engine of service: what a model says of one user, any catalogue.

A state is read, the heads are asked for one user (`serving` of each), and what comes of it is
a `query.ScoreQuery`. Belongs here: putting the heads together, and propensities. Not here: their
equations, or finding the best items.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from training.history.category_interests import read_interests
from training.neighbours.channels import CHANNEL_AT, CHANNELS, Channels, logarithm
from training.network.mixture import EVIDENCE, Served
from training.network.model_dir import Model
from training.network.network import statistics, vector_of_one
from training.network.repeat_head import make_pairs, pairs_of_one
from training.network.reranker import RankedMoment
from training.network.stacking import Stacking
from training.scoring.learned_state import Layout, LearnedStates
from training.scoring.query import ScoredIndex, ScoreQuery
from training.scoring.retrieval import ItemArrays
from training.state.item_table import KNOWN, LAST_MS, RepeatTables

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NextCategories:
    """Categories, likeliest first, with the probability of a purchase within `NEXT_DAYS`."""

    probabilities: tuple[tuple[str, float], ...]
    calibrated: bool


@dataclass(frozen=True)
class _Moment:
    """One user's repeat table and profile vector as of one moment."""

    tables: RepeatTables
    u: Floats
    now_ms: float

    @property
    def rows(self) -> npt.NDArray[np.void]:
        """The items in the history."""
        return self.tables.read_rows(0)


class Scorer:
    """Reads states made by the same model."""

    def __init__(self, model: Model) -> None:
        network, memory, mixing = model.network, model.memory, model.network.mixing
        self.model = model
        self._layout = Layout.of(model)
        self._calibrated = network.calibrated()
        self._vector = None if model.config.recipe == "stacked" else network.serving()
        gaps = model.vocabulary.median_gap_days
        self._pair = None if network.pair is None else network.pair.serving(gaps)
        self._stack = None if mixing is None or memory is None else _Stack(mixing, memory)
        self._live: Floats | None = None
        self._sells: Floats | None = None
        if self._vector is not None:  # compiled, or read, before it is needed
            self._query(self._moment(LearnedStates(1, self._layout), None, None)).best(1)

    @property
    def reads_counts(self) -> bool:
        """Whether what sells just now moves the scores: see `take_counts`."""
        live = self.model.network.live
        return live is not None and (live.used or self.model.reranker is not None)

    def take_counts(self, counts: npt.NDArray[Any] | None) -> None:
        """Score by what sells just now from here on, in one step; None: as if nobody knew it.

        Parameters
        ----------
        counts
            How many users each item of the vocabulary had lately, in any scale, a row for each of
            `neighbours.live_counts.COUNT_HALF_LIVES_DAYS`. Shape (H, N).
        """
        live = self.model.network.live
        added = logs = None
        if live is not None and counts is not None:
            added = live.added(counts) if live.used else None
            logs = live.logs(counts) if live.users.all() else None
        self._live, self._sells = added, logs

    def frozen(self) -> "Scorer":
        """Return a scorer that goes on with the counts of now."""
        return copy(self)

    @property
    def dim(self) -> int:
        """Length D of the profile vector u."""
        return self.model.network.encoder.dim

    @cached_property
    def _index(self) -> ScoredIndex:
        return ScoredIndex(ItemArrays.of(self.model.network, self.model.memory))

    def scores(
        self,
        state: bytes | None,
        now_ms: int | None,
        user_features: Mapping[str, Any] | None = None,
    ) -> Floats:
        """Return the score of every item of ``model.vocabulary.items``, shape (N,).

        Parameters
        ----------
        state
            None, or a state before its first event: the popularity, as `stacked` gives to all.
        now_ms
            Time of the request, epoch milliseconds; None if it shall not matter.
        user_features
            One online row of the model's feature service, by feature name.

        Raises
        ------
        ModelMismatchError
            If another model made the state.
        """
        query = self.ask(state, now_ms, user_features)
        if query is not None:
            return query.scores()
        popularity = self.model.vocabulary.log_popularity
        return popularity if self._live is None or now_ms is None else popularity + self._live

    def ask(
        self,
        state: bytes | None,
        now_ms: int | None,
        user_features: Mapping[str, Any] | None = None,
    ) -> ScoreQuery | None:
        """Return a request, to be asked for items; None where `scores` is the popularity."""
        moment = self._at(state, now_ms, user_features)
        if moment is None or self._vector is None:
            return None
        query = self._query(moment)
        if now_ms is None:
            return query
        ranked = RankedMoment(moment.rows, moment.tables.scalars[0], moment.now_ms, self._sells)
        return replace(query, live=self._live, reranker=self.model.reranker, moment=ranked)

    def _query(self, moment: _Moment) -> ScoreQuery:
        rows, scalars, bonus = moment.rows, moment.tables.scalars[0], np.zeros(0, np.float32)
        if self._pair is not None:
            bonus = pairs_of_one(self._pair, moment.u, rows, scalars, moment.now_ms)
        if self._stack is not None:
            return self._stack.query(self._index, moment.u, bonus, rows, scalars)
        gain = np.zeros(len(rows), np.float32)
        item = rows["item"].astype(np.int64) - 1
        return ScoreQuery(self._index, moment.u, np.array([1, 0, 0], np.float32), item, bonus, gain)

    def item_embeddings(self) -> Floats:
        """Return one vector per item, shape (N, D), for similar items."""
        network = self.model.network
        if self._vector is None:
            return network.encoder.content.item.weight[1:].numpy()
        return self._index.vectors

    def vector(
        self,
        state: bytes | None,
        now_ms: int | None,
        user_features: Mapping[str, Any] | None = None,
    ) -> Floats | None:
        """Return the profile vector u as of ``now_ms``, shape (D,); None without events."""
        moment = self._at(state, now_ms, user_features)
        return None if moment is None else moment.u

    def propensities(
        self,
        state: bytes | None,
        now_ms: int | None,
        user_features: Mapping[str, Any] | None = None,
    ) -> dict[str, tuple[float, bool]]:
        """Return each outcome's propensity from ``now_ms`` on, and whether it is calibrated.

        Empty without events. See `training.history.prepared.OUTCOMES`.
        """
        moment, network = self._at(state, now_ms, user_features), self.model.network
        if moment is None:
            return {}
        with torch.inference_mode():
            u = torch.from_numpy(moment.u)[None]
            found = torch.sigmoid(network.outcome_logits(u))[0].tolist()
        return dict(zip(network.outcomes, zip(found, self._calibrated, strict=True), strict=True))

    def next_categories(
        self,
        state: bytes | None,
        now_ms: int | None,
        user_features: Mapping[str, Any] | None = None,
        *,
        most: int = 10,
    ) -> NextCategories | None:
        """Return the categories likeliest to be bought from within 14 days of ``now_ms``.

        None without events, or where the model has no such head (`stacked`, or a shop without
        categories).
        """
        head, moment = self.model.network.next_category, self._at(state, now_ms, user_features)
        if head is None or moment is None:
            return None
        vocabulary = self.model.vocabulary
        with torch.inference_mode():
            snapshot = moment.tables.snapshot(np.zeros(1, np.int64))
            pairs = make_pairs(snapshot, np.array([moment.now_ms]), vocabulary.median_gap_days)
            interests = read_interests(user_features, vocabulary.category_index)
            probabilities = torch.sigmoid(head(torch.from_numpy(moment.u)[None], pairs, interests))[
                0
            ]
            best = torch.sort(probabilities, descending=True, stable=True).indices[:most]
        return NextCategories(
            tuple((vocabulary.categories[k], float(probabilities[k])) for k in best.tolist()),
            head.calibrated(),
        )

    def _at(
        self, state: bytes | None, now_ms: int | None, user_features: Mapping[str, Any] | None
    ) -> _Moment | None:
        """Read a state as of a moment; None before its first event."""
        if state is None:
            return None
        found = LearnedStates(1, self._layout)
        found.load([state])
        known = found.tables.scalars[0, KNOWN] > 0
        return self._moment(found, now_ms, user_features) if known else None

    def _moment(
        self, state: LearnedStates, now_ms: int | None, user_features: Mapping[str, Any] | None
    ) -> _Moment:
        scalars, carried, h = state.tables.scalars[0], *self._carried_and_h(state)
        now = float(scalars[LAST_MS] if now_ms is None else now_ms)
        if self._vector is None:
            return _Moment(state.tables, h, now)
        features = self.model.user_features.row(user_features)[0]
        timed = now_ms is not None
        u = vector_of_one(self._vector, carried, h, scalars, features, now, timed)
        return _Moment(state.tables, u, now)

    def _carried_and_h(self, state: LearnedStates) -> tuple[Floats, Floats]:
        floats, hidden = state.floats[0], self.model.network.encoder.hidden
        return floats[: -2 * hidden], floats[-2 * hidden : -hidden]


class _Stack:
    """`training.network.stacking` and the memories for one user at a time."""

    def __init__(self, mixing: Stacking, memory: Channels) -> None:
        self._mixing, self._memory, self._once = mixing, memory, bool(mixing.once)
        self._shares = mixing.shares.tolist() if mixing.mixture else []
        self._weights = lru_cache(4096)(self._read_weights)
        used = [*range(len(CHANNELS))]
        used += [m for m, share in zip(EVIDENCE, self._shares[2:], strict=False) if share]
        columns = dict[tuple[str, float, int | None], int]()
        for m in dict.fromkeys(used):
            columns.setdefault(_row(m), m)
        self._columns = tuple(columns.values())
        self._of = {m: list(columns).index(_row(m)) for m in used}

    def _read_weights(self, log_events: float) -> tuple[Floats, Floats, Floats]:
        """Return weights of logits and popularities, and of each column and its logarithm."""
        weight = self._mixing.at(torch.tensor([log_events]))[0].numpy()
        columns = np.zeros((2, len(self._columns)), np.float32)
        for m, channel in enumerate(CHANNELS):
            columns[int(channel.log), self._of[m]] += weight[1 + m]
        return np.append(weight[:1], weight[1 + len(CHANNELS) :]), *columns

    def query(
        self, index: ScoredIndex, u: Floats, bonus: Floats, rows: Any, scalars: Any
    ) -> ScoreQuery:
        """Return what one user asks, memories mixed in."""
        e, plain, logs = self._weights(float(statistics(scalars[None])[0, 0]))
        item, sums = self._memory.gather(rows, scalars, self._columns)
        gain = plain @ sums
        for column in np.flatnonzero(logs):
            gain += logs[column] * logarithm(sums[column])
        mixture = None
        if self._shares:
            evidence = {m: sums[column] for m, column in self._of.items()}
            mixture = Served(
                self._shares, self._once, self._memory.popularity, item, len(rows), evidence
            )
        return ScoreQuery(index, u, e, item, bonus, gain, mixture)


def _row(m: int) -> tuple[str, float, int | None]:
    """Return what makes a channel's sum: channels that only differ in their logarithm share it."""
    return CHANNEL_AT[m].rows, CHANNEL_AT[m].per_event, CHANNEL_AT[m].count
