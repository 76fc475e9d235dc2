"""Laws of the learned transition, with trained weights."""

import random
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.errors import ModelMismatchError
from feature_repo.events.schema import EventRecord
from tests.training.shops import DAY_MS, START_MS, Shop, event
from training.history.sequences import encode
from training.network.batches import event_inputs
from training.network.model_dir import Model
from training.scoring.learned_state import Layout, LearnedStates
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition

KINDS = ("purchase", "view_item", "add_to_cart", "refund", "search", "login")
SOME = settings(settings.get_profile("one fixture for all"), max_examples=15)


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


def read(model: Model, states: list[bytes]) -> LearnedStates:
    out = LearnedStates(len(states), Layout.of(model))
    out.load(states)
    return out


@pytest.fixture(params=["fused", "stacked"])
def either(request: pytest.FixtureRequest, model: Model, stacked: Model) -> Model:
    return model if request.param == "fused" else stacked


@SOME
@given(seed=st.integers(0, 10**6))
def test_one_by_one_gives_the_bytes_of_all_at_once(either: Model, seed: int) -> None:
    transition, histories = LearnedTransition(either), ragged(seed)
    assert transition.replay(histories) == stepwise(transition, histories)


@SOME
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_replay_in_two_parts_is_replay_in_one(either: Model, seed: int, share: float) -> None:
    transition, histories = LearnedTransition(either), ragged(seed)
    cut = [round(share * len(h)) for h in histories]
    first = transition.replay([h[:c] for h, c in zip(histories, cut, strict=True)])
    second = transition.replay([h[c:] for h, c in zip(histories, cut, strict=True)], first)
    assert transition.replay(histories) == second


@SOME
@given(seed=st.integers(0, 10**6))
def test_company_changes_no_byte(either: Model, seed: int) -> None:
    transition, histories = LearnedTransition(either), ragged(seed)
    assert transition.replay(histories) == [transition.replay([h])[0] for h in histories]


@SOME
@given(seed=st.integers(0, 10**6))
def test_training_sees_what_serving_keeps(either: Model, seed: int) -> None:
    """The unroll that training runs, and the states that serving reads, give the same e."""
    histories = [h for h in ragged(seed, users=8) if any(e.items for e in h)]
    encoded = encode([("", h) for h in histories], either.vocabulary)
    with torch.inference_mode():
        unrolled = either.network.unroll(event_inputs(encoded))
        e = unrolled[torch.arange(len(histories)), torch.from_numpy(encoded.lengths()) - 1]
        states = read(either, LearnedTransition(either).replay(histories))
        encoder, floats = either.network.encoder, torch.from_numpy(states.floats)
        h = floats[:, -2 * encoder.hidden : -encoder.hidden]
        found = encoder.read(floats[:, : -2 * encoder.hidden], h)
    np.testing.assert_allclose(found.numpy(), e.numpy(), atol=1e-5, rtol=1e-5)


@SOME
@given(seed=st.integers(0, 10**6))
def test_states_survive_their_bytes(either: Model, seed: int) -> None:
    transition = LearnedTransition(either)
    packed = transition.replay(ragged(seed))
    nothing = encode([("", []) for _ in packed], either.vocabulary)
    assert transition._advance(packed, nothing) == packed  # read and written again


@SOME
@given(seed=st.integers(0, 10**6), at=st.integers(0, 3000), by=st.binary(max_size=8))
def test_damaged_states_are_refused_or_read_never_crash(
    either: Model, seed: int, at: int, by: bytes
) -> None:
    whole = LearnedTransition(either).replay(ragged(seed, users=1, most=12))[0]
    at %= len(whole)
    cut, changed = whole[:at] + by, whole[:at] + by + whole[at + len(by) :]
    if len(cut) != len(whole):
        with pytest.raises(ModelMismatchError):
            read(either, [cut])
    with suppress(ModelMismatchError):
        read(either, [changed])


def test_streaming_holds_on_long_histories(model: Model) -> None:
    histories = ragged(3, users=3, most=400)
    transition = LearnedTransition(model)
    assert transition.replay(histories) == stepwise(transition, histories)


def test_evictions_do_not_depend_on_packing(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(model, config=replace(model.config, capacity=200))
    object.__setattr__(small.config, "capacity", 9)  # smaller than a config may ask for
    transition, histories = LearnedTransition(small), ragged(5, users=6, most=60)
    assert transition.replay(histories) == stepwise(transition, histories)


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
