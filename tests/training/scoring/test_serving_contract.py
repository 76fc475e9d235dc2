"""What serves one user is what was trained: one law a head, over random shapes and users.

Weights are random, so that no head is near nothing. Tolerance: 1e-5 of the largest number, at least
of one; of logarithms of probabilities 1e-4.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.history.category_interests import read_interests
from training.history.user_features import UserFeatures
from training.history.vocabulary import Vocabulary
from training.neighbours.channels import CHANNELS, ROW_TYPES, Channels, ChannelTable
from training.network import mixture
from training.network.config import ModelConfig
from training.network.model_dir import Model
from training.network.network import PortraitNetwork, Requests, make_requests, vector_of_one
from training.network.repeat_head import Pairs, make_pairs, pairs_of_one
from training.scoring.learned_state import Layout, LearnedStates
from training.scoring.retrieval import ItemArrays, Queries, scores
from training.scoring.scorer import Scorer
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

Floats = np.ndarray[Any, np.dtype[np.float32]]
NOW_MS: Final = 1_700_000_000_000


@dataclass(frozen=True)
class Drawn:
    """A model of random shape and weights, and one user's state before its bytes."""

    model: Model
    state: LearnedStates
    now_ms: int | None
    features: dict[str, float]

    @property
    def snapshot(self) -> Rows:
        return self.state.tables.snapshot(np.zeros(1, np.int64))

    @property
    def now(self) -> Floats:
        last = self.state.tables.scalars[0, LAST_MS]
        return np.array([last if self.now_ms is None else self.now_ms], np.float64)

    def pairs(self) -> Pairs:
        return make_pairs(self.snapshot, self.now, self.model.vocabulary.median_gap_days)

    def requests(self) -> Requests:
        row = self.model.user_features.row(self.features)
        timed = np.array([self.now_ms is not None])
        return make_requests(self.state.tables.scalars, self.now, timed, row)

    def u(self) -> torch.Tensor:
        network, floats = self.model.network, torch.from_numpy(self.state.floats)
        size = network.encoder.hidden
        e = network.encoder.read(floats[:, : -2 * size], floats[:, -2 * size : -size])
        return network.vector(e, self.requests())

    def scorer(self) -> Scorer:
        scorer = Scorer(self.model)
        scorer._at = lambda state, now, features: scorer._moment(self.state, now, features)  # type: ignore[method-assign]
        return scorer


def vocabulary(items: int, categories: int, draw: np.random.Generator) -> Vocabulary:
    popularity = draw.normal(size=items).astype(np.float32)
    return Vocabulary(
        tuple(f"i{n}" for n in range(items)), tuple(f"C{n}" for n in range(categories)),
        draw.integers(0, categories + 1, items), popularity, popularity,
        draw.uniform(0, 60, items).astype(np.float32), "purchase",
    )  # fmt: skip


def memory(items: int, draw: np.random.Generator) -> Channels:
    def table() -> ChannelTable:
        sizes = draw.integers(0, min(items, 9) + 1, items)
        columns = [np.sort(draw.choice(items, n, replace=False)) for n in sizes]
        item = np.concatenate(columns).astype(np.int32)
        value = draw.normal(0.3, 1, len(item)).astype(np.float32)
        return ChannelTable(np.concatenate([[0], np.cumsum(sizes)]), item, value)

    tables = {name: table() for name in ROW_TYPES}
    return Channels(tables, draw.normal(size=(2, items)).astype(np.float32))


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    seed = draw(st.integers(0, 10**6))
    made, _ = np.random.default_rng(seed), torch.manual_seed(seed)
    items, categories = draw(st.integers(1, 80)), draw(st.integers(2, 12))
    config = ModelConfig(
        dim=draw(st.sampled_from([4, 7, 16])), hidden=draw(st.sampled_from([3, 24])),
        encoder=draw(st.booleans()), repeat=draw(st.booleans()), memory=draw(st.booleans()),
    )  # fmt: skip
    width, known = draw(st.integers(0, 5)), vocabulary(items, categories, made)
    names = tuple(f"f{n}" for n in range(width))
    network = PortraitNetwork(config, items, categories, width)
    network.start_from(known)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if not name.startswith(("mixing", "calibration", "next_category")):
                weight.normal_(std=0.4)
        network.calibration.copy_(torch.tensor([[0.7, -0.1], [1.4, 0.3]]))
        if network.mixing is not None:
            network.mixing.weights.normal_()
            if draw(st.booleans()):
                shares = torch.rand(mixture.COUNT_EXPERTS) * (
                    torch.rand(mixture.COUNT_EXPERTS) > 0.4
                )
                network.mixing.shares.copy_(shares + 1e-3 * (torch.arange(len(shares)) == 0))
            network.mixing.once.fill_(float(draw(st.booleans())))
    network.freeze()
    spread = (0.3,) * width
    features = UserFeatures("s", names, spread, tuple(0.5 + n for n in range(width)))
    rows = memory(items, made) if config.memory else None
    model = Model("fused-0", config, known, features, network, {}, rows)
    state = LearnedStates(1, Layout.of(model))
    _fill(state, min(draw(st.integers(0, 60)), items), made)
    now = draw(st.sampled_from([None, NOW_MS, NOW_MS - 5, NOW_MS + 10**6, NOW_MS + 10**10]))
    return Drawn(model, state, now, {name: float(made.normal()) for name in names})


def _fill(state: LearnedStates, used: int, draw: np.random.Generator) -> None:
    """Put one user's numbers in place: held items of some dozens of events."""
    scalars, rows = state.tables.scalars[0], state.tables.rows[0]
    state.floats[:] = draw.normal(size=state.floats.shape) * 0.5
    events = 1 + int(draw.integers(0, 300))
    scalars[[EVENTS, KNOWN, SIZE_SUM, LAST_SIZE, USED]] = events, 1, 2 * events, 3, used
    scalars[[FIRST_MS, LAST_MS]] = NOW_MS - 1e10, NOW_MS
    for n, item in enumerate(draw.permutation(state._layout.items)[:used]):
        row = np.zeros(1, ROW)
        row["item"], row["last_event"] = item + 1, events - int(draw.integers(0, events))
        row["last_s"] = NOW_MS // 1000 - n * 50_000
        row["first_day"], row["again"] = row["last_s"] // 86_400 - 5 * (n % 2), n % 2
        row["counts"] = 1.0 + draw.random(6) * (n % 2)
        rows[n] = row[0]


def vector(of: Drawn) -> tuple[Floats, Floats]:
    state, size = of.state, of.model.network.encoder.hidden
    floats, features = state.floats[0], of.model.user_features.row(of.features)[0]
    ours = vector_of_one(
        of.model.network.serving(), floats[: -2 * size], floats[-2 * size : -size],
        state.tables.scalars[0], features, float(of.now[0]), of.now_ms is not None,
    )  # fmt: skip
    return ours, of.u()[0].numpy()


def repeat_head(of: Drawn) -> tuple[Floats, Floats]:
    head, u = of.model.network.pair, of.u()
    if head is None:
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    weights = head.serving(of.model.vocabulary.median_gap_days)
    tables = of.state.tables
    ours = pairs_of_one(weights, u[0].numpy(), tables.read_rows(0), tables.scalars[0], of.now[0])
    return ours, head(u, of.pairs()).numpy()


def memories(of: Drawn) -> tuple[Floats, Floats]:
    """By `gather`, and by the rows of the dense reading that a mixture is trained on."""
    items = len(of.model.vocabulary.items)
    found = of.model.memory or memory(items, np.random.default_rng(0))
    whole = found.read(of.snapshot)[0]
    naive = np.zeros_like(whole)
    naive[len(CHANNELS) : len(CHANNELS) + 2] = found.popularity
    sparse = found.read_sparse(of.snapshot)
    naive[: len(CHANNELS), sparse.item.numpy()] = sparse.value.T.numpy()
    naive[len(CHANNELS) + 2 :] = whole[len(CHANNELS) + 2 :]
    return naive, whole


def item_scores(of: Drawn) -> tuple[Floats, Floats]:
    network, requests, u = of.model.network, of.requests(), of.u()
    memory = of.model.memory
    reading = None if memory is None else torch.from_numpy(memory.read(of.snapshot))
    theirs = network.scores(u, of.pairs(), requests, reading)[0].numpy()
    return of.scorer().scores(b"", of.now_ms, of.features), theirs


def item_scores_of_many(of: Drawn) -> tuple[Floats, Floats]:
    """The same without a mixture as very many items are evaluated: by an inner product."""
    network, rows = of.model.network, of.model.memory
    if network.mixing is not None and network.mixing.mixture:
        network.mixing.shares.copy_(torch.eye(mixture.COUNT_EXPERTS)[0])
    queries = Queries.of(
        network, of.u(), of.pairs(), of.requests().statistics[:, 0],
        None if rows is None else rows.read_sparse(of.snapshot), network.mixing,
    )  # fmt: skip
    theirs = scores(ItemArrays.of(network, rows), queries)[0].numpy()
    query = of.scorer().ask(b"", of.now_ms, of.features)
    assert query is not None
    best, values = query.best(5)
    near = {"rtol": 1e-4, "atol": 1e-5 * max(1.0, float(np.abs(theirs).max()))}
    np.testing.assert_allclose(values, query.at(best), **near)
    np.testing.assert_allclose(values, np.sort(theirs)[::-1][:5], **near)
    return query.scores(), theirs


def outcomes(of: Drawn) -> tuple[Floats, Floats]:
    found = of.scorer().propensities(b"", of.now_ms, of.features)
    theirs = torch.sigmoid(of.model.network.outcome_logits(of.u()))[0].numpy()
    return np.array([probability for probability, _ in found.values()], np.float32), theirs


def next_category(of: Drawn) -> tuple[Floats, Floats]:
    head, index = of.model.network.next_category, of.model.vocabulary.category_index
    assert head is not None
    names = {"interest_categories": ["C1", "?"], "interest_category_weights": [0.4, 0.3]}
    found = of.scorer().next_categories(b"", of.now_ms, {**of.features, **names}, most=99)
    theirs = torch.sigmoid(head(of.u(), of.pairs(), read_interests(names, index)))[0].numpy()
    assert found is not None
    probability = dict(found.probabilities)
    return np.array([probability[name] for name in of.model.vocabulary.categories]), theirs


@pytest.mark.parametrize(
    "head",
    [vector, repeat_head, memories, item_scores, item_scores_of_many, outcomes, next_category],
)
@settings(max_examples=30, deadline=None)
@given(of=drawn())
def test_one_user_is_served_what_a_batch_is_taught(
    head: Callable[[Drawn], tuple[Floats, Floats]], of: Drawn
) -> None:
    with torch.inference_mode():
        ours, theirs = head(of)
    mixing = of.model.network.mixing
    is_mixture = mixing is not None and mixing.mixture and of.model.memory is not None
    some = theirs > np.log(1e-20) if is_mixture else np.isfinite(theirs)
    assert ours.shape == theirs.shape
    tolerance, size = (
        1e-4 if is_mixture else 1e-5,
        max(1.0, float(np.abs(theirs[some]).max(initial=0))),
    )
    np.testing.assert_allclose(ours[some], theirs[some], rtol=tolerance, atol=tolerance * size)
