"""The learned state as of a moment sees what came before it and nothing else."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch

from tests.training.shops import DAY_MS, START_MS, cyclic, event, shop
from training.lab.comparison import portrait_model
from training.lab.studies.coupon_model import item_match
from training.lab.studies.embedding import LearnedHistory, StateEncoder
from training.lab.targeting.campaigns import CouponCampaign
from training.network.config import ModelConfig, TrainConfig

FITTED_MS = START_MS + 60 * DAY_MS
ASKED_MS = START_MS + 70 * DAY_MS


@pytest.fixture(scope="module")
def encode() -> Callable[..., StateEncoder]:
    """Return encoders fitted in a moment."""
    torch.set_num_threads(1)
    quick = portrait_model.Recipe(
        ModelConfig(dropout=0.0), TrainConfig(epochs=6, warm_up=10, decay=1.0)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(portrait_model.SCHEDULES, "short", quick)
        yield lambda histories: StateEncoder(
            histories, fitted_until_ms=FITTED_MS, seed=7, tell=lambda line: None
        )


@pytest.fixture(scope="module")
def ring(encode: Callable[..., StateEncoder]) -> StateEncoder:
    return encode(shop(cyclic))


def test_it_knows_what_comes_next(ring: StateEncoder) -> None:
    users = [f"u{n:03d}" for n in range(24)]
    found = ring.at(users, np.full(24, ASKED_MS), items=True)
    assert found.item is not None
    bought = {u: [e for e in h if e.time_ms < ASKED_MS] for u, h in shop(cyclic)}
    following = [f"i{(int(bought[u][-1].items[0].item_id[1:]) + 1) % 12:02d}" for u in users]
    best = [ring.items[n] for n in found.item.argmax(axis=1)]
    assert np.mean([a == b for a, b in zip(best, following, strict=True)]) > 0.8


def test_later_events_change_nothing(
    ring: StateEncoder, encode: Callable[..., StateEncoder]
) -> None:
    users = ["u000", "u001", "u059", "u000"]
    times = [ASKED_MS, ASKED_MS - 9 * DAY_MS, ASKED_MS, ASKED_MS - 20 * DAY_MS]
    expected = ring.at(users, times, items=True)
    # Other items from the first moment asked about on: fitted on the same, asked with others.
    changed = [
        (u, [
            e if e.time_ms < ASKED_MS else event(u, 900 + k, e.time_ms, ["i05", "i07"])
            for k, e in enumerate(h)
        ])
        for u, h in shop(cyclic)
    ]  # fmt: skip
    found = encode(changed).at(users, times, items=True)
    for name in ("vector", "probability", "item"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), atol=1e-5, err_msg=name
        )
    later = ring.at(users[:1], [ASKED_MS + 5 * DAY_MS])
    assert np.abs(later.vector - expected.vector[:1]).max() > 0.01


def test_who_has_no_event_is_popular_and_average(ring: StateEncoder) -> None:
    found = ring.at(["nobody", "u000", "u001"], [ASKED_MS, START_MS, ASKED_MS], items=True)
    assert not found.vector[:2].any()
    assert found.vector[2].any()
    assert found.item is not None
    np.testing.assert_array_equal(found.item[0], ring.network.biases.detach().numpy())
    np.testing.assert_allclose(found.probability[0], found.probability[2])


def test_match_is_the_probability_of_a_campaigns_products() -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], np.float32))
    coupons = pd.DataFrame({"coupon_upc": [1, 1, 2, 2], "product_id": [10, 11, 11, 99]})
    day = pd.Timestamp("2017-03-01")
    campaign = CouponCampaign(
        1, "Type A", day, day, np.array([1, 2]), coupons, np.zeros(2, np.bool_)
    )
    learned = LearnedHistory(np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32), logits)
    found = np.exp(item_match(learned, ["10", "11", "12"], campaign)) - 1e-4
    np.testing.assert_allclose(found, [[1.1, 0.8, 0.8], [0.3, 0.2, 0.2]], atol=1e-5)
