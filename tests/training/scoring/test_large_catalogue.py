"""Catalogues beyond the full softmax: the same answers without a score of every item."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.training.conftest import SMALL, fit
from tests.training.shops import Shop, cyclic, end_ms, habits, shop
from training.evaluation.baselines import CANDIDATES, decayed_frequency, popularity_metrics, window
from training.evaluation.metrics import ranking_metrics
from training.evaluation.predict import score_window
from training.fit import objective, selection
from training.fit.loop import Fit, new_network
from training.fit.sparse_adam import SparseAdam
from training.fit.worker import Alone
from training.history.prepare import prepare
from training.history.vocabulary import DAY_MS
from training.lab.studies import large
from training.neighbours.channels import CHANNELS, Channels
from training.network import sampled_softmax
from training.network.batches import Targets, make_targets
from training.network.config import TrainConfig
from training.network.examples import ExampleMaker
from training.network.model_dir import Model
from training.scoring.query import BLOCK, ScoredIndex, ScoreQuery
from training.scoring.retrieval import ItemArrays, Queries, ranks, scores
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition

SHORT = TrainConfig(epochs=2, warm_up=10)


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every catalogue of more than ten items for a very large one."""
    monkeypatch.setattr(sampled_softmax, "FULL_ITEMS", 10)


@pytest.mark.parametrize(
    ("recipe", "losses"),
    [("fused", [4.356918, 3.917490]), ("stacked", [0.632860, 0.424266])],
)
def test_smaller_catalogues_are_learned_as_they_were(
    tmp_path: Path, histories: Shop, recipe: str, losses: list[float]
) -> None:
    """The losses of the code before tables were updated by rows."""
    done = fit(tmp_path, histories, replace(SMALL, recipe=recipe), SHORT)
    assert [e["loss"] for e in done.progress.epochs] == pytest.approx(losses, rel=1e-4)
    assert done.optimizer.rows is None


def test_rows_that_stand_still_are_averaged_as_if_every_row_were() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(30, 4)
    start = table.weight.detach().clone()
    average = {"t": start.clone()}
    rows = SparseAdam({"t": table}, average, betas=(0.9, 0.98), weight_decay=0.1)
    naive = start.clone()
    for step in range(1, 25):
        table.zero_grad()
        table(torch.randint(0, 30, (3,))).square().sum().backward()
        rows.clip([], 1.0)
        keep = min(0.9, step / (step + 10))
        rows.step(0.05, keep)
        naive = keep * naive + (1 - keep) * table.weight.detach()
    assert not torch.allclose(average["t"], naive, atol=1e-4)
    rows.settle()
    torch.testing.assert_close(average["t"], naive)
    current = table.weight.detach().clone()
    rows.swap()
    torch.testing.assert_close(table.weight.detach(), naive)
    rows.swap()
    assert torch.equal(table.weight.detach(), current)


def test_a_step_changes_the_rows_that_it_touched_only(
    tmp_path: Path, histories: Shop, many: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective, "NEGATIVES", 4)
    prepare(histories, cut_off_ms=end_ms(), support=5).write(tmp_path)
    made = Fit(tmp_path, SMALL, replace(SHORT, positions=2), Alone())
    assert made.optimizer.rows is not None
    assert made.optimizer.rows.names == {
        "bias.weight", "encoder.content.item.weight", "output.weight", "pair.item.weight",
        "pair.repurchase.weight",
    }  # fmt: skip
    before = {k: v.clone() for k, v in made.network.state_dict().items()}
    made.batch(made.maker.train(made.maker.train_users()[:1], 0))
    after = made.network.state_dict()
    moved = (after["output.weight"] != before["output.weight"]).any(dim=1)
    assert 0 < int(moved.sum()) < len(moved)
    for name in made.optimizer.rows.names:
        grad = dict(made.network.named_parameters())[name].grad
        assert grad is not None
        assert grad.is_sparse


@pytest.mark.parametrize("recipe", ["fused", "stacked"])
def test_a_stopped_run_by_rows_goes_on_as_if_it_had_not(
    tmp_path: Path, histories: Shop, many: None, recipe: str
) -> None:
    shape, config = replace(SMALL, recipe=recipe), replace(SHORT, epochs=3, patience=9)
    whole = fit(tmp_path / "whole", histories, shape, config)
    fit(tmp_path / "part", histories, shape, replace(config, epochs=1))
    second = Fit(tmp_path / "part", shape, config, Alone())
    second.run(resume=True)
    assert second.progress.best == whole.progress.best
    assert [e["loss"] for e in second.progress.epochs] == [e["loss"] for e in whole.progress.epochs]


def test_windows_are_ranked_as_by_all_scores(
    summed: Model, histories: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(histories, cut_off_ms=end_ms(), support=5)
    maker = ExampleMaker(prepared, summed.config, TrainConfig(), summed.memory)
    assert summed.memory is not None
    users, bounds = np.arange(20), (prepared.train_until_ms, prepared.until_ms)
    dense = score_window(summed.network, maker, users, bounds, timed=True)
    monkeypatch.setattr(sampled_softmax, "FULL_ITEMS", 10)
    monkeypatch.setattr("training.scoring.retrieval.COUNTED", 7)
    found = score_window(summed.network, maker, users, bounds, timed=True)
    assert np.array_equal(found.answers, dense.answers)
    np.testing.assert_allclose(found.metrics, dense.metrics)


def test_memories_are_weighed_as_by_all_scores(many: None, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    for full_items in (10**6, 5):
        monkeypatch.setattr(sampled_softmax, "FULL_ITEMS", full_items)
        torch.manual_seed(0)
        prepared = prepare(shop(cyclic), cut_off_ms=end_ms(), support=5)
        network = new_network(prepared, SMALL)
        # All are among so many draws, each with a probability near 1.
        monkeypatch.setattr(selection, "DENSE_ITEMS", 5)
        told.append(selection.weigh(network, prepared)[1])
    one, other = told
    assert one is not None
    assert other is not None
    assert one["added"] == other["added"] == 1
    assert other["mixture"] == 0  # of very many items the answer is the sum
    assert other["gain"] == pytest.approx(one["gain"], rel=1e-3)
    assert other["mixed"] == pytest.approx(one["mixed"], rel=1e-2)


def test_what_is_touched_is_what_is_read(
    model: Model, histories: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = model.memory
    assert isinstance(memory, Channels)
    prepared = prepare(histories, cut_off_ms=end_ms(), support=5)
    maker = ExampleMaker(prepared, model.config, TrainConfig(), memory)
    example = maker.train(np.arange(5), 0)
    assert isinstance(example.memory, torch.Tensor)
    whole = example.memory[:, : len(CHANNELS)]
    monkeypatch.setattr(sampled_softmax, "FULL_ITEMS", 10)
    sparse = maker.train(np.arange(5), 0).memory
    assert not isinstance(sparse, torch.Tensor)
    assert sparse is not None
    laid = torch.zeros_like(whole)
    laid[sparse.owner, :, sparse.item] = sparse.value
    torch.testing.assert_close(laid, whole, atol=1e-4, rtol=1e-4)


def queries_of(seed: int, items: int, held: int) -> tuple[ItemArrays, Queries]:
    generator = torch.Generator().manual_seed(seed)
    fall = torch.exp(-torch.arange(items) / items * 4)[:, None]
    vectors = torch.randn(items, 8, generator=generator) * fall
    extras = torch.randn(items, 3, generator=generator) + 3 * fall
    key = torch.randperm(items, generator=generator)[:held].sort().values
    x = torch.randn(1, 8, generator=generator)
    e = torch.rand(1, 3, generator=generator)
    return ItemArrays(vectors, extras), Queries(
        x, e, key, torch.randn(held, generator=generator) * 5
    )


def query_of(items: ItemArrays, queries: Queries) -> ScoreQuery:
    """One request as it is served, its correction in two parts and out of order."""
    e, order = queries.e[0].numpy(), torch.randperm(len(queries.key)).numpy()
    amount = queries.amount.numpy()[order]
    bonus = amount[: len(amount) // 2] / 2
    amount[: len(bonus)] -= e[0] * bonus
    u = (queries.x[0] / float(e[0])).numpy()
    return ScoreQuery(ScoredIndex(items), u, e, queries.key.numpy()[order], bonus, amount)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    items=st.integers(1, 4 * BLOCK),
    held=st.integers(0, 60),
    k=st.integers(1, 50),
    share=st.sampled_from([None, 0.0, 0.02, 0.7]),
)
def test_the_best_are_those_of_all_scores(
    seed: int, items: int, held: int, k: int, share: float | None
) -> None:
    some, queries = queries_of(seed, items, min(held, items))
    allowed = None
    if share is not None:
        allowed = np.random.default_rng(seed).random(items) < share
    expected = scores(some, queries)[0].numpy().astype(np.float64)
    if allowed is not None:
        expected[~allowed] = -np.inf
    order = np.argsort(-expected, kind="stable")[:k]
    order = order[np.isfinite(expected[order])]
    found, score = query_of(some, queries).best(k, allowed)
    assert len(found) == len(set(found.tolist())) == len(order)
    np.testing.assert_allclose(score, expected[order], atol=1e-4)
    np.testing.assert_allclose(expected[found], expected[order], atol=1e-4)


def test_most_of_a_falling_catalogue_is_passed_over() -> None:
    some, queries = queries_of(1, 100 * BLOCK, 50)
    _, _, looked = query_of(some, queries).search(20, None)
    assert looked < 10 * BLOCK


def test_ranks_of_equals_are_by_row() -> None:
    items = ItemArrays(torch.zeros(6, 2), torch.tensor([[1.0, 0, 0]] * 6))
    queries = Queries(
        torch.zeros(1, 2), torch.tensor([[1.0, 0, 0]]), torch.tensor([4]), torch.tensor([1.0])
    )
    targets = Targets(torch.zeros(6, dtype=torch.int64), torch.arange(6), torch.tensor([6]))
    assert ranks(items, queries, targets).tolist() == [2, 3, 4, 5, 1, 6]


def test_the_service_gets_the_best_of_its_scores(
    model: Model, stacked: Model, histories: Shop
) -> None:
    for each in (model, stacked):
        scorer, now = Scorer(each), end_ms()
        states = LearnedTransition(each).replay([h for _, h in histories[:5]])
        allowed = np.arange(len(each.vocabulary.items)) % 3 > 0
        for state in [*states, None]:
            whole = scorer.scores(state, now)
            query = scorer.ask(state, now)
            if query is None:  # the popularity, for all alike
                np.testing.assert_array_equal(whole, each.vocabulary.log_popularity)
                continue
            found, score = query.best(7)
            assert found.tolist() == np.argsort(-whole, kind="stable")[:7].tolist()
            np.testing.assert_allclose(score, whole[found], atol=1e-4)
            np.testing.assert_allclose(query.at(found), score, atol=1e-4)
            some, _ = query.best(10**6, allowed)
            assert sorted(some.tolist()) == np.flatnonzero(allowed).tolist()


def test_scores_of_many_items_are_the_same(
    model: Model, histories: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer(model)
    state = LearnedTransition(model).replay([histories[0][1]])[0]
    whole = scorer.scores(state, end_ms())
    monkeypatch.setattr(sampled_softmax, "FULL_ITEMS", 10)
    np.testing.assert_allclose(scorer.scores(state, end_ms()), whole, atol=1e-4, rtol=1e-4)


def test_baselines_rank_as_by_all_scores() -> None:
    prepared = prepare(shop(habits, users=8), cut_off_ms=end_ms(), support=5)
    histories, items = prepared.histories, len(prepared.vocabulary.items)
    wanted = window(histories, -(2**62), prepared.until_ms)
    popular = (np.arange(items)[::-1] // 4).astype(np.float32)  # many equals
    targets = make_targets(histories, wanted.event)
    fixed = torch.from_numpy(popular).expand(len(wanted.event), -1)
    np.testing.assert_array_equal(
        popularity_metrics(histories, wanted, popular), ranking_metrics(fixed, targets)
    )
    for decay in CANDIDATES:
        counts = np.zeros((len(wanted.event), items))
        for row, (user, answer) in enumerate(zip(wanted.user, wanted.event, strict=True)):
            for event in range(histories.starts[user], answer):
                days = (histories.time_ms[answer - 1] - histories.time_ms[event]) / DAY_MS
                faded = decay.per_event ** (answer - 1 - event)
                lines = histories.item[histories.lines[event] : histories.lines[event + 1]]
                counts[row, lines[lines > 0] - 1] += faded * 0.5 ** (days / decay.half_life_days)
        floor = 1e-3 * popular / popular.max()
        rows = torch.from_numpy(counts.astype(np.float32) + floor)
        found = decayed_frequency(histories, wanted, decay, popular)
        np.testing.assert_allclose(found, ranking_metrics(rows, targets), err_msg=str(decay))


@pytest.mark.slow
def test_a_hundred_and_twenty_thousand_items_are_learned_kept_and_asked() -> None:
    result = large.measure(120_000, users=3000, tell=lambda done, total, what: None)
    assert result["recall_of_all_scores"] >= 0.99
    assert result["details"]["validation_ndcg@10"] > 0.01
