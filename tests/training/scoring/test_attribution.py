"""What moved a score: exact by definition, honest by deletion, gone with other weights."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_repo.events.schema import EventRecord
from tests.training.conftest import SMALL, fit
from tests.training.shops import Shop, cyclic, event, shop
from training.fit.train import write_model
from training.history.sequences import encode
from training.lab.studies.faithfulness import deletion, likeness_to_random, spearman
from training.network.config import ModelConfig, TrainConfig
from training.network.encoder import FusedEncoder, pad
from training.network.model_dir import Model, load
from training.scoring.attribution import EventContributions, leave_one_out, memory_parts
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition


def asked(model: Model) -> tuple[Scorer, LearnedTransition]:
    return Scorer(model), LearnedTransition(model)


def now_of(history: list[EventRecord]) -> int:
    return history[-1].time_ms + 86_400_000


def test_a_contribution_is_the_score_less_that_of_the_history_without(
    model: Model, histories: Shop
) -> None:
    scorer, transition = asked(model)
    history = histories[3][1][:15]
    # What the model does not consume has no part in it and changes nothing.
    shown = event("u", 99, history[7].time_ms, ["i01"], kind="view_item_list")
    mixed = [*history[:8], shown, *history[8:]]
    rows, now = [0, 5, 11], now_of(history)
    found = leave_one_out(scorer, transition, mixed, rows, now_ms=now, last=10)
    assert found.events == [5, 6, 7, *range(9, 16)]
    assert found.state == transition.replay([history])[0]
    full = scorer.scores(found.state, now)[rows]
    np.testing.assert_array_equal(found.scores, full.astype(np.float64))
    for place, values in zip(found.events, found.values, strict=True):
        without = [one for n, one in enumerate(mixed) if n != place]
        state = transition.replay([without])[0]
        naive = full.astype(np.float64) - scorer.scores(state, now)[rows].astype(np.float64)
        np.testing.assert_array_equal(values, naive)


def test_an_empty_history_has_no_contributions(model: Model) -> None:
    scorer, transition = asked(model)
    found = leave_one_out(scorer, transition, [], [1], now_ms=0, last=5)
    assert (found.events, found.values.shape, found.state) == ([], (0, 1), None)


def test_the_memories_parts_add_up_to_what_they_add(summed: Model, histories: Shop) -> None:
    scorer, transition = asked(summed)
    state = transition.replay([histories[0][1]])[0]
    now_ms = now_of(histories[0][1])
    query = scorer.ask(state, now_ms)
    assert query is not None
    e = query.e * np.array([1, 0, 0], np.float32)
    added = query.scores() - replace(query, e=e, gain=np.zeros_like(query.gain)).scores()
    rows = range(len(summed.vocabulary.items))
    every = memory_parts(scorer, state, rows, now_ms)
    for row, found in zip(rows, every, strict=True):
        assert found.values.sum() + found.popularity == pytest.approx(added[row], abs=1e-4)
    assert np.abs(every[0].values).max() > 0
    assert memory_parts(scorer, None, [0], now_ms) == []


def test_evidence_adds_what_a_score_loses_without_it(summed: Model, histories: Shop) -> None:
    """A mixture of the network, whose sum has no memories, and what is held."""
    network = copy.deepcopy(summed.network)
    assert network.mixing is not None
    with torch.no_grad():
        network.mixing.weights[1:, 0] = -40.0
        network.mixing.shares.zero_()
        network.mixing.shares[[0, 2, 8]] = torch.tensor([0.5, 0.2, 0.3])
    scorer, transition = asked(replace(summed, network=network))
    state = transition.replay([histories[0][1]])[0]
    now_ms = now_of(histories[0][1])
    rows = range(len(summed.vocabulary.items))
    query = scorer.ask(state, now_ms)
    assert query is not None
    parts = query.parts(rows)
    score = scorer.scores(state, now_ms)
    np.testing.assert_allclose(np.log(parts.sum(axis=0)), score, atol=1e-4)
    for row, found in zip(rows, memory_parts(scorer, state, rows, now_ms), strict=True):
        assert found.values.sum() == pytest.approx(score[row] - np.log(parts[0, row]), abs=1e-4)
        assert found.popularity == pytest.approx(0.0, abs=1e-6)
    held = max(memory_parts(scorer, state, rows, now_ms), key=lambda p: float(p.values.max()))
    assert held.values.max() > 0.1


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, histories: Shop) -> Path:
    """A model directory without memories: what the network alone has learned."""
    folder = tmp_path_factory.mktemp("network")
    shape = ModelConfig(dim=SMALL.dim, hidden=SMALL.hidden, memory=False)
    done = fit(folder / "run", histories, shape)
    write_model(folder / "run", folder / "model", done.model, done.config)
    return folder / "model"


@pytest.mark.parametrize("which", ["memories", "network"])
def test_without_the_attributed_events_a_score_falls_twice_as_far(
    model: Model, network: Path, histories: Shop, which: str
) -> None:
    chosen = model if which == "memories" else load(network)
    some = [history for _, history in histories[:30]]
    found = deletion(chosen, some, last=len(some[0]))
    assert found.top.mean() > 0
    assert found.top.mean() >= 2 * found.drawn.mean()

    def backwards(*given: object, **named: object) -> EventContributions:
        right = leave_one_out(*given, **named)  # type: ignore[arg-type]
        return EventContributions(right.events, -right.values, right.scores, right.state)

    wrong = deletion(chosen, some, last=len(some[0]), attribute=backwards)  # the check can fail
    assert wrong.top.mean() < found.drawn.mean()


def test_other_weights_give_other_contributions(network: Path, histories: Shop) -> None:
    """Attributions that survive random weights explain the data, not the model (Adebayo, 2018)."""
    some = [history for _, history in histories[:5]]
    alike = likeness_to_random(load(network), load(network), some)
    assert alike.mean() < 0.5


def test_integrated_gradients_point_the_same_way(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A second, independent method over the encoder alone (Sundararajan et al., ICML 2017)."""
    folder = tmp_path_factory.mktemp("encoder")
    histories = shop(cyclic)
    shape = ModelConfig(dim=SMALL.dim, hidden=SMALL.hidden, repeat=False, memory=False)
    long = TrainConfig(
        epochs=12, patience=12, warm_up=10, learning_rate=5e-3, decay=0.95, average=0.9
    )
    done = fit(folder / "run", histories, shape, long)
    write_model(folder / "run", folder / "model", done.model, done.config)
    model = load(folder / "model")
    scorer, transition = asked(model)
    alike, agreed = list[float](), list[bool]()
    for _, history in histories[:20]:
        some = history[:12]
        now = now_of(some)
        state = transition.replay([some])[0]
        row = int(np.argmax(scorer.scores(state, now)))
        left_out = leave_one_out(scorer, transition, some, [row], now_ms=now, last=12)
        gradients, gap = integrated_gradients(model, some, row)
        assert abs(gap) < 0.05
        alike.append(spearman(left_out.values[:, 0], gradients))
        agreed.append(np.argmax(left_out.values[:, 0]) == np.argmax(gradients))
    assert np.mean(agreed) >= 0.6  # on which event counts most, of twelve
    assert np.mean(alike) > 0.2


def integrated_gradients(
    model: Model, history: list[EventRecord], row: int, steps: int = 64
) -> tuple[np.ndarray, float]:
    """Return each event's attribution from a history of zero inputs, and how far they miss.

    ``Σ_d (x − 0)_d · ∫ ∂s/∂x_d (αx) dα`` over the input x of the convolution.
    """
    from training.network.batches import event_inputs

    encoder, network = model.network.encoder, model.network
    assert isinstance(encoder, FusedEncoder)
    inputs = event_inputs(encode([("u", history)], model.vocabulary))
    with torch.no_grad():
        times = encoder.temporal(inputs.gap, inputs.hour, inputs.weekday)
        x = pad(encoder.content(inputs) + times, inputs.index)[0]

    def score(x_STD: torch.Tensor) -> torch.Tensor:
        c = encoder.convolve(x_STD)
        e = encoder._fuse(encoder.lstm(c)[0], c)[:, -1]
        return e @ network.item_vectors()[row]

    alphas = (torch.arange(steps) + 0.5) / steps
    points = (alphas[:, None, None] * x).requires_grad_(True)
    (slope,) = torch.autograd.grad(score(points).sum(), points)
    found = (slope.mean(dim=0) * x).sum(dim=-1)
    with torch.no_grad():
        whole = score(torch.stack([x, torch.zeros_like(x)]))
    return found.numpy(), float(found.sum() - (whole[0] - whole[1]))
