"""Outcomes: what is a label, when it may be seen, and what calibration does to probabilities."""

import numpy as np
import pytest
import torch

from tests.training.conftest import SMALL
from tests.training.shops import DAY_MS, START_MS, Shop, end_ms, event, habits, shop
from training.evaluation.calibration import FEWEST, calibrate, log_loss
from training.fit.loop import new_network
from training.history.prepare import prepare
from training.history.prepared import OUTCOMES, Prepared, weekly_moments
from training.history.sequences import encode
from training.history.vocabulary import build_vocabulary
from training.network.config import TrainConfig
from training.network.examples import ExampleMaker
from training.network.losses import outcome_loss
from training.network.model_dir import Model
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition

MONDAY_MS = START_MS - START_MS % DAY_MS + (7 - (START_MS // DAY_MS + 3) % 7) * DAY_MS


def one_shopper(days: list[float], kinds: list[str] | None = None) -> Shop:
    kinds = kinds or ["purchase"] * len(days)
    times = [MONDAY_MS + int(day * DAY_MS) for day in days]
    found = zip(times, kinds, strict=True)
    return [("u", [event("u", n, time, ["i01"], kind) for n, (time, kind) in enumerate(found)])]


def labels(histories: Shop, days: int) -> dict[int, list[float]]:
    """Return labels by day of the moment, counted from the first Monday."""
    until = MONDAY_MS + days * DAY_MS
    encoded = encode(histories, build_vocabulary(histories, until_ms=until, support=1))
    moments = weekly_moments(encoded, since_ms=MONDAY_MS - DAY_MS, until_ms=until)
    day = (moments.time_ms - MONDAY_MS) // DAY_MS
    return dict(zip(day.tolist(), moments.labels.tolist(), strict=True))


def test_a_purchase_within_seven_days_and_none_within_twenty_eight() -> None:
    found = labels(one_shopper([-0.5, 6.9, 45.0]), days=80)
    assert found[0] == [1.0, 0.0]
    assert found[7] == [0.0, 1.0]  # the next one is 38 days off
    assert found[14] == [0.0, 1.0]
    assert found[21] == [0.0, 0.0]  # 24 days off
    assert found[42] == [1.0, 0.0]
    assert found[49] == [0.0, 1.0]


def test_an_outcome_whose_days_reach_beyond_the_data_is_not_known() -> None:
    found = labels(one_shopper([-0.5, 6.9]), days=28)
    assert found[0] == [1.0, 0.0]
    assert found[7][0] == 0.0
    assert np.isnan(found[7][1])
    assert max(found) == 21


def test_looking_is_no_purchase() -> None:
    found = labels(one_shopper([-0.5, 3.0], ["purchase", "view_item"]), days=40)
    assert found[0] == [0.0, 1.0]


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(shop(habits, users=150, events=60), cut_off_ms=end_ms(60), support=5)


def test_training_sees_no_label_that_ends_later(prepared: Prepared) -> None:
    maker = ExampleMaker(prepared, SMALL, TrainConfig())
    days = np.array(list(OUTCOMES.values()))
    ends = prepared.moments.time_ms[:, None] + days * DAY_MS
    trained = maker.labels(-(2**62), prepared.train_until_ms)
    validated = maker.labels(prepared.train_until_ms, prepared.until_ms)
    assert not (~np.isnan(trained) & (ends > prepared.train_until_ms)).any()
    assert not (~np.isnan(trained) & ~np.isnan(validated)).any()
    assert (~np.isnan(trained)).any(axis=0).all()
    assert (~np.isnan(validated)).any(axis=0).all()
    example = maker.train(maker.train_users()[:20], 0)
    np.testing.assert_array_equal(example.labels.numpy(), trained[example.moment_rows])


def test_unknown_labels_have_no_part_in_the_loss() -> None:
    logits = torch.tensor([[1.0, 5.0], [-2.0, 0.5]], requires_grad=True)
    known = torch.tensor([[1.0, torch.nan], [0.0, 1.0]])
    loss = outcome_loss(logits, known)
    loss.backward()  # type: ignore[no-untyped-call]
    expected = (np.log1p(np.exp(-1.0)) + np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-0.5))) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert logits.grad is not None
    assert float(logits.grad[0, 1]) == 0.0
    assert outcome_loss(logits[:0], known[:0]).item() == 0.0


def test_calibration_lowers_the_loss_and_never_turns_the_order_round() -> None:
    histories = shop(habits, users=250, events=60, seed=1)
    # Half of the users stop, so that there is something to say.
    cut = START_MS + 70 * DAY_MS
    left = [
        (user, [e for e in h if n % 2 or e.time_ms < cut]) for n, (user, h) in enumerate(histories)
    ]
    prepared = prepare(left, cut_off_ms=end_ms(60), support=5)
    told = list[dict[str, dict[str, float]]]()
    for sign in (1.0, -1.0):
        torch.manual_seed(0)
        network = new_network(prepared, SMALL)
        with torch.no_grad():
            network.head[2].weight.mul_(sign)
            network.head[2].bias.copy_(torch.tensor([-4.0, 4.0]))
        assert network.calibrated() == (False, False)
        told.append(calibrate(network, prepared))
        assert network.calibrated() == tuple(name in told[-1] for name in OUTCOMES)
    for name in OUTCOMES:
        found = [each[name] for each in told if name in each]
        assert len(found) == 1, name
        assert found[0]["log_loss_after"] < found[0]["log_loss_before"] - 0.5
        assert found[0]["moments"] >= 2 * FEWEST


def test_log_loss() -> None:
    assert log_loss([1, 0], np.array([0.0, 0.0])) == pytest.approx(np.log(2))
    assert log_loss([1, 0], np.array([30.0, -30.0])) < 1e-9


def test_a_state_gives_a_probability_for_each_outcome(model: Model, histories: Shop) -> None:
    state = LearnedTransition(model).replay([histories[0][1]])[0]
    scorer = Scorer(model)
    found = scorer.propensities(state, end_ms())
    assert set(found) == set(OUTCOMES)
    assert all(0 < probability < 1 for probability, _ in found.values())
    assert scorer.propensities(None, end_ms()) == {}
    later = scorer.propensities(state, end_ms() + 40 * DAY_MS)
    assert later != found
