"""Change points and growth: found where they are, and as seldom as stated where there are none."""

from typing import Any

import numpy as np
import pytest

from feature_repo.analytics import changes, intervals


def correlated(dice: Any, rho: float, buckets: int) -> Any:
    """Return counts about 400 whose logarithms are autocorrelated."""
    noise = dice.normal(size=buckets)
    for at in range(1, buckets):
        noise[at] = rho * noise[at - 1] + np.sqrt(1 - rho**2) * noise[at]
    return dice.poisson(400 * np.exp(0.15 * noise))


@pytest.mark.parametrize(
    "series",
    [
        lambda dice: dice.poisson(300, size=52),
        lambda dice: dice.poisson(4, size=52),
        lambda dice: dice.negative_binomial(20, 0.1, size=24),
        lambda dice: correlated(dice, 0.3, 52),
    ],
    ids=["poisson", "small counts", "overdispersed", "autocorrelated"],
)
def test_false_alarms_are_no_more_than_stated(series: Any) -> None:
    dice = np.random.default_rng(1)
    alarms = sum(bool(changes.find(series(dice))) for _ in range(1000))
    assert alarms <= 1000 * changes.FALSE_ALARMS + 3 * np.sqrt(1000 * 0.05 * 0.95)


def test_shifts_are_found_where_they_are_with_intervals_that_hold_them() -> None:
    dice, found, held = np.random.default_rng(2), 0, 0
    for _ in range(200):
        level = np.r_[np.full(20, 200), np.full(14, 300), np.full(18, 240)]
        shifts = changes.find(dice.poisson(level))
        assert 1 <= len(shifts) <= 4
        near = [s for s in shifts if abs(s.at - 20) <= 1]
        found += len(near)
        held += sum(s.low <= 1.5 <= s.high for s in near)
    assert found >= 195
    assert held >= 0.85 * found


def test_what_does_not_vary_or_is_short_has_no_change() -> None:
    assert changes.find([7] * 30) == []
    assert changes.find([0] * 30) == []
    assert changes.find([1, 900, 1]) == []
    assert changes.find([]) == []
    step = changes.find([5] * 10 + [50] * 10)
    assert [(s.at, s.before, s.after) for s in step] == [(10, 5.0, 50.0)]


def test_growth_is_within_its_interval_as_often_as_said() -> None:
    dice, held = np.random.default_rng(3), 0
    mean = 200 * 1.01 ** np.arange(40)
    for _ in range(400):
        fitted = intervals.growth(dice.negative_binomial(mean / 3, 0.25))
        assert fitted is not None
        held += fitted.low <= 1.01 <= fitted.high
    assert held / 400 > 0.92
    assert intervals.growth([3] * 7) is None
    assert intervals.growth([0] * 30) is None


def test_poisson_and_shares_cover_what_they_are_of() -> None:
    dice = np.random.default_rng(4)
    low, high = intervals.poisson(dice.poisson(25, 4000))
    assert np.mean((low <= 25) & (high >= 25)) >= 0.94
    low, high = intervals.share(dice.binomial(60, 0.3, 4000), 60)
    assert np.mean((low <= 0.3) & (high >= 0.3)) >= 0.93
    assert intervals.poisson(0)[0] == 0.0
