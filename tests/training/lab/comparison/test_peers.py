"""Peers against what they are defined by, and on a shop with a known answer."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.training.shops import cyclic, habits, shop
from training.evaluation.baselines import EvaluationWindow
from training.lab.comparison import boosted, facts, learned, linear
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


@pytest.mark.parametrize("name", ["frequency", "tifu_knn", "ridge_baskets", "gbdt", "gbdt_timed"])
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


@pytest.mark.parametrize("timed", [False, True])
def test_facts_come_from_before_the_request(baskets: Shop, timed: bool) -> None:
    """Whoever's events: those at its time or later change nothing, the answer's among them."""
    histories, times = baskets.histories, baskets.histories.time_ms
    first = baskets.test.event[[int(np.argmin(times[baskets.test.event]))]]
    asked = EvaluationWindow(first, baskets.owner[first])
    late = np.repeat(times >= times[first[0]], np.diff(histories.lines))
    request, item = np.nonzero(np.ones((1, baskets.items)))
    before = facts.Facts(baskets, timed).before(asked, None).of(request, item)
    kept = histories.item[late].copy()
    histories.item[late] = 1
    try:
        after = facts.Facts(baskets, timed).before(asked, None).of(request, item)
    finally:
        histories.item[late] = kept
    np.testing.assert_array_equal(before, after)
    assert len(kept) > 10


def test_facts_of_a_fold_know_nothing_of_its_users(baskets: Shop) -> None:
    """Else the neighbours of a training request would have been fitted on its answer."""
    histories, mine = baskets.histories, np.flatnonzero(baskets.owner == 4)
    asked = EvaluationWindow(mine[5:6], baskets.owner[mine[5:6]])
    request, item = np.nonzero(np.ones((1, baskets.items)))
    # Popularity is of the day's beginning, so what comes later than the request is left to fitting.
    late = np.repeat(
        (baskets.owner == 4) & (histories.time_ms >= histories.time_ms[mine[5]]),
        np.diff(histories.lines),
    )
    kept = histories.item[late].copy()
    before, after = [], []
    for found in (before, after):
        known = facts.Facts(baskets, timed=True)
        found += [known.before(asked, fold).of(request, item) for fold in (4 % facts.FOLDS, None)]
        histories.item[late] = 1
    histories.item[late] = kept
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[1] != after[1]).any()


def test_facts_count_what_a_user_had(baskets: Shop) -> None:
    histories = baskets.histories
    wanted = EvaluationWindow(baskets.test.event[:30], baskets.test.user[:30])
    known = facts.Facts(baskets, timed=True)
    request, item = np.nonzero(np.ones((30, baskets.items)))
    found = known.before(wanted, None).of(request, item)
    column = {name: found[:, n].reshape(30, -1) for n, name in enumerate(known.names)}
    faded = naive(baskets, wanted, lambda since, days: 0.95**since)
    np.testing.assert_allclose(column["had"], naive(baskets, wanted, lambda since, days: 1.0))
    np.testing.assert_allclose(column["faded_0.95"], faded, rtol=1e-5)
    np.testing.assert_allclose(
        column["of_best"], faded / faded.max(axis=1, keepdims=True), rtol=1e-5
    )
    for p, event in enumerate(wanted.event):
        start, now = histories.starts[wanted.user[p]], histories.time_ms[event]
        for n in range(baskets.items):
            times = [
                histories.time_ms[e]
                for e in range(start, event)
                if n + 1 in histories.item[histories.lines[e] : histories.lines[e + 1]]
            ]
            days = (now - times[-1]) / 86_400_000 if times else np.nan
            np.testing.assert_allclose(column["days"][p, n], days, rtol=1e-5)
    first = histories.time_ms.min()
    for p, event in enumerate(wanted.event):
        today = (histories.time_ms[event] - first) // 86_400_000
        day = (histories.time_ms - first) // 86_400_000
        expected = np.zeros(baskets.items)
        for e in np.flatnonzero(day < today):
            lines = histories.item[histories.lines[e] : histories.lines[e + 1]]
            expected[lines[lines > 0] - 1] += 0.5 ** ((today - day[e]) / 7)
        np.testing.assert_allclose(column["popular_7"][p], np.log1p(expected), rtol=1e-4)


def test_what_is_no_candidate_stands_below_all_that_are(
    baskets: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts.Facts, "chosen", 3)
    monkeypatch.setattr(boosted, "TREES", 3)
    peer = boosted.Gbdt(baskets).fit_copy(next(iter(boosted.Gbdt(baskets).settings())))
    wanted = EvaluationWindow(baskets.test.event[:20], baskets.test.user[:20])
    score = peer.score(wanted).numpy()
    rest = naive(baskets, wanted, lambda since, days: 0.95**since)
    [(_, found)] = boosted._candidates(peer._facts, wanted, None)
    chosen = np.zeros(score.shape, bool)
    chosen[found.request, found.item] = True
    for p in range(20):
        assert 3 <= chosen[p].sum() <= 15
        assert chosen[p, np.argmax(rest[p])]
        assert score[p][~chosen[p]].max() < score[p][chosen[p]].min()


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
