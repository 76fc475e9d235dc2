"""Scores from a learned state: what the recommender asks of a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.history.category_interests import read_interests
from training.neighbours.channels import Touched
from training.network import mixture as experts
from training.network import sampled_softmax
from training.network.model_dir import Model
from training.network.network import Requests, make_requests
from training.network.repeat_head import Pairs, make_pairs
from training.scoring.compiled_scores import CompiledScores
from training.scoring.learned_state import Layout, LearnedStates
from training.scoring.retrieval import ItemArrays, Queries, Search
from training.state.item_table import KNOWN, LAST_MS, Rows

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NextCategories:
    """Categories, likeliest first, with the chance of a purchase within `NEXT_DAYS`."""

    chances: tuple[tuple[str, float], ...]
    calibrated: bool


class SearchedScores:
    """One request, asked for its best items or for the scores of some, never for all."""

    def __init__(self, search: Search, queries: Queries) -> None:
        self._search = search
        self._queries = queries

    def best(self, k: int, allowed: npt.NDArray[np.bool_] | None = None) -> tuple[Ints, Floats]:
        """Return the ``k`` best items from 0, best first, and their scores; see `Scorer.top`."""
        item, score, _ = self._search.best(self._queries, k, allowed)
        return item, score

    def at(self, rows: Ints) -> Floats:
        """Return the scores of some items, in their order."""
        return self._search.at(self._queries, rows)


class Ranked:
    """The same of a request whose items all have a score: of a mixture (`network.mixture`)."""

    def __init__(self, scores: Floats) -> None:
        self._scores = scores

    def best(self, k: int, allowed: npt.NDArray[np.bool_] | None = None) -> tuple[Ints, Floats]:
        """Return the ``k`` best items from 0, best first, and their scores."""
        order = np.argsort(-self._scores, kind="stable")
        order = order[:k] if allowed is None else order[allowed[order]][:k]
        return order, self._scores[order]

    def at(self, rows: Ints) -> Floats:
        """Return the scores of some items, in their order."""
        out: Floats = self._scores[rows]
        return out


class Scorer:
    """Reads states made by the same model.

    Parameters
    ----------
    model
        As `training.network.model_dir.load` gives it.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._layout = Layout.of(model)
        self._calibrated = model.network.calibrated()
        self._search = Search(ItemArrays.of(model.network, model.memory))
        self._popular = np.argsort(-model.vocabulary.log_popularity, kind="stable")
        self._compiled = CompiledScores.of(model)

    @property
    def compiled(self) -> bool:
        """Whether single requests are scored by compiled code instead of torch."""
        return self._compiled is not None

    @property
    def dim(self) -> int:
        """Length D of the profile vector u."""
        return self.model.network.encoder.dim

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
            None, or a state before its first event: the popularity.
        now_ms
            Time of the request, epoch milliseconds; None if it shall not matter.
        user_features
            One online row of the model's feature service, by feature name.

        Raises
        ------
        ModelMismatchError
            If another model made the state.
        """
        parts = self._read(state)
        if parts is None:
            return self.model.vocabulary.log_popularity
        return self._scores(parts, now_ms, user_features)

    def _scores(
        self, parts: LearnedStates, now_ms: int | None, user_features: Mapping[str, Any] | None
    ) -> Floats:
        if self._compiled is not None:
            return self._one(self._compiled, parts, now_ms, user_features)
        with torch.inference_mode():
            u, requests, now = self._vector(parts, now_ms, user_features)
            if len(self._popular) > sampled_softmax.FULL_ITEMS:
                return self._search.scores(self._queries(parts, u, requests, now))
            pairs, memory = self._held(parts, now)
            out: Floats = self.model.network.scores(u, pairs, requests, memory)[0].numpy()
        return out

    def top(
        self,
        state: bytes | None,
        now_ms: int | None,
        user_features: Mapping[str, Any] | None = None,
        *,
        k: int,
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[Ints, Floats]:
        """Return the ``k`` items of highest `scores`, best first, without scoring all of many.

        Parameters
        ----------
        state, now_ms, user_features
            As of `scores`.
        k
            At least 1.
        allowed
            Which items may be given, shape (N,); None: all.

        Returns
        -------
        tuple
            Items as places in ``model.vocabulary.items``, and their scores; fewer than ``k`` if
            fewer are allowed.

        Raises
        ------
        ModelMismatchError
            If another model made the state.
        """
        parts = self._read(state)
        if parts is None:
            order = self._popular if allowed is None else self._popular[allowed[self._popular]]
            return order[:k], self.model.vocabulary.log_popularity[order[:k]]
        return self._asked(parts, now_ms, user_features).best(min(k, len(self._popular)), allowed)

    def ask(
        self, state: bytes, now_ms: int | None, user_features: Mapping[str, Any] | None = None
    ) -> SearchedScores | Ranked | None:
        """Return a request of a state, to be asked for items; None before its first event.

        Raises
        ------
        ModelMismatchError
            If another model made the state.
        """
        parts = self._read(state)
        return None if parts is None else self._asked(parts, now_ms, user_features)

    def _asked(
        self, parts: LearnedStates, now_ms: int | None, user_features: Mapping[str, Any] | None
    ) -> SearchedScores | Ranked:
        mixing = self.model.network.mixing
        if mixing is not None and mixing.mixture:
            return Ranked(self._scores(parts, now_ms, user_features))
        with torch.inference_mode():
            u, requests, now = self._vector(parts, now_ms, user_features)
            return SearchedScores(self._search, self._queries(parts, u, requests, now))

    def experts(
        self,
        state: bytes,
        now_ms: int | None,
        user_features: Mapping[str, Any] | None = None,
    ) -> Doubles:
        """Return what each expert adds to each item's chance, shape (K, N).

        See `training.network.mixture`. Where the answer is no mixture, the first has it all.
        """
        mixing, count = self.model.network.mixing, len(self._popular)
        out = np.zeros((experts.COUNT_EXPERTS, count))
        parts = self._read(state)
        if parts is None or mixing is None or not mixing.mixture:
            out[0] = 1.0
            return out
        with torch.inference_mode():
            u, requests, now = self._vector(parts, now_ms, user_features)
            pairs, memory = self._held(parts, now)
            assert memory is not None
            base = self.model.network.logits(u, pairs)
            added = mixing.added(base, memory, requests.statistics[:, 0])
            for k in torch.nonzero(mixing.shares)[:, 0].tolist():
                q = experts.chances(added, base, memory, k, once=bool(mixing.once))
                found = mixing.shares[k] * q
                out[k] = found[0].double().numpy()
        return out

    def item_embeddings(self) -> Floats:
        """Return one vector per item, shape (N, D), for similar items."""
        network = self.model.network
        if self.model.config.recipe == "stacked":
            return network.encoder.content.item.weight[1:].numpy()
        out: Floats = network.item_vectors().numpy()
        return out

    def vector(
        self,
        state: bytes | None,
        now_ms: int | None,
        user_features: Mapping[str, Any] | None = None,
    ) -> Floats | None:
        """Return the profile vector u as of ``now_ms``, shape (D,); None without events."""
        parts = self._read(state)
        if parts is None:
            return None
        with torch.inference_mode():
            found: Floats = self._vector(parts, now_ms, user_features)[0][0].float().numpy()
        return found

    def chances(
        self,
        state: bytes | None,
        now_ms: int | None,
        user_features: Mapping[str, Any] | None = None,
    ) -> dict[str, tuple[float, bool]]:
        """Return each outcome's chance from ``now_ms`` on, and whether it is calibrated.

        Empty without events. See `training.history.prepared.OUTCOMES`.
        """
        parts, network = self._read(state), self.model.network
        if parts is None:
            return {}
        with torch.inference_mode():
            u, _, _ = self._vector(parts, now_ms, user_features)
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
        head, parts = self.model.network.next_category, self._read(state)
        if head is None or parts is None:
            return None
        with torch.inference_mode():
            u, _, now = self._vector(parts, now_ms, user_features)
            held = parts.tables.snapshot(np.zeros(1, np.int64))
            pairs = make_pairs(held, now, self.model.vocabulary.median_gap_days)
            interests = read_interests(user_features, self.model.vocabulary.category_index)
            chances = torch.sigmoid(head(u, pairs, interests))[0]
            best = torch.sort(chances, descending=True, stable=True).indices[:most]
        names = self.model.vocabulary.categories
        return NextCategories(
            tuple((names[k], float(chances[k])) for k in best.tolist()), head.calibrated()
        )

    def _read(self, state: bytes | None) -> LearnedStates | None:
        if state is None:
            return None
        found = LearnedStates(1, self._layout)
        found.load([state])
        return found if found.tables.scalars[0, KNOWN] > 0 else None

    def _one(
        self,
        compiled: CompiledScores,
        state: LearnedStates,
        now_ms: int | None,
        user_features: Mapping[str, Any] | None,
    ) -> Floats:
        scalars = state.tables.scalars[0]
        return compiled.scores(
            scalars, state.floats[0], state.tables.taken(0),
            float(scalars[LAST_MS]) if now_ms is None else float(now_ms),
            timed=now_ms is not None,
            features=self.model.user_features.row(user_features)[0],
        )  # fmt: skip

    def _held(self, state: LearnedStates, now: Doubles) -> tuple[Pairs | None, Tensor | None]:
        """Return what the pair head and the memories read of the items held."""
        pairs, held = self._pairs(state, now)
        memory = self.model.memory
        return pairs, (
            None if held is None or memory is None else torch.from_numpy(memory.read(held))
        )

    def _queries(
        self, state: LearnedStates, u: Tensor, requests: Requests, now: Doubles
    ) -> Queries:
        """Return the same for `training.scoring.retrieval`."""
        pairs, held = self._pairs(state, now)
        network, memory = self.model.network, self.model.memory
        touched: Touched | None = None
        if held is not None and memory is not None:
            touched = memory.touched(held)
        return Queries.of(network, u, pairs, requests.statistics[:, 0], touched, network.mixing)

    def _pairs(self, state: LearnedStates, now: Doubles) -> tuple[Pairs | None, Rows | None]:
        if self.model.config.recipe == "stacked":
            return None, None
        held = state.tables.snapshot(np.zeros(1, np.int64))
        return make_pairs(held, now, self.model.vocabulary.median_gap_days), held

    def _vector(
        self,
        state: LearnedStates,
        now_ms: int | None,
        user_features: Mapping[str, Any] | None,
    ) -> tuple[Tensor, Requests, Doubles]:
        network, scalars = self.model.network, state.tables.scalars
        timed = now_ms is not None
        now = np.array([scalars[0, LAST_MS] if now_ms is None else float(now_ms)], np.float64)
        requests: Requests = make_requests(
            scalars, now, np.array([timed]), self.model.user_features.row(user_features)
        )
        e = network.encoder.read(*carried_and_h(state, network.encoder.hidden))
        return network.vector(e, requests), requests, now


def carried_and_h(states: LearnedStates, hidden: int) -> tuple[Tensor, Tensor]:
    """Return what the encoder carries and h of each state, shapes (B, K) and (B, H)."""
    floats = torch.from_numpy(states.floats)
    carried = floats.shape[1] - 2 * hidden
    return floats[:, :carried], floats[:, carried : carried + hidden]
