"""The best of very many items: what the stages after the score need, without a score of every item.

Exact: under the rules and with their boosts the list is the one that the scores of all items give
(`training.scoring.query`). Belongs here: which items come into question. Not here: choosing
among them.
"""

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.recommend.assortment import Assortment, Mask, Rows
from services.recommend.content import Neighbours
from services.recommend.diversify import POOL
from services.recommend.rules import Rules

if TYPE_CHECKING:
    from training.scoring.query import ScoreQuery

Floats = npt.NDArray[np.floating[Any]]

MANY_ITEMS: Final = 20_000
"""Vocabularies beyond this are searched; up to it the scores of all items take less time."""
MOST_AMOUNTS: Final = 8
"""Different boosts that are searched one by one; more are left to the scores of all items."""


class Retrieved(NamedTuple):
    """Rows, ascending, their scores with boosts, and whether there may be more allowed ones."""

    rows: Rows
    values: Floats
    cut: bool


def depth(rules: Rules, n: int) -> int:
    """Return how many of the best the later stages look at."""
    if rules.cap.brand is None and rules.cap.category is None and rules.diversity == 0:
        size = n
    else:
        size = max(POOL, 5 * n)
    return max(size, rules.explore.pool if rules.explore is not None else 0)


def retrieve(
    items: Assortment,
    scored: "ScoreQuery",
    neighbours: Neighbours,
    beyond: Rows,
    mask: Mask,
    amounts: Floats | None,
    k: int,
) -> Retrieved | None:
    """Return the ``k`` best allowed items of the vocabulary, and what is allowed ``beyond`` it.

    Parameters
    ----------
    mask
        Which rows may be answered, shape (M,).
    amounts
        What boosts add to each row's score, shape (M,); None: nothing.

    Returns
    -------
    Retrieved or None
        None where so many different boosts apply that all items are to be scored.
    """
    known = mask[: items.known]
    if amounts is None:
        groups: list[tuple[float, Mask]] = [(0.0, known)]
    else:
        boosts = amounts[: items.known]
        found = np.unique(boosts[known])
        if len(found) > MOST_AMOUNTS:
            return None
        groups = [(float(amount), known & (boosts == amount)) for amount in found]
    rows, cut = [beyond[:0]], False
    values: list[Floats] = [np.zeros(0)]
    for amount, some in groups:
        row, value = scored.best(k, some)
        rows.append(row)
        values.append(value + amount)
        cut = cut or len(row) == k
    beyond = beyond[mask[beyond]]
    if len(beyond):
        rows.append(beyond)
        values.append(_estimate(scored, neighbours, beyond, values))
        if amounts is not None:
            values[-1] = values[-1] + amounts[beyond]
    all_rows, all_values = np.concatenate(rows), np.concatenate(values)
    order = np.argsort(all_rows)
    return Retrieved(all_rows[order], all_values[order], cut)


def _estimate(
    scored: "ScoreQuery", neighbours: Neighbours, beyond: Rows, values: list[Floats]
) -> Floats:
    """Return the scores of items beyond the vocabulary, of which none is worse than all others."""
    near = [neighbours.of(row) for row in beyond.tolist()]
    rows = np.unique(np.concatenate([each for each, _ in near]))
    score = scored.at(rows)
    least = min((float(each.min()) for each in (*values, score) if len(each)), default=0.0)
    return np.array(
        [score[np.searchsorted(rows, some)] @ weight if len(some) else least - 1.0
         for some, weight in near]
    )  # fmt: skip
