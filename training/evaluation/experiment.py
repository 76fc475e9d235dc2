"""Experiments with two arms: differences with intervals, CUPED, sample ratio.

Users are the units: they were assigned, so they are resampled. Belongs here: estimates on plain
arrays. Not here: where the arrays come from, and whether arms were assigned at random.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special

from feature_repo.errors import InvalidInputError

ROUNDS: Final = 2000
SRM_P: Final = 0.001
"""Below this the arms are not as large as they should be, whatever the outcome says."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of the treated minus mean of the control, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> "Difference":
        """Return it for ``factor`` users instead of one."""
        return Difference(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True, slots=True)
class Compared:
    """One outcome compared.

    Attributes
    ----------
    plain
        Difference of means.
    cuped
        The same after what the covariate explains is taken away.
    variance_removed
        Share of the outcome's variance within arms that the covariate explains, 0 to 1.
    """

    plain: Difference
    cuped: Difference
    variance_removed: float


def compare(
    outcome: npt.ArrayLike,
    treated: npt.ArrayLike,
    covariate: npt.ArrayLike,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Compared:
    """Compare an outcome between arms, plain and with CUPED, by one bootstrap over users.

    CUPED (Deng et al. 2013, "Improving the sensitivity of online controlled experiments by
    utilizing pre-experiment data", section 4) takes ``theta (x - mean x)`` away from each
    outcome, with ``theta = cov(y, x) / var(x)`` within arms. Each arm is resampled with its own
    size; theta is fitted in every round anew.

    Parameters
    ----------
    outcome
        Outcome of each user, shape (N,).
    treated
        Whether each user was assigned to treatment, shape (N,).
    covariate
        What was known before the assignment, such as past spending, shape (N,).
    seed
        The same seed gives the same interval.

    Raises
    ------
    InvalidInputError
        If shapes differ, a value is not finite, or an arm has fewer than two users.
    """
    y_N, x_N = np.asarray(outcome, np.float64), np.asarray(covariate, np.float64)
    is_treated_N = np.asarray(treated).astype(bool)
    _check(y_N, is_treated_N, x_N)
    # Centred, so that sums of squares lose no digits; differences do not change by it.
    y_N, x_N = y_N - y_N.mean(), x_N - x_N.mean()
    arms = [np.stack([y, x, y * x, x * x, y * y]) for y, x in (
        (y_N[is_treated_N], x_N[is_treated_N]), (y_N[~is_treated_N], x_N[~is_treated_N])
    )]  # fmt: skip
    rng = np.random.default_rng(seed)
    share = float(is_treated_N.mean())
    of_treated, of_control = arms
    whole = _estimates(
        of_treated.mean(axis=1, keepdims=True), of_control.mean(axis=1, keepdims=True), share
    )
    drawn = _estimates(
        _resample(of_treated, rounds, rng), _resample(of_control, rounds, rng), share
    )
    plain, cuped = (
        Difference(float(one[0]), *(float(q) for q in np.quantile(many, (0.025, 0.975))))
        for one, many in zip(whole[:2], drawn[:2], strict=True)
    )
    return Compared(plain, cuped, float(whole[2][0]))


def sample_ratio(treated: int, control: int, share_treated: float) -> float:
    """Return the probability of arms at least this far from their share, by a chi-square test.

    Below `SRM_P` assignment or logging is broken, and no difference is to be trusted
    (Fabijan et al. 2019, "Diagnosing sample ratio mismatch in online controlled experiments").

    Examples
    --------
    >>> round(sample_ratio(90, 10, 0.9), 6)
    1.0
    >>> sample_ratio(800, 200, 0.9) < SRM_P
    True
    """
    total = treated + control
    expected = [total * share_treated, total * (1 - share_treated)]
    if min(expected) <= 0:
        raise InvalidInputError("a sample ratio needs users, and a share between 0 and 1")
    distance = sum((n - e) ** 2 / e for n, e in zip((treated, control), expected, strict=True))
    return float(special.chdtrc(1, distance))


def _estimates(
    treated_MR: Doubles, control_MR: Doubles, share_treated: float
) -> tuple[Doubles, Doubles, Doubles]:
    """Return plain and CUPED differences and variance removed, of R rounds.

    Parameters
    ----------
    treated_MR, control_MR
        Means of y, x, yx, xx and yy in each arm, shape (5, R).
    """
    plain = treated_MR[0] - control_MR[0]
    apart = treated_MR[1] - control_MR[1]

    def within(mean: int, one: int, other: int) -> Doubles:
        of_treated = treated_MR[mean] - treated_MR[one] * treated_MR[other]
        of_control = control_MR[mean] - control_MR[one] * control_MR[other]
        pooled: Doubles = share_treated * of_treated + (1 - share_treated) * of_control
        return pooled

    cov, var_x, var_y = within(2, 0, 1), within(3, 1, 1), within(4, 0, 0)
    theta = np.divide(cov, var_x, out=np.zeros_like(cov), where=var_x > 1e-12)
    removed = np.divide(theta * cov, var_y, out=np.zeros_like(cov), where=var_y > 1e-12)
    return plain, plain - theta * apart, removed


def _resample(arm_MN: Doubles, rounds: int, rng: np.random.Generator) -> Doubles:
    """Return the means of each round, shape (M, R)."""
    size = arm_MN.shape[1]
    found = np.empty((arm_MN.shape[0], rounds))
    for n in range(rounds):
        drawn = np.bincount(rng.integers(0, size, size), minlength=size).astype(np.float64)
        found[:, n] = arm_MN @ drawn / size
    return found


def _check(y_N: Doubles, is_treated_N: npt.NDArray[np.bool_], x_N: Doubles) -> None:
    shapes = y_N.shape, is_treated_N.shape, x_N.shape
    if len(set(shapes)) != 1 or y_N.ndim != 1:
        raise InvalidInputError(f"outcome, treated and covariate have the shapes {shapes}")
    if not (np.isfinite(y_N).all() and np.isfinite(x_N).all()):
        raise InvalidInputError("outcome and covariate must be finite")
    smaller = int(min(is_treated_N.sum(), (~is_treated_N).sum()))
    if smaller < 2:
        raise InvalidInputError(f"an arm has {smaller} users: at least 2 are needed")
