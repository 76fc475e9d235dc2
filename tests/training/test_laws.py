"""Laws of the learned transition, with trained weights."""

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.events import EventRecord
from tests.training.shops import DAY_MS, START_MS, Shop, event
from training.model_dir import Model
from training.repeat import KNOWN, LAST_MS
from training.scoring import Scorer
from training.state import unpack
from training.transition import LearnedTransition

KINDS = ("purchase", "view_item", "add_to_cart", "refund", "search", "login")
SOME = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def ragged(seed: int, users: int = 6, most: int = 30) -> list[list[EventRecord]]:
    draw = random.Random(seed)
    out = []
    for user in range(users):
        time, events = START_MS, []
        for number in range(draw.randrange(most)):
            # Now and then an event comes late, or at the same time.
            time += draw.choice([-DAY_MS, 0, 1000, 3_600_000, DAY_MS, 40 * DAY_MS])
            items = [f"i{draw.randrange(60):02d}" for _ in range(draw.randrange(1, 9))]
            kind = draw.choice(KINDS)
            needs = kind not in ("search", "login")
            events.append(event(f"x{user}", number, time, items if needs else [], kind))
        out.append(events)
    return out


def stepwise(transition: LearnedTransition, histories: list[list[EventRecord]]) -> list[bytes]:
    states: list[bytes | None] = [None] * len(histories)
    for k in range(max(map(len, histories), default=0)):
        active = [i for i, h in enumerate(histories) if k < len(h)]
        done = transition.step([states[i] for i in active], [histories[i][k] for i in active])
        for i, state in zip(active, done, strict=True):
            states[i] = state
    return transition.replay([[] for _ in histories], states)


def assert_same(model: Model, one: list[bytes], other: list[bytes]) -> None:
    transition, scorer = LearnedTransition(model), Scorer(model)
    for a, b in zip(one, other, strict=True):
        left = unpack(a, transition.version, transition.floats)
        right = unpack(b, transition.version, transition.floats)
        np.testing.assert_array_equal(left[0], right[0])
        assert left[2].tobytes() == right[2].tobytes()
        np.testing.assert_allclose(left[1], right[1], atol=1e-5, rtol=1e-5)
        now = int(left[0][LAST_MS]) + DAY_MS
        np.testing.assert_allclose(scorer.scores(a, now), scorer.scores(b, now), atol=1e-5)
        if left[0][KNOWN]:
            assert abs(scorer.propensity(a, now) - scorer.propensity(b, now)) < 1e-5


@pytest.fixture(params=["fused", "stacked"])
def either(request: pytest.FixtureRequest, model: Model, stacked: Model) -> Model:
    return model if request.param == "fused" else stacked


@SOME
@given(seed=st.integers(0, 10**6))
def test_unroll_is_repeated_step(either: Model, seed: int) -> None:
    transition, histories = LearnedTransition(either), ragged(seed)
    assert_same(either, transition.replay(histories), stepwise(transition, histories))


@SOME
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_replay_in_two_parts_is_replay_in_one(either: Model, seed: int, share: float) -> None:
    transition, histories = LearnedTransition(either), ragged(seed)
    cut = [round(share * len(h)) for h in histories]
    first = transition.replay([h[:c] for h, c in zip(histories, cut, strict=True)])
    second = transition.replay([h[c:] for h, c in zip(histories, cut, strict=True)], first)
    assert_same(either, transition.replay(histories), second)


@SOME
@given(seed=st.integers(0, 10**6))
def test_company_and_padding_change_nothing(either: Model, seed: int) -> None:
    transition, histories = LearnedTransition(either), ragged(seed)
    alone = [transition.replay([h])[0] for h in histories]
    assert_same(either, transition.replay(histories), alone)


def test_streaming_holds_on_long_histories(model: Model) -> None:
    assert len(model.vocabulary.items) < model.config.capacity  # the table alone is tested apart
    histories = ragged(3, users=3, most=400)
    transition = LearnedTransition(model)
    assert_same(model, transition.replay(histories), stepwise(transition, histories))


def test_events_without_items_leave_the_state_alone(model: Model, histories: Shop) -> None:
    transition = LearnedTransition(model)
    before = transition.replay([histories[0][1]])
    assert transition.step(before, [event("u", 1, START_MS, [], "login")]) == before


def test_a_purchase_raises_its_item(model: Model) -> None:
    transition, scorer = LearnedTransition(model), Scorer(model)
    state = transition.step([None], [event("u", 1, START_MS, ["i05"])])[0]
    row = model.vocabulary.index["i05"] - 1
    after = scorer.scores(state, START_MS + DAY_MS)
    assert (after > after[row]).sum() < 5


def test_unknown_user_gets_popularity(model: Model) -> None:
    scorer = Scorer(model)
    np.testing.assert_array_equal(scorer.scores(None, 0), model.vocabulary.log_popularity)
    assert not scorer.user_vector(None).any()
