"""Intervals, all of 95 % unless said otherwise: of counts, shares, means and growth.

Belongs here: statistics of plain numbers. What they are of is the answers' own.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import special

LEVEL: Final = 0.95
_Z: Final = float(special.ndtri(0.5 + LEVEL / 2))

Floats = npt.NDArray[np.float64]


def poisson(counts: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return the exact interval of the mean of which each count is a draw (Garwood, 1936).

    Examples
    --------
    >>> [round(float(side), 2) for side in poisson(20)]
    [12.22, 30.89]
    """
    n = np.asarray(counts, dtype=float)
    tail = (1 - LEVEL) / 2
    low = np.where(n > 0, special.gammaincinv(np.maximum(n, 1), tail), 0.0)
    return low, special.gammaincinv(n + 1, 1 - tail)


def share(part: npt.ArrayLike, whole: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return the interval of a share of independent people (Wilson, 1927).

    Examples
    --------
    >>> [round(float(side), 3) for side in share(30, 100)]
    [0.219, 0.396]
    """
    n = np.maximum(np.asarray(whole, dtype=float), 1)
    p = np.asarray(part, dtype=float) / n
    middle = p + _Z**2 / (2 * n)
    half = _Z * np.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    low, high = (middle - half) / (1 + _Z**2 / n), (middle + half) / (1 + _Z**2 / n)
    return np.maximum(low, 0.0), np.minimum(high, 1.0)


def quantile(level: float, degrees: float) -> float:
    """Return half the width of a t interval, in standard errors."""
    return float(special.stdtrit(degrees, 0.5 + level / 2))


def memory(residuals: Floats, fitted: int = 1) -> float:
    """Return the first autocorrelation of residuals, corrected for its bias, within 0 and 0.9.

    The estimate falls short by about (1 + 3ρ) / n (Kendall, 1954), and by more the more was
    fitted.

    Parameters
    ----------
    fitted
        How many parameters the residuals lost, about.
    """
    n = len(residuals)
    square = float(residuals @ residuals)
    if n < 5 or square <= 0:
        return 0.0
    plain = float(residuals[1:] @ residuals[:-1]) / square
    return min(max((n * plain + fitted) / (n - 3), 0.0), 0.9)


def inflation(rho: float) -> float:
    """Return by how much autocorrelation widens the variance of a mean."""
    return (1 + rho) / (1 - rho)


@dataclass(frozen=True, slots=True)
class Growth:
    """Factor by which a series grows from one bucket to the next, and its interval."""

    factor: float
    low: float
    high: float


def growth(counts: npt.ArrayLike) -> Growth | None:
    """Fit a log-linear trend to counts; None below eight buckets or without counts.

    Quasi-Poisson: the spread of the residuals, where wider than Poisson's, and their
    autocorrelation widen the interval.
    """
    y = np.asarray(counts, dtype=float)
    n = len(y)
    if n < 8 or y.sum() <= 0:
        return None
    t = np.arange(n) - (n - 1) / 2
    design = np.column_stack([np.ones(n), t])
    b = np.array([np.log(y.mean()), 0.0])
    for _ in range(25):
        mean = np.exp(np.clip(design @ b, -30, 30))
        step = np.linalg.solve(design.T @ (design * mean[:, None]), design.T @ (y - mean))
        b += step
        if np.abs(step).max() < 1e-9:
            break
    mean = np.exp(np.clip(design @ b, -30, 30))
    residuals = (y - mean) / np.sqrt(mean)
    dispersion = max(1.0, float(residuals @ residuals) / (n - 2)) * inflation(memory(residuals, 2))
    covariance: Any = np.linalg.inv(design.T @ (design * mean[:, None]))
    half = quantile(LEVEL, n - 2) * float(np.sqrt(dispersion * covariance[1, 1]))
    return Growth(float(np.exp(b[1])), float(np.exp(b[1] - half)), float(np.exp(b[1] + half)))
