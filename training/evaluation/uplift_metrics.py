"""Uplift metrics of a score: Qini and uplift curves and their areas.

They compare the treated with the untreated among the highest scores, so they mean an effect
only where treatment was given at random. Both curves have the share of users on the one axis
and outcome gained, per user of the treated group, on the other; both end at the average
effect. Belongs here: these measures, on plain arrays. Not here: where the arrays come from.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_repo.errors import InvalidInputError

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class UpliftCurve:
    """Outcome gained by treating the users with the highest scores.

    Attributes
    ----------
    share
        Share of users that are treated, ascending from 0 to 1, shape (K,). Users of equal
        scores are taken together.
    gain
        Outcome gained at that share, in units of the outcome per user, shape (K,).
    """

    share: Doubles
    gain: Doubles

    @property
    def area(self) -> float:
        """Area under the curve by trapezoids."""
        return float(np.trapezoid(self.gain, self.share))

    @property
    def area_over_random(self) -> float:
        """Area between the curve and the straight line to its end, which random order gives."""
        return self.area - float(self.gain[-1]) / 2


def qini_curve(outcome: npt.ArrayLike, treated: npt.ArrayLike, score: npt.ArrayLike) -> UpliftCurve:
    """Return the Qini curve: ``(Y_t(k) - Y_c(k) N_t(k) / N_c(k)) / N_t`` among the first k users.

    ``Y`` are sums of the outcome and ``N`` numbers of users, of the treated (t) and the
    control (c) among the k highest scores; 0 stands for ``Y_c N_t / N_c`` while there is no
    control (Radcliffe 2007, "Using control groups to target on predicted lift").

    Parameters
    ----------
    outcome
        Outcome of each user: 0 or 1, or an amount, shape (N,).
    treated
        Whether each user was treated, shape (N,).
    score
        What users are ordered by, highest first, shape (N,).

    Raises
    ------
    InvalidInputError
        If shapes differ, a value is not finite, or one of the two groups is empty.
    """
    share, y_t, y_c, n_t, n_c = _sums(outcome, treated, score)
    gain = y_t - y_c * np.divide(n_t, n_c, out=np.zeros_like(n_t), where=n_c > 0)
    return UpliftCurve(share, gain / n_t[-1])


def uplift_curve(
    outcome: npt.ArrayLike, treated: npt.ArrayLike, score: npt.ArrayLike
) -> UpliftCurve:
    """Return the uplift curve: ``(Y_t(k) / N_t(k) - Y_c(k) / N_c(k)) k / N`` among the first k.

    An empty group counts as a mean of 0. Parameters and errors are those of `qini_curve`.
    """
    share, y_t, y_c, n_t, n_c = _sums(outcome, treated, score)
    mean_t = np.divide(y_t, n_t, out=np.zeros_like(y_t), where=n_t > 0)
    mean_c = np.divide(y_c, n_c, out=np.zeros_like(y_c), where=n_c > 0)
    return UpliftCurve(share, (mean_t - mean_c) * share)


def qini(outcome: npt.ArrayLike, treated: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Return the Qini coefficient: the area between the Qini curve and random order.

    0: the score is no better than chance; below: worse. In units of the outcome per user, so
    that it may be taken of conversions and of revenue alike; parameters as in `qini_curve`.

    Examples
    --------
    >>> qini([1, 0, 0, 0], [1, 0, 1, 0], [0.9, 0.8, 0.2, 0.1])
    0.1875
    """
    return qini_curve(outcome, treated, score).area_over_random


def auuc(outcome: npt.ArrayLike, treated: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Return the area under the uplift curve; random order gives half the average effect.

    Examples
    --------
    >>> auuc([1, 0, 0, 0], [1, 0, 1, 0], [0.9, 0.8, 0.2, 0.1])
    0.34375
    """
    return uplift_curve(outcome, treated, score).area


def _sums(
    outcome: npt.ArrayLike, treated: npt.ArrayLike, score: npt.ArrayLike
) -> tuple[Doubles, Doubles, Doubles, Doubles, Doubles]:
    """Return share, Y_t, Y_c, N_t, N_c after no user and after each group of equal scores."""
    outcome_N, is_treated_N, score_N = _check(outcome, treated, score)
    order = np.argsort(-score_N, kind="stable")
    outcome_N, is_treated_N, score_N = outcome_N[order], is_treated_N[order], score_N[order]
    ends = np.flatnonzero(np.append(np.diff(score_N) != 0, True))

    def sum_up(values: Doubles) -> Doubles:
        return np.concatenate([[0.0], np.cumsum(values)[ends]])

    share = np.concatenate([[0.0], (ends + 1.0) / len(score_N)])
    of_treated = is_treated_N.astype(np.float64)
    of_control = 1.0 - of_treated
    return (
        share,
        sum_up(outcome_N * of_treated),
        sum_up(outcome_N * of_control),
        sum_up(of_treated),
        sum_up(of_control),
    )


def _check(
    outcome: npt.ArrayLike, treated: npt.ArrayLike, score: npt.ArrayLike
) -> tuple[Doubles, npt.NDArray[np.bool_], Doubles]:
    outcome_N = np.asarray(outcome, dtype=np.float64)
    score_N = np.asarray(score, dtype=np.float64)
    is_treated_N = np.asarray(treated).astype(bool)
    shapes = outcome_N.shape, is_treated_N.shape, score_N.shape
    if len(set(shapes)) != 1 or outcome_N.ndim != 1:
        raise InvalidInputError(f"outcome, treated and score have the shapes {shapes}: pass (N,)")
    if not (np.isfinite(outcome_N).all() and np.isfinite(score_N).all()):
        raise InvalidInputError("outcome and score must be finite: leave such users out")
    if is_treated_N.all() or not is_treated_N.any():
        raise InvalidInputError("an uplift needs treated and untreated users, and one is missing")
    return outcome_N, is_treated_N, score_N
