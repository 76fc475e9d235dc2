"""Exploration: some places go to another of the best items, and how likely each was is said.

By place, with P what remains of the list and of the best ``pool`` items, and the item x that the
list would have next, a place shows x with probability ``1 − ε + ε·q(x)`` and any other y of P with
``ε·q(y)``. Epsilon-greedy: ``q = 1/|P|``. Thompson sampling (Agrawal and Goyal, AISTATS 2013,
normal): q(y) is the probability that y is the best, if each item's score is normal around what is
predicted, with standard deviation ``s / √(1 + k)`` with k users lately. These
propensities are what counterfactual estimates need (Bottou et al., JMLR 2013). The draw follows
from the recommendation's id, so an answer can be audited.
"""

import random
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from services.recommend.assortment import Items, Rows
from services.recommend.caps import Caps
from services.recommend.diversify import best
from services.recommend.rules import Rules

Floats = npt.NDArray[np.floating[Any]]
_STEPS: Final = 256
_TAIL: Final = 8.0  # standard deviations beyond which nothing is drawn


def count_none(rows: Rows) -> Floats:
    """Return that nobody touched any of the rows."""
    return np.zeros(len(rows))


def explore(
    items: Items,
    chosen: Rows,
    scores: Floats,
    rules: Rules,
    seed: str,
    users: Callable[[Rows], Floats] = count_none,
) -> tuple[Rows, list[float]]:
    """Return the rows to show, and the propensity of each given the places before it.

    Parameters
    ----------
    chosen
        The list without exploration, best first.
    scores
        −∞ where a row may not be shown.
    rules
        ``explore``, and the caps, which leave the pool as they are reached.
    seed
        The recommendation's id.
    users
        Gives how many users had to do with each of some rows lately.
    """
    assert rules.explore is not None
    draw, share = random.Random(seed), rules.explore.share  # noqa: S311 - no secret
    ranked = [*chosen.tolist(), *best(scores, rules.explore.pool).tolist()]
    pool = np.array(list(dict.fromkeys(ranked)), np.int64)  # the list's own come first
    caps, shown, propensities = Caps(items, pool, rules.cap), list[int](), list[float]()
    beliefs = None
    if rules.explore.by == "thompson":
        beliefs = _beliefs(scores[pool].astype(np.float64), users(pool), rules.explore.spread)
    while len(shown) < len(chosen) and caps.open.any():
        open_ = np.flatnonzero(caps.open)
        explored = draw.random() < share
        if beliefs is None:
            at = draw.choice(open_.tolist()) if explored else int(open_[0])
            probability = 1 / len(open_)
        else:
            mean, deviation = beliefs[0][open_], beliefs[1][open_]
            drawn = mean + deviation * [draw.gauss(0, 1) for _ in open_] if explored else -open_
            index = int(np.argmax(drawn))
            at, probability = int(open_[index]), probability_of_best(mean, deviation, index)
        caps.take(at)
        shown.append(at)
        propensities.append(share * probability + (1 - share if at == open_[0] else 0.0))
    return pool[shown], propensities


def _beliefs(scores: Floats, users: Floats, spread: float) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of each item's score."""
    unit = float(scores.std()) or 1.0
    return scores, spread * unit / np.sqrt(1 + users)


def probability_of_best(mean: Floats, deviation: Floats, index: int) -> float:
    """Return the probability that the normal variable at ``index`` is the greatest of all.

    ``∫ φ((t − m)/s)/s · Π Φ((t − mⱼ)/sⱼ) dt`` over the others j, by the trapezoidal rule where the
    integrand is not 0.
    """
    if len(mean) == 1:
        return 1.0
    others = np.arange(len(mean)) != index
    low = max(
        float((mean[others] - _TAIL * deviation[others]).max()),
        float(mean[index] - _TAIL * deviation[index]),
    )
    high = max(low, float(mean[index])) + _TAIL * float(deviation[index])
    t = np.linspace(low, high, _STEPS)
    density = np.exp(-0.5 * ((t - mean[index]) / deviation[index]) ** 2)
    density /= deviation[index] * np.sqrt(2 * np.pi)
    below = ndtr((t[:, None] - mean[others]) / deviation[others]).prod(axis=1)
    return float(np.trapezoid(density * below, t))
