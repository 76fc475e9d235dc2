"""Chance: some places go to a random one of the best items, and how likely each was is said.

Epsilon-greedy by place: with the remaining best ``pool`` items P and the item x that the list
would have next, a place shows x with probability ``1 − ε + ε/|P|`` and any other of P with
``ε/|P|``. These propensities are what counterfactual estimates need (Bottou et al., JMLR
2013). The draw follows from the recommendation's id, so an answer can be audited.
"""

import random
from typing import Any

import numpy as np
import numpy.typing as npt

from services.recommend.assortment import Rows
from services.recommend.diversify import best
from services.recommend.rules import Explore

Floats = npt.NDArray[np.floating[Any]]


def explore(chosen: Rows, scores: Floats, rule: Explore, seed: str) -> tuple[Rows, list[float]]:
    """Return the rows to show, and the propensity of each given the places before it.

    Parameters
    ----------
    chosen
        The list without chance, best first.
    scores
        −∞ where a row may not be shown.
    seed
        The recommendation's id.
    """
    draw = random.Random(seed)  # noqa: S311 - no secret
    pool = list(dict.fromkeys([*chosen.tolist(), *best(scores, rule.pool).tolist()]))
    left, shown, chances = chosen.tolist(), list[int](), list[float]()
    for _ in range(len(chosen)):
        following = left[0] if left else pool[0]
        random_one = draw.random() < rule.share
        row = draw.choice(pool) if random_one else following
        chance = rule.share / len(pool) + (1 - rule.share if row == following else 0.0)
        shown.append(row)
        chances.append(chance)
        pool.remove(row)
        if row in left:
            left.remove(row)
    return np.array(shown, np.int64), chances
