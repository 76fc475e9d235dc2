"""Trees order the best anew where that pays, the same in batches and in service."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_repo.errors import ModelMismatchError
from tests.training.fit.test_selection import popular_only
from tests.training.shops import end_ms, shop, uniform
from training.evaluation.predict import score_window
from training.fit import reranker as fitting
from training.fit.reranker import fit_reranker
from training.history.prepared import Prepared
from training.history.user_features import UserFeatures
from training.neighbours.live_counts import LiveCounts
from training.network.config import TrainConfig
from training.network.examples import ExampleMaker
from training.network.model_dir import Model, load, save
from training.network.network import PortraitNetwork
from training.network.reranker import Reranker, shortlist
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition
from training.state.candidate_facts import FACTS


def every_third(draw: random.Random, user: int, number: int) -> list[str]:
    """Return each user's three things in turn: what was bought last comes last again."""
    return [f"i{(user * 5 + number % 3 * 7) % 12:02d}"]


@pytest.fixture(scope="module")
def fitted() -> tuple[Prepared, Model, dict[str, float]]:
    network, prepared = popular_only(shop(every_third))
    network.without_memories()
    assert network.live is not None
    until = prepared.train_until_ms
    counts = LiveCounts.of(prepared.histories, network.items)
    network.live.users.copy_(torch.from_numpy(counts.users_at(until)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "LEAST", 50)
        patch.setitem(fitting.SETTINGS, "min_data_in_leaf", 20)
        reranker, told = fit_reranker(network, prepared, None)
    assert told is not None
    assert reranker is not None
    network.freeze()
    vocabulary = prepared.vocabulary
    nothing = UserFeatures.none()
    model = Model("fused-0", network.config, vocabulary, nothing, network, {}, None, reranker)
    return prepared, model, told


def test_what_was_bought_last_moves_down(fitted: tuple[Prepared, Model, dict[str, float]]) -> None:
    prepared, model, told = fitted
    assert told["used"] == 1
    assert told["gain"] > told["gain_at_least"] > 0.1
    network = model.network
    maker = ExampleMaker(prepared, network.config, TrainConfig())
    users = np.arange(len(prepared.histories.users))
    bounds = prepared.train_until_ms, prepared.until_ms
    found = dict[tuple[bool, bool], float]()
    for trees in (True, False):
        for timed in (True, False):
            reranker = model.reranker if trees else None
            scored = score_window(network, maker, users, bounds, timed=timed, reranker=reranker)
            found[trees, timed] = float(scored.metrics[:, 0].mean())
    assert found[True, True] > found[False, True] + 0.1
    assert found[True, False] == found[False, False]  # nobody told the time


def test_where_nothing_is_to_be_known_there_are_no_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "LEAST", 50)
    network, prepared = popular_only(shop(uniform))
    network.without_memories()
    reranker, told = fit_reranker(network, prepared, None)
    assert told is not None
    assert reranker is None
    assert told["used"] == 0


def test_few_requests_are_too_few() -> None:
    network, prepared = popular_only(shop(uniform))
    assert fit_reranker(network, replace(prepared, until_ms=prepared.train_until_ms + 1), None) == (
        None, None,
    )  # fmt: skip


def test_one_user_is_served_as_batches_are_scored(
    fitted: tuple[Prepared, Model, dict[str, float]],
) -> None:
    _, model, _ = fitted
    assert model.reranker is not None
    scorer, plain = Scorer(model), Scorer(replace(model, reranker=None))
    assert scorer.reads_counts
    counts = np.random.default_rng(1).random((2, len(model.vocabulary.items))) * 50
    transition = LearnedTransition(model)
    moved = 0
    for (_, history), now in zip(shop(every_third)[:20], (None, *[end_ms()] * 19), strict=True):
        state = transition.replay([history])[0]
        for each in (scorer, plain):
            each.take_counts(counts)
        query = plain.ask(state, now)
        assert query is not None
        before, after = query.scores(), scorer.scores(state, now)
        if now is None:
            assert (after == before).all()
            continue
        _, logits = query._weigh()
        asked = scorer.ask(state, now)
        assert asked is not None
        assert asked.moment is not None
        wanted = model.reranker.rerank(before, logits, asked.moment)
        np.testing.assert_allclose(after, wanted, rtol=1e-6)
        best, values = asked.best(5)
        assert best.tolist() == np.argsort(-after, kind="stable")[:5].tolist()
        np.testing.assert_allclose(asked.at(best), values)
        moved += np.argmax(before) != np.argmax(after)
    assert moved


def test_what_is_no_candidate_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.network.reranker.SHORTLIST", 3)
    scores = np.array([0.5, 2.0, 1.0, 2.0, 1.5, 1.0], np.float32)
    assert shortlist(scores).tolist() == [1, 3, 4]
    assert shortlist(scores[:2]).tolist() == [1, 0]


def test_facts_add_up_to_what_the_trees_add(
    fitted: tuple[Prepared, Model, dict[str, float]],
) -> None:
    _, model, _ = fitted
    assert model.reranker is not None
    state = LearnedTransition(model).replay([shop(every_third)[0][1]])[0]
    query = Scorer(replace(model, reranker=None)).ask(state, end_ms())
    asked = Scorer(model).ask(state, end_ms())
    assert query is not None
    assert asked is not None
    assert asked.moment is not None
    item, facts = model.reranker.facts(query.scores(), query._weigh()[1], asked.moment)
    added = (asked.scores() - query.scores())[item]
    np.testing.assert_allclose(model.reranker.explain(facts).sum(axis=1), added, atol=1e-4)
    for (told,), row in zip((asked.explain([row]) for row in item.tolist()), item, strict=True):
        assert sum(amount for *_, amount in told) == pytest.approx(
            added[item.tolist().index(row)] - model.reranker.explain(facts)[0, -1], abs=1e-4
        )
        assert {name for name, *_ in told} == set(FACTS)
    assert query.explain([0]) == [[]]


def test_it_survives_the_model_directory(
    fitted: tuple[Prepared, Model, dict[str, float]], tmp_path: Path
) -> None:
    _, model, _ = fitted
    network: PortraitNetwork = model.network
    about = {"training": {}, "metrics": {}}
    for name, reranker in (("new", model.reranker), ("old", None)):
        save(
            tmp_path / name, network, model.vocabulary, model.user_features,
            reranker=reranker, **about,
        )  # fmt: skip
    new, old = load(tmp_path / "new"), load(tmp_path / "old")
    assert old.reranker is None
    assert old.version != new.version
    state = LearnedTransition(new).replay([shop(every_third)[0][1]])[0]
    again = Scorer(new).scores(state, end_ms())
    np.testing.assert_array_equal(Scorer(replace(model, version=new.version)).scores(
        state, end_ms()), again)  # fmt: skip


def test_trees_of_other_facts_are_refused(
    fitted: tuple[Prepared, Model, dict[str, float]],
) -> None:
    _, model, _ = fitted
    assert model.reranker is not None
    with pytest.raises(ModelMismatchError, match="cannot be read"):
        Reranker("tree", model.vocabulary)
    other = model.reranker.trees.replace("same_weekday", "other_fact")
    with pytest.raises(ModelMismatchError, match="other facts"):
        Reranker(other, model.vocabulary)
