"""Peers against what they are defined by, and on a shop with a known answer."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.training.shops import cyclic, habits, shop
from training.evaluation.baselines import EvaluationWindow
from training.lab.comparison import learned, linear
from training.lab.comparison.datasets import by_time
from training.lab.comparison.factors import solve
from training.lab.comparison.histories import Fade, fade_histories
from training.lab.comparison.protocol import Score, measure
from training.lab.comparison.run import compare
from training.lab.comparison.shop import Shop
from training.lab.comparison.tifu import vectors
from training.lab.comparison.tuning import MODELS, find_reason_to_skip


@pytest.fixture(scope="module")
def known() -> Shop:
    found = shop(cyclic, users=50)
    return Shop("cyclic", found, by_time(found), support=1)


@pytest.fixture(scope="module")
def baskets() -> Shop:
    found = shop(habits, users=50)
    return Shop("habits", found, by_time(found), support=1)


def score_of(name: str, shop: Shop) -> Score:
    """Return the scores of a peer in its first setting."""
    peer = MODELS[name](shop)
    return peer.fit_copy(next(iter(peer.settings()))).score


def naive(shop: Shop, wanted: EvaluationWindow, weigh: Callable[[int, float], float]) -> np.ndarray:
    out = np.zeros((len(wanted.event), shop.items), np.float64)
    histories = shop.histories
    for p, (answer, user) in enumerate(zip(wanted.event, wanted.user, strict=True)):
        last = answer - 1
        for event in range(histories.starts[user], answer):
            days = (histories.time_ms[last] - histories.time_ms[event]) / 86_400_000
            for line in range(histories.lines[event], histories.lines[event + 1]):
                if histories.item[line]:
                    weight = histories.weight[event] * weigh(int(last - event), days)
                    out[p, histories.item[line] - 1] += weight
    return out


def test_histories_fade(baskets: Shop) -> None:
    wanted = EvaluationWindow(baskets.test.event[:40], baskets.test.user[:40])
    found = fade_histories(baskets, wanted, Fade(per_event=0.9, half_life_days=20.0)).toarray()
    expected = naive(baskets, wanted, lambda since, days: 0.9**since * 0.5 ** (days / 20))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_tifu_averages_within_groups_and_over_groups(baskets: Shop) -> None:
    wanted = EvaluationWindow(baskets.test.event[:20], baskets.test.user[:20])
    size, within, between = 3, 0.9, 0.7
    found = vectors(baskets, wanted, size, within, between).toarray()
    for p in range(20):
        count = int(wanted.event[p] - baskets.histories.starts[wanted.user[p]])
        groups = -(-count // size)
        expected = naive(
            baskets, EvaluationWindow(wanted.event[[p]], wanted.user[[p]]),
            lambda since, _, g=groups: within ** (since % size) * between ** (since // size)
            / size / g,
        )  # fmt: skip
        np.testing.assert_allclose(found[p], expected[0], rtol=1e-5)


def test_als_solves_its_normal_equations(baskets: Shop) -> None:
    x = fade_histories(baskets, baskets.test, Fade())[:5]
    items = torch.randn(baskets.items, 6, generator=torch.Generator().manual_seed(0))
    users = solve(x, items, alpha=3.0, ridge=0.5)
    for u in range(5):
        confidence = 1 + 3.0 * torch.from_numpy(x[u].toarray()[0])
        preference = (torch.from_numpy(x[u].toarray()[0]) > 0).float()
        left = items.T @ (confidence[:, None] * items) + 0.5 * torch.eye(6)
        expected = torch.linalg.solve(left, items.T @ (confidence * preference))
        torch.testing.assert_close(users[u], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["transitions", "gru4rec", "sasrec", "hstu"])
def test_a_peer_that_knows_order_learns_a_ring(
    known: Shop, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned, "MAX_EPOCHS", 30)
    monkeypatch.setattr(learned, "BATCH", 8)
    torch.set_num_threads(1)
    assert np.nanmean(measure(known, known.test, score_of(name, known))[:, 0]) > 0.9


@pytest.mark.parametrize("name", ["frequency", "tifu_knn", "ridge_baskets"])
def test_a_peer_that_counts_learns_habits(baskets: Shop, name: str) -> None:
    popular, counted = (
        np.nanmean(measure(baskets, baskets.test, score_of(n, baskets))[:, 0])
        for n in ("popularity", name)
    )
    assert counted > popular + 0.1


def test_what_stands_behind_the_last_item_changes_nothing(known: Shop) -> None:
    for encoder in (learned.Attention, learned.Recurrent, learned.Gated):
        network = learned.Sequence(known.items, encoder(learned.Width(dim=16)), learned.Width(16))
        network.eval()
        alone = torch.tensor([[3, 1, 4]])
        beside = torch.tensor([[3, 1, 4, 0, 0], [1, 1, 2, 2, 5]])
        with torch.no_grad():
            one = network.states(alone, torch.tensor([3]))[0, 2]
            two = network.states(beside, torch.tensor([3, 5]))[0, 2]
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_no_peer_sees_the_answer(baskets: Shop) -> None:
    """A request's scores stay as they are when its answer and all that follows change."""
    wanted = EvaluationWindow(baskets.test.event[:1], baskets.test.user[:1])
    for name in ("frequency", "item_knn", "ease", "transitions", "ials", "tifu_knn",
                 "ridge_baskets"):  # fmt: skip
        score = score_of(name, baskets)
        before = score(wanted).clone()
        first = baskets.histories.lines[wanted.event[0]]
        kept = baskets.histories.item[first:].copy()
        baskets.histories.item[first:] = 1
        try:
            torch.testing.assert_close(score(wanted), before, msg=name)
        finally:
            baskets.histories.item[first:] = kept


def test_dense_peers_stay_away_from_large_catalogues(
    baskets: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_reason_to_skip("ease", baskets) is None
    monkeypatch.setattr(linear, "MAX_DENSE_ITEMS", 3)
    assert "too large" in (find_reason_to_skip("ease", baskets) or "")


def test_a_comparison_says_all_that_was_done(baskets: Shop) -> None:
    said = list[str]()
    result = compare(
        baskets, seeds=[7], budget_s=0.0, models=["popularity", "frequency"],
        tell=lambda done, total, what: None, say=said.append,
    )  # fmt: skip
    controls = {"portrait_timed", "portrait_shuffled"}
    assert set(result["models"]) == {"portrait", "popularity", "frequency"} | controls
    over = result["over_best_peer"]["ndcg@10"]
    assert over["peer"] == "frequency"
    assert over["ratio"] == pytest.approx(
        result["models"]["portrait"]["ndcg@10"] / result["models"]["frequency"]["ndcg@10"]
    )
    assert over["ci"][0] <= over["difference"] <= over["ci"][1]
    assert all(result["tuning"][name]["tried"] == 1 for name in ("portrait", "frequency"))
    assert len(said) == 3
    assert result["split"]["seen_items"] != "left out"


def test_where_nothing_repeats_what_was_had_is_left_out() -> None:
    found = shop(lambda draw, user, number: [f"i{(7 * number + 3 * user) % 40:02d}"], users=50)
    made = Shop("once", found, by_time(found), support=1)
    assert made.masked
    request, item = made.had(made.test)
    scores = torch.zeros(len(made.test.event), made.items)
    scores[torch.from_numpy(request), torch.from_numpy(item)] = 9.0
    values = measure(made, made.test, lambda w: scores[: len(w.event)])
    assert np.nanmin(values[:, 3]) > 0
