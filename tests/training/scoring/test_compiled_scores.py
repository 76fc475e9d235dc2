"""Compiled scores are torch's, or they are not used."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import SMALL, fit
from tests.training.shops import Shop
from training.fit.train import write_model
from training.network.config import ModelConfig
from training.network.mixture import COUNT_EXPERTS
from training.network.model_dir import Model, load
from training.network.network import PortraitNetwork, Requests
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, histories: Shop) -> Model:
    """A model without memories."""
    folder = tmp_path_factory.mktemp("network")
    shape = ModelConfig(dim=SMALL.dim, hidden=SMALL.hidden, memory=False)
    done = fit(folder / "run", histories, shape)
    write_model(folder / "run", folder / "model", done.model, done.config)
    return load(folder / "model")


def by_torch(model: Model) -> Scorer:
    scorer = Scorer(model)
    scorer._compiled = None
    return scorer


@pytest.fixture(scope="module", params=["sum", "mixture", "once", "network"])
def chosen(request: pytest.FixtureRequest, summed: Model, network: Model) -> Model:
    """A weighed sum, mixtures of every expert with and without what is held, or no memories."""
    if request.param == "network":
        return network
    changed = copy.deepcopy(summed.network)
    assert changed.mixing is not None
    with torch.no_grad():
        if request.param != "sum":
            changed.mixing.shares.copy_(torch.softmax(torch.arange(COUNT_EXPERTS) / 9, dim=0))
        changed.mixing.once.fill_(float(request.param == "once"))
    return replace(summed, network=changed)


def test_compiled_scores_are_those_of_torch(chosen: Model, histories: Shop) -> None:
    compiled, torchs = Scorer(chosen), by_torch(chosen)
    assert compiled.compiled
    transition = LearnedTransition(chosen)
    for user, length in enumerate((1, 2, 7, 40)):
        state = transition.replay([histories[user][1][:length]])[0]
        end_ms = histories[user][1][length - 1].time_ms
        for now_ms in (None, end_ms - 5, end_ms, end_ms + 10**6, end_ms + 10**10):
            theirs = torchs.scores(state, now_ms)
            ours = compiled.scores(state, now_ms)
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)
    np.testing.assert_array_equal(compiled.scores(None, None), torchs.scores(None, None))


def test_another_network_is_served_by_torch(
    network: Model, histories: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = PortraitNetwork.vector

    def moved(self: PortraitNetwork, e: torch.Tensor, requests: Requests) -> torch.Tensor:
        return vector(self, e, requests) + 0.1

    monkeypatch.setattr(PortraitNetwork, "vector", moved)
    scorer = Scorer(network)
    assert not scorer.compiled
    state = LearnedTransition(network).replay([histories[0][1]])[0]
    np.testing.assert_array_equal(scorer.scores(state, None), by_torch(network).scores(state, None))


def test_the_recipe_without_item_scores_is_served_by_torch(stacked: Model) -> None:
    assert not Scorer(stacked).compiled


def test_the_default_shape_is_compiled(tmp_path: Path, histories: Shop) -> None:
    done = fit(tmp_path / "run", histories, ModelConfig(memory=False))
    write_model(tmp_path / "run", tmp_path / "model", done.model, done.config)
    assert Scorer(load(tmp_path / "model")).compiled
