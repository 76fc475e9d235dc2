"""Chance: some places go to a random one of the best items, and how likely each was is said.

Epsilon-greedy by place: with P, what remains of the list and of the best ``pool`` items, and
the item x that the list would have next, a place shows x with probability ``1 − ε + ε/|P|``
and any other of P with ``ε/|P|``. These propensities are what counterfactual estimates need
(Bottou et al., JMLR 2013). The draw follows from the recommendation's id, so an answer can be
audited.
"""

import random
from typing import Any

import numpy as np
import numpy.typing as npt

from services.recommend.assortment import Items, Rows
from services.recommend.caps import Caps
from services.recommend.diversify import best
from services.recommend.rules import Rules

Floats = npt.NDArray[np.floating[Any]]


def explore(
    items: Items, chosen: Rows, scores: Floats, rules: Rules, seed: str
) -> tuple[Rows, list[float]]:
    """Return the rows to show, and the propensity of each given the places before it.

    Parameters
    ----------
    chosen
        The list without chance, best first.
    scores
        −∞ where a row may not be shown.
    rules
        ``explore``, and the caps, which leave the pool as they are reached.
    seed
        The recommendation's id.
    """
    assert rules.explore is not None
    draw, share = random.Random(seed), rules.explore.share  # noqa: S311 - no secret
    ranked = [*chosen.tolist(), *best(scores, rules.explore.pool).tolist()]
    pool = np.array(list(dict.fromkeys(ranked)), np.int64)  # the list's own come first
    caps, shown, chances = Caps(items, pool, rules.cap), list[int](), list[float]()
    while len(shown) < len(chosen) and caps.open.any():
        open_ = np.flatnonzero(caps.open).tolist()
        at = draw.choice(open_) if draw.random() < share else open_[0]
        caps.take(at)
        shown.append(at)
        chances.append(share / len(open_) + (1 - share if at == open_[0] else 0.0))
    return pool[shown], chances
