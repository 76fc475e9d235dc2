"""The next category: what was bought, what may be seen, and one answer online and offline."""

import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.features import snapshots
from feature_repo.user_profile.order_memory import without_repeats
from tests.feature_repo import shop_log
from tests.training.conftest import SMALL
from tests.training.shops import DAY_MS, START_MS, Shop, end_ms, event, habits, shop
from training.evaluation.calibration import NEXT_CATEGORY, calibrate
from training.evaluation.category_baselines import (
    category_counts,
    count_metrics,
    popular_categories,
)
from training.evaluation.category_window import ask, measure, moments_inside
from training.evaluation.evaluate import _next_category, _prepare
from training.fit.loop import Fit, new_network
from training.fit.worker import Alone
from training.history.category_interests import InterestReader, read_interests
from training.history.prepare import prepare
from training.history.prepared import Prepared, weekly_moments
from training.history.sequences import Histories, encode
from training.history.vocabulary import build_vocabulary, category_key
from training.network.batches import Targets
from training.network.config import TrainConfig
from training.network.examples import ExampleMaker
from training.network.model_dir import Model
from training.network.next_category import NEXT_DAYS, bought_within, category_loss
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition

few = settings(max_examples=12, suppress_health_check=list(HealthCheck))


def encoded(log: list[EventRecord]) -> tuple[Histories, list[str], Shop]:
    histories = [(u, [e for e in log if e.user == u]) for u in shop_log.USERS]
    vocabulary = build_vocabulary(histories, until_ms=2**53, support=1)
    return encode(histories, vocabulary), ["", *vocabulary.categories], histories


@given(log=shop_log.events(), days=st.integers(0, 130))
@few
def test_what_is_bought_within_fourteen_days(log: list[EventRecord], days: int) -> None:
    assume(any(e.type == "purchase" for e in log))  # else every event is a target
    found, names, histories = encoded(log)
    users = np.array([2, 0, 1, 0])
    times = shop_log.START_MS + np.array([days, days, 0, 130]) * DAY_MS
    bought = bought_within(found, users, times)
    for row, (user, time_ms) in enumerate(zip(users, times, strict=True)):
        expected = {
            category_key(line.category)
            for e in histories[user][1]
            if e.type == "purchase" and time_ms <= e.time_ms < time_ms + NEXT_DAYS * DAY_MS
            for line in {i.item_id: i for i in e.items}.values()
        } - {""}
        got = [names[k + 1] for k in bought.item[bought.owner == row].tolist()]
        assert sorted(got) == sorted(expected)
        assert bought.sizes[row] == len(expected)


@given(log=shop_log.events())
@settings(few, max_examples=4)
def test_interests_are_those_of_the_feature_service(log: list[EventRecord]) -> None:
    """An order told again, with the lines that it had, is one basket in both."""
    once = {e.id for u in shop_log.USERS for e in without_repeats([o for o in log if o.user == u])}
    lines = dict[tuple[str, str | None], list[ItemRecord]]()
    for n, each in enumerate(log):
        if each.type == "purchase" and each.id in once:
            lines[each.user, each.order_id] = each.items
        elif each.type == "purchase":
            log[n] = msgspec.structs.replace(each, items=lines[each.user, each.order_id])
    found, names, _ = encoded([e for e in log if e.id in once])
    reader = InterestReader(found, len(names) - 1)
    with tempfile.TemporaryDirectory() as folder:
        home = shop_log.write(Path(folder), log)
        snapshots.build(home, until=shop_log.START.replace(month=8))
        path = home / "features" / "profile"
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist() if path.exists() else []
    for row in rows:
        time_ms = round(row["event_timestamp"].timestamp() * 1000)
        ours = reader.at(np.array([shop_log.USERS.index(row["user"])]), np.array([time_ms]))
        theirs = read_interests(row, {name: n for n, name in enumerate(names) if n})
        a, b = (
            {k: v for k, v in zip(i.category[0].tolist(), i.share[0].tolist(), strict=True) if k}
            for i in (ours, theirs)
        )
        assert a == pytest.approx(b, abs=1e-6)


def test_names_that_the_model_does_not_know_are_left_out() -> None:
    row = {"interest_categories": ["gone", "A/b"], "interest_category_weights": [0.5, 0.25]}
    found = read_interests(row, {"A/b": 3})
    assert found.category[0].tolist() == [3] + [0] * 9
    assert found.share[0].tolist() == [0.25] + [0.0] * 9
    for nothing in (None, {}, dict.fromkeys(row)):
        assert not read_interests(nothing, {"A/b": 3}).category.any()


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(shop(habits, users=150, events=60), cut_off_ms=end_ms(60), support=5)


def test_training_sees_no_fortnight_that_ends_later(prepared: Prepared) -> None:
    maker = ExampleMaker(prepared, SMALL, TrainConfig())
    users = maker.train_users()[:40]
    seen = 0
    for epoch in range(3):
        example = maker.train(users, epoch)
        ends = prepared.moments.time_ms[example.moment_rows] + NEXT_DAYS * DAY_MS
        np.testing.assert_array_equal(example.ended.numpy(), ends <= prepared.train_until_ms)
        seen += int((~example.ended).sum())
    assert seen, "no moment lies where it matters"
    early = prepared.histories.before(prepared.train_until_ms)
    cut = replace(prepared, histories=prepared.histories.select(np.arange(len(early)), early))
    one, two = (ExampleMaker(p, SMALL, TrainConfig()).train(users, 0) for p in (prepared, cut))
    network = new_network(prepared, SMALL)
    head = network.next_category
    assert head is not None
    losses = []
    for example in (one, two):
        assert example.interests is not None
        u = torch.zeros(len(example.moment_rows), SMALL.dim)
        logits = head(u, example.moment_pairs, example.interests)
        losses.append(category_loss(logits, example.bought, example.ended).item())
    assert losses[0] == losses[1]


def test_the_loss_counts_known_moments_only() -> None:
    logits = torch.tensor([[2.0, -1.0], [5.0, 5.0]], requires_grad=True)
    bought = Targets(torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([1, 1]))
    loss = category_loss(logits, bought, torch.tensor([True, False]))
    assert loss.item() == pytest.approx(np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0)), rel=1e-6)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert not logits.grad[1].any()


def favourites(draw: random.Random, user: int, number: int) -> list[str]:
    """Everybody buys of three categories of their own; the category is the last two letters."""
    own = [f"{k}-{(user * 7 + k * 3) % 30:02d}" for k in range(3)]
    return [draw.choice(own)]


def by_letters(made: Shop) -> Shop:
    for _, history in made:
        for each in history:
            each.items = [
                msgspec.structs.replace(line, category=f"C/{line.item_id[-2:]}")
                for line in each.items
            ]
    return made


def test_a_predictable_shop_is_learned_and_its_probabilities_are_calibrated(tmp_path: Path) -> None:
    histories = by_letters(shop(favourites, users=80, events=60))
    made = prepare(histories, cut_off_ms=end_ms(60), support=5)
    made.write(tmp_path)
    torch.set_num_threads(1)
    run = Fit(tmp_path, SMALL, TrainConfig(epochs=4, patience=4, warm_up=10), Alone())
    run.run(resume=False)
    network = run.network
    network.load_state_dict(run.best)
    rows = moments_inside(run.maker, made.train_until_ms, made.until_ms)
    found = measure(network, run.maker, rows)
    popular = popular_categories(made.histories, 30, until_ms=made.train_until_ms)
    known = count_metrics(made.histories, made.moments, rows, popular, np.inf)
    assert np.nanmean(found.metrics[:, 0]) > 0.95
    assert np.nanmean(known[:, 0]) < 0.5
    assert network.next_category is not None
    assert not network.next_category.calibrated()
    told = calibrate(network, made)[NEXT_CATEGORY]
    assert network.next_category.calibrated()
    assert told["log_loss_after"] < told["log_loss_before"]
    after = measure(network, run.maker, rows)
    np.testing.assert_allclose(after.metrics, found.metrics, atol=1e-6)
    assert after.calibration_error() < 0.05


def test_counts_are_of_baskets_before_the_moment() -> None:
    made = [("u", [event("u", n, START_MS + n * DAY_MS, ["i01", "j01", "i02"]) for n in range(3)])]
    vocabulary = build_vocabulary(made, until_ms=2**53, support=1)
    histories = encode(made, vocabulary)
    counts = category_counts(histories, np.array([0]), np.array([START_MS + 2 * DAY_MS]), 2)
    expected = 0.5 ** (1 / 112) + 0.5 ** (2 / 112)
    np.testing.assert_allclose(counts, [[expected, expected]], rtol=1e-6)


def test_streaming_gives_what_the_batch_does(model: Model, histories: Shop) -> None:
    found = encode(histories, model.vocabulary)
    moments = weekly_moments(found, since_ms=START_MS, until_ms=end_ms())
    made = Prepared(
        model.vocabulary, model.user_features, found,
        np.zeros((len(found.time_ms), 0), np.float32), moments, end_ms(), end_ms(),
    )  # fmt: skip
    maker, scorer = ExampleMaker(made, model.config, TrainConfig()), Scorer(model)
    rows = moments_inside(maker, START_MS + 30 * DAY_MS, end_ms())[::7]
    names, seen = ["", *model.vocabulary.categories], 0
    for answers in ask(model.network, maker, rows):
        batch = torch.sigmoid(answers.logits)
        for row, probabilities in zip(answers.moment_rows, batch, strict=True):
            user, now_ms = int(moments.user[row]), int(moments.time_ms[row])
            past = [e for e in histories[user][1] if e.time_ms < now_ms]
            state = LearnedTransition(model).replay([past])[0]
            at = InterestReader(found, len(names) - 1).at(np.array([user]), np.array([now_ms]))
            online = {
                "interest_categories": [names[k] for k in at.category[0].tolist() if k],
                "interest_category_weights": [v for v in at.share[0].tolist() if v],
            }
            told = scorer.next_categories(state, now_ms, online, most=99)
            assert told is not None
            got = dict(told.probabilities)
            assert list(got.values()) == sorted(got.values(), reverse=True)
            for name, probability in zip(names[1:], probabilities.tolist(), strict=True):
                assert got[name] == pytest.approx(probability, abs=1e-5)
            seen += 1
    assert seen > 20


def test_who_has_no_event_and_what_has_no_head(model: Model, stacked: Model) -> None:
    assert Scorer(model).next_categories(None, end_ms()) is None
    state = LearnedTransition(stacked).step([None], [event("u", 1, START_MS, ["i01"])])[0]
    assert Scorer(stacked).next_categories(state, end_ms()) is None
    few_only = Scorer(model).next_categories(
        LearnedTransition(model).step([None], [event("u", 1, START_MS, ["i01"])])[0],
        None,
        most=3,
    )
    assert few_only is not None
    assert len(few_only.probabilities) == 3


def test_evaluation_sets_the_head_beside_its_baselines(model: Model, histories: Shop) -> None:
    bounds = end_ms() - 28 * DAY_MS, end_ms()
    made = _prepare(model, histories, bounds, None)
    found = _next_category(model, made, bounds)
    assert found is not None
    assert list(found["rows"]) == ["model", "counts_112_days", "popularity"]
    assert found["users"] == 60
    low, high = found["difference"]["ndcg@10"]["ci"]
    assert low <= found["difference"]["ndcg@10"]["mean"] <= high
    assert _next_category(model, made, (end_ms() - 9 * DAY_MS, end_ms())) is None
