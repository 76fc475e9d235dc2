"""What sells just now moves the scores where that pays, and only there."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.fit.test_selection import popular_only
from tests.training.shops import end_ms, shop, uniform
from training.evaluation.predict import score_window
from training.fit.live import fit_live
from training.history.user_features import UserFeatures
from training.network.config import TrainConfig
from training.network.examples import ExampleMaker
from training.network.live_popularity import NAMES, LivePopularity
from training.network.model_dir import Model, load, save
from training.network.network import PortraitNetwork
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition


def fashions(draw: random.Random, user: int, number: int) -> list[str]:
    """Every eight days another item is what half of all buy."""
    return [f"i{(number // 4 * 5) % 12 if draw.random() < 0.5 else draw.randrange(12):02d}"]


@pytest.fixture(scope="module")
def fitted() -> tuple[PortraitNetwork, Model]:
    network, prepared = popular_only(shop(fashions))
    network.without_memories()
    told = fit_live(network, prepared, None)
    assert told is not None
    assert told["used"] == 1
    assert told["gain"] > told["gain_at_least"] > 0.05
    network.freeze()
    return network, Model(
        "fused-0", network.config, prepared.vocabulary, UserFeatures.none(), network, {}
    )


def test_where_fashions_change_it_is_used(fitted: tuple[PortraitNetwork, Model]) -> None:
    network, _ = fitted
    assert network.live is not None
    assert float(network.live.weights[1]) > 0.3  # the shorter half-life is nearer to what sells
    assert (network.live.users > 0).all()


def test_where_nothing_changes_it_stays_away() -> None:
    network, prepared = popular_only(shop(uniform))
    network.without_memories()
    told = fit_live(network, prepared, None)
    assert told is not None
    assert told["used"] == 0
    assert network.live is not None
    assert not network.live.used


def test_a_batch_is_scored_with_it_when_the_time_is_known(
    fitted: tuple[PortraitNetwork, Model],
) -> None:
    network, prepared = popular_only(shop(fashions))
    network.without_memories()
    maker = ExampleMaker(prepared, network.config, TrainConfig())
    users = np.arange(len(prepared.histories.users))
    bounds = prepared.train_until_ms, prepared.until_ms
    found = dict[str, float]()
    for name, each in (("without", LivePopularity()), ("with", fitted[0].live)):
        network.live = each
        for timed in (True, False):
            scored = score_window(network, maker, users, bounds, timed=timed)
            found[f"{name} {timed}"] = float(scored.metrics[:, 0].mean())
    assert found["with True"] > found["without True"] + 0.05
    assert found["with False"] == found["without False"]


def test_one_user_is_scored_as_the_sum_says(fitted: tuple[PortraitNetwork, Model]) -> None:
    network, model = fitted
    (_, history), now_ms = shop(fashions)[0], end_ms()
    state = LearnedTransition(model).replay([history])[0]
    scorer, items = Scorer(model), len(model.vocabulary.items)
    assert scorer.reads_counts
    before = scorer.scores(state, now_ms)
    counts = np.random.default_rng(1).random((2, items)) * 50
    scorer.take_counts(counts)
    assert network.live is not None
    added = network.live.added(counts)
    np.testing.assert_allclose(scorer.scores(state, now_ms), before + added, rtol=1e-5)
    np.testing.assert_allclose(scorer.scores(None, now_ms), model.vocabulary.log_popularity + added)
    query = scorer.ask(state, now_ms)
    assert query is not None
    best, values = query.best(5)
    wanted = np.argsort(-(before + added), kind="stable")[:5]
    assert best.tolist() == wanted.tolist()
    np.testing.assert_allclose(values, (before + added)[wanted], rtol=1e-5)
    np.testing.assert_allclose(query.at(wanted), values, rtol=1e-5)
    kept = scorer.frozen()
    for nothing in (None, np.zeros((2, items))):  # nobody knows what sells
        scorer.take_counts(nothing)
        assert (scorer.scores(state, now_ms) == before).all()
    np.testing.assert_allclose(kept.scores(state, now_ms), before + added, rtol=1e-5)
    kept.take_counts(counts * 1e-30)  # only proportions matter
    np.testing.assert_allclose(kept.scores(state, now_ms), before + added, rtol=1e-5)


def test_it_survives_the_model_directory_and_older_models_have_none(
    fitted: tuple[PortraitNetwork, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, model = fitted
    about = {"training": {}, "metrics": {}}
    save(tmp_path / "new", network, model.vocabulary, model.user_features, **about)
    again = load(tmp_path / "new").network.live
    assert again is not None
    assert network.live is not None
    torch.testing.assert_close(again.weights, network.live.weights)
    torch.testing.assert_close(again.users, network.live.users)
    whole = network.state_dict()
    older = {name: value for name, value in whole.items() if name not in NAMES}
    assert len(older) == len(whole) - len(NAMES)
    monkeypatch.setattr(network, "state_dict", lambda: older)
    save(tmp_path / "old", network, model.vocabulary, model.user_features, **about)
    old = load(tmp_path / "old").network.live
    assert old is not None
    assert not old.used
    assert not Scorer(replace(model, network=load(tmp_path / "old").network)).reads_counts
