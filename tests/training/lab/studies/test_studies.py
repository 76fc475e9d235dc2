"""What studies ask of a network, and what they count, against known answers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from feature_repo.errors import InvalidInputError
from tests.training.shops import cyclic, habits, shop
from training.evaluation.baselines import EvaluationWindow
from training.fit import selection
from training.history.prepared import Prepared
from training.history.sequences import Histories
from training.lab.comparison import portrait_model
from training.lab.comparison.datasets import by_time
from training.lab.comparison.protocol import measure
from training.lab.comparison.shop import Shop
from training.lab.comparison.study_page import STUDIES
from training.lab.studies import ablation
from training.lab.studies.adaptation import _follow, plant, step_costs
from training.lab.studies.category import category
from training.lab.studies.freshness import AGES_MS, freshness
from training.lab.studies.outlier_event import Odd, jump
from training.lab.studies.study import Study
from training.lab.studies.update_strategies import CategoryOfItems, RuleStrategy, Ways, by_category
from training.lab.studies.updating import updating
from training.neighbours.channels import Channels
from training.network.config import ModelConfig, TrainConfig
from training.network.network import PortraitNetwork

Quick = Callable[[Shop], Study]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Quick:
    """Return studies whose networks are hardly fitted."""
    torch.set_num_threads(1)
    monkeypatch.setitem(
        portrait_model.SCHEDULES,
        "short",
        portrait_model.Recipe(ModelConfig(), TrainConfig(epochs=1, warm_up=10)),
    )
    quiet = {"tell": lambda done, total, what: None, "say": lambda line: None}
    return lambda found: Study(found, "short", 0.3, (7,), **quiet)


@pytest.fixture(scope="module")
def ring() -> portrait_model.Answers:
    """A network that knows that the next item is the one after."""
    torch.set_num_threads(1)
    found = shop(cyclic, users=50)
    made = Shop("ring", found, by_time(found), support=1)
    config = TrainConfig(epochs=12, patience=12, warm_up=10, decay=1.0)
    return portrait_model.fit(made, portrait_model.ModelConfig(dropout=0.0), config, print)


def score(answers: portrait_model.Answers) -> float:
    return float(np.nanmean(measure(answers.shop, answers.shop.test, answers)[:, 0]))


def test_a_shuffled_history_takes_the_order_and_nothing_else(ring: portrait_model.Answers) -> None:
    assert score(ring) > 0.95
    assert score(replace(ring, shuffled=1)) < score(ring) - 0.2
    histories = ring.shop.histories
    cut = histories.select(np.array([3, 3, 4]), np.array([1, 9, 20]))
    mixed = portrait_model._shuffle(cut, np.random.default_rng(0))
    for u, (start, end) in enumerate(zip(cut.starts[:-1], cut.starts[1:], strict=True)):
        before, after = (sorted(h.item[h.lines[start] : h.lines[end]]) for h in (cut, mixed))
        assert before == after, u
        last = slice(cut.lines[end - 1], cut.lines[end])
        np.testing.assert_array_equal(mixed.item[last], cut.item[last])
    np.testing.assert_array_equal(mixed.time_ms, cut.time_ms)
    assert (mixed.item != cut.item).any()


def test_an_old_state_lacks_what_came_since(ring: portrait_model.Answers) -> None:
    wanted = ring.shop.test
    times = ring.shop.histories.time_ms
    gap = int((times[wanted.event] - times[wanted.event - 1]).min())
    torch.testing.assert_close(replace(ring, age_ms=gap)(wanted), ring(wanted))
    assert score(replace(ring, age_ms=4 * 86_400_000)) < score(ring) - 0.2
    ancient = replace(ring, age_ms=10**12)
    assert ancient.without_state(wanted) == 1.0
    assert ring.without_state(wanted) == 0.0
    popular = torch.from_numpy(ring.shop.vocabulary.log_popularity)
    expected = popular.expand(len(wanted.event), -1)
    torch.testing.assert_close(ancient(wanted), expected)


def test_freshness_falls_with_age(study: Quick, ring: portrait_model.Answers) -> None:
    rows = freshness(study(ring.shop))["rows"]
    assert list(rows) == list(AGES_MS)
    assert rows["0 s"]["less"]["mean"] == 0.0
    assert rows["7 days"]["ndcg@10"] < rows["0 s"]["ndcg@10"]


def test_what_a_study_cannot_use_is_refused(study: Quick, ring: portrait_model.Answers) -> None:
    made = ring.shop.of(ring.shop.histories)
    made.split = replace(made.split, by_time=False)
    with pytest.raises(InvalidInputError, match="ring has no times"):
        freshness(study(made))
    made.vocabulary = replace(made.vocabulary, categories=("one",))
    with pytest.raises(InvalidInputError, match="ring has no categories"):
        updating(study(made))


def _sum_only(network: PortraitNetwork, prepared: Prepared) -> tuple[Channels | None, Any]:
    """Weigh, but leave out the mixture: beside networks so poor it is all of every answer."""
    memory, told = selection.weigh(network, prepared)
    if memory is None or told is None:
        return memory, told
    if not told["added"]:
        network.without_memories()
        return None, told
    assert network.mixing is not None
    with torch.no_grad():
        network.mixing.shares.zero_()
        network.mixing.shares[0] = 1.0
    return memory, told


def test_every_part_is_left_out_once(study: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portrait_model, "weigh", _sum_only)
    found = shop(habits, users=30)
    made = Shop("habits", found, by_time(found), support=1)
    rows = ablation.ablate(study(made))["rows"]
    assert set(ablation.PARTS) < set(rows)
    values = [row["ndcg@10"] for row in rows.values()]
    assert len(set(values)) == len(values), "two rows are one and the same model"


class Oracle:
    """Knows each user's interest some events late."""

    def __init__(self, made: Shop, interest: np.ndarray, late: int) -> None:
        self.made, self.interest, self.late = made, interest, late

    def items(self, shop: Shop, wanted: EvaluationWindow) -> Any:
        raise NotImplementedError

    def categories(self, shop: Shop, wanted: EvaluationWindow) -> np.ndarray:
        names = [int(name[1:]) for name in self.made.vocabulary.categories]
        at = np.maximum(wanted.event - 1 - self.late, self.made.histories.starts[wanted.user])
        return np.eye(len(names), dtype=np.float32)[np.argsort(names)[self.interest[at]]]


@pytest.fixture(scope="module")
def changing() -> tuple[Shop, np.ndarray]:
    made, truth = plant(3)
    return made, np.concatenate([truth[user] for user in made.histories.users])


@pytest.mark.parametrize(("late", "until"), [(0, 1.0), (2, 3.0)])
def test_adaptation_counts_events_until_followed(
    changing: tuple[Shop, np.ndarray], late: int, until: float
) -> None:
    made, interest = changing
    event = np.flatnonzero(made.histories.time_ms >= made.split.cut_off_ms)
    event = event[event > made.histories.starts[made.owner[event]]]
    requests = EvaluationWindow(event, made.owner[event])
    found = _follow(made, Oracle(made, interest, late), requests, interest)
    assert found["events_until_followed"] == until
    # Not 0 where two changes bring an interest back.
    assert all(value < 0.2 for value in found["curve"][:late])
    assert min(found["curve"][late:]) > 0.95
    assert (found["right"] == 1.0) == (late == 0)


def test_an_odd_event_is_of_a_category_never_shown(changing: tuple[Shop, np.ndarray]) -> None:
    made, _ = changing
    wanted = EvaluationWindow(made.test.event[:60], made.test.user[:60])
    odd = Odd.of(made, wanted, np.random.default_rng(0))
    histories: Histories = odd.shop.histories
    for n, answer in enumerate(wanted.event):
        start = histories.starts[n]
        length = answer - made.histories.starts[wanted.user[n]]
        assert odd.before.event[n] == start + length
        own_start = made.histories.starts[wanted.user[n]]
        np.testing.assert_array_equal(
            histories.item[start : start + length], made.histories.item[own_start:answer]
        )
        strange = histories.category[start + length]
        had = set(histories.category[start : start + length])
        assert strange not in had or len(had) == 20
    never = RuleStrategy(CategoryOfItems.of(made), 0.9)
    assert 0.0 < jump(odd, never)["shares"] < 0.3


def test_the_three_ways_learn_the_planted_interest(
    study: Quick, changing: tuple[Shop, np.ndarray]
) -> None:
    made, _ = changing
    answers = study(made).fit(7, print)
    ways, chosen = Ways(made, answers).tune()
    assert set(chosen["clusters"]) == {"per_event", "clusters"}
    for name, way in ways.items():
        value = np.nanmean(by_category(made, made.test, way)[:, 0])
        assert value > 0.5, name  # at random .23
        shares = way.categories(made, EvaluationWindow(made.test.event[:50], made.test.user[:50]))
        np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-4)
    costs = step_costs(made, ways)
    assert set(costs) == set(ways)
    assert all(cost > 0 for cost in costs.values())


def test_the_next_category_stands_beside_its_baselines(
    study: Quick, ring: portrait_model.Answers
) -> None:
    found = shop(habits, users=60, events=120)
    made = Shop("habits", found, by_time(found), support=1)
    result = category(study(made))
    assert list(result["rows"]) == ["model", "counts_112_days", "popularity"]
    assert result["by_seed"][0] == pytest.approx(result["rows"]["model"]["ndcg@10"])
    assert STUDIES["category"][1](result, Path()).count("| counts_112_days |") == 1
    untimed = ring.shop.of(ring.shop.histories)
    untimed.split = replace(untimed.split, by_time=False)
    with pytest.raises(InvalidInputError, match="ring has no times"):
        category(study(untimed))
