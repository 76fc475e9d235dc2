"""Differences between arms: right on average, intervals that cover, CUPED, sample ratio."""

import doctest
from typing import Any

import numpy as np
import pytest
from scipy import stats

from feature_repo.errors import InvalidInputError
from training.evaluation import experiment
from training.evaluation.experiment import SRM_P, compare, sample_ratio

CAMPAIGNS = 300


def test_examples() -> None:
    assert doctest.testmod(experiment).failed == 0


def simulated(seed: int, effect: float, users: int = 400) -> tuple[Any, Any, Any]:
    """Return spending, arm and earlier spending of a campaign with a known effect per user."""
    rng = np.random.default_rng(seed)
    habit = rng.gamma(1.0, 10.0, users)
    before = rng.poisson(habit) * 1.0
    treated = rng.random(users) < 0.7
    spending = rng.poisson(habit) + rng.binomial(1, 0.2, users) * 5.0 * effect * treated
    return spending, treated, before


def test_a_planted_effect_is_recovered_and_intervals_cover_it() -> None:
    found = [
        compare(*simulated(seed, effect=2.0), rounds=300, seed=seed) for seed in range(CAMPAIGNS)
    ]
    for name in ("plain", "cuped"):
        ours = [getattr(one, name) for one in found]
        values = np.array([one.value for one in ours])
        # The planted effect is 2 x 5 x 0.2 = 2 a user.
        assert abs(values.mean() - 2.0) < 4 * values.std() / CAMPAIGNS**0.5
        covered = sum(one.low <= 2.0 <= one.high for one in ours)
        assert 0.9 * CAMPAIGNS < covered < 0.985 * CAMPAIGNS, name


def test_between_equal_arms_five_in_a_hundred_intervals_leave_zero_out() -> None:
    for name in ("plain", "cuped"):
        wrong = 0
        for seed in range(CAMPAIGNS):
            one = getattr(compare(*simulated(seed, effect=0.0), rounds=300, seed=seed), name)
            wrong += not one.low <= 0 <= one.high
        # 15 expected; the probability of fewer than 4 or more than 30 is below 1 in 1,000.
        assert 4 <= wrong <= 30, name


def test_cuped_narrows_the_interval_by_what_the_past_explains() -> None:
    for seed in range(20):
        found = compare(*simulated(seed, effect=1.0), rounds=500)
        narrowed = (found.cuped.high - found.cuped.low) / (found.plain.high - found.plain.low)
        assert narrowed < 0.65
        assert narrowed == pytest.approx((1 - found.variance_removed) ** 0.5, abs=0.12)


def test_a_covariate_that_says_nothing_changes_little() -> None:
    spending, treated, _ = simulated(1, effect=1.0)
    for covariate in (np.zeros(400), np.random.default_rng(2).normal(size=400)):
        found = compare(spending, treated, covariate)
        assert found.cuped.value == pytest.approx(found.plain.value, abs=0.3)
        assert found.variance_removed < 0.02


def test_the_interval_is_that_of_welch_where_both_hold() -> None:
    rng = np.random.default_rng(4)
    outcome, treated = rng.normal(5, 2, 2000), np.arange(2000) % 2 == 0
    found = compare(outcome, treated, rng.normal(size=2000)).plain
    expected = stats.ttest_ind(outcome[treated], outcome[~treated], equal_var=False)
    bounds = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high), abs=0.015)


def test_the_same_seed_gives_the_same_interval_and_totals_scale() -> None:
    arrays = simulated(1, effect=1.0)
    first = compare(*arrays, rounds=50, seed=5)
    assert first == compare(*arrays, rounds=50, seed=5)
    assert first != compare(*arrays, rounds=50, seed=6)
    total = first.plain.times(10)
    assert (total.value, total.low) == (10 * first.plain.value, 10 * first.plain.low)


def test_arms_of_the_wrong_size_are_caught_and_right_ones_seldom() -> None:
    assert sample_ratio(8_700, 1_300, 0.9) < SRM_P
    assert sample_ratio(0, 100, 0.9) < SRM_P
    rng = np.random.default_rng(0)
    drawn = rng.binomial(1000, 0.9, 2000)
    p = np.array([sample_ratio(n, 1000 - n, 0.9) for n in drawn])
    assert 0.03 < (p < 0.05).mean() < 0.07
    assert (p < SRM_P).mean() < 0.005


@pytest.mark.parametrize(
    ("outcome", "treated", "covariate", "words"),
    [
        ([1, 2, 3], [1, 0, 0], [1, 2, 3], "1 users"),
        ([1, 2], [1, 0, 0], [1, 2], "shapes"),
        ([1, np.nan, 1, 1], [1, 1, 0, 0], [1, 2, 3, 4], "finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    outcome: Any, treated: Any, covariate: Any, words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        compare(outcome, treated, covariate)
    with pytest.raises(InvalidInputError):
        sample_ratio(1, 1, 1.0)
