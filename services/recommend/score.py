"""Scores: what each candidate is worth to a user, by the model or without one.

With a model the score is the model's own, for every item of its vocabulary; an item that it
does not know gets the weighted mean of those that are described like it. Without one, an item
counts by what sells lately, raised where the explicit profile shows interest.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from services.recommend.assortment import Assortment, Rows
from services.recommend.content import Neighbours
from services.recommend.user_context import UserContext

if TYPE_CHECKING:
    from training.scoring.scorer import Scorer

Floats = npt.NDArray[np.floating[Any]]
_ITEM_BOOST: Final = 2.0
_CATEGORY_BOOST: Final = 1.5
_BRAND_BOOST: Final = 0.5


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of the candidates.

    Attributes
    ----------
    values
        Shape (C,).
    logits
        Whether the values are logits, of which a factor is a summand; else amounts.
    rows
        The candidates' rows, ascending, shape (C,); None: all.
    """

    values: Floats
    logits: bool
    rows: Rows | None = None

    def at(self, row: int) -> float | None:
        """Return the score of a row, None if it is no candidate."""
        if self.rows is None:
            return float(self.values[row])
        found = int(np.searchsorted(self.rows, row))
        there = found < len(self.rows) and self.rows[found] == row
        return float(self.values[found]) if there else None


def by_model(
    items: Assortment,
    scorer: "Scorer",
    neighbours: Neighbours,
    beyond: Rows,
    user: UserContext,
    now_ms: int,
) -> Scores:
    """Return the model's scores, and estimates for the rows ``beyond`` its vocabulary."""
    known = np.asarray(scorer.scores(user.learned, now_ms, user.user_features))
    if len(known) == len(items):
        return Scores(known, logits=True)
    values = np.empty(len(known) + len(beyond), known.dtype)
    values[: len(known)] = known
    values[len(known) :] = neighbours.mean(beyond, known, float(known.min(initial=0.0)))
    return Scores(values, logits=True, rows=np.append(np.arange(len(known)), beyond))


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """What the score without a model reads of an item; empty: none."""

    item_id: str
    category: str = ""
    brand: str = ""
    popularity: float = 0.0


def of_item(facts: ItemFacts, user: UserContext) -> float:
    """Return what `by_profile` gives one item, without looking at any other."""
    weights = {(i["kind"], str(i["key"])): float(i["weight"]) for i in user.interests}
    heaviest = max(weights.values(), default=0.0) or 1.0
    department = weights.get(("category", facts.category.split("/")[0]), 0.0) / 3
    shelf = weights.get(("category", facts.category), department) if facts.category else 0.0
    brand = weights.get(("brand", facts.brand), 0.0) if facts.brand else 0.0
    own = _ITEM_BOOST * weights.get(("item", facts.item_id), 0.0)
    boost = own + _CATEGORY_BOOST * shelf + _BRAND_BOOST * brand
    return facts.popularity + boost / heaviest


def by_profile(items: Assortment, popular: Floats, user: UserContext) -> Scores:
    """Return popularity plus what the interests add; popularity alone for an unknown user.

    ``(2 · item + 1.5 · category + 0.5 · brand) / heaviest``, of the interests' weights; the
    department alone counts a third.
    """
    weights = {(i["kind"], str(i["key"])): float(i["weight"]) for i in user.interests}
    if not weights:
        return Scores(popular, logits=False)
    shelf, brand = np.zeros(len(items.categories.of)), np.zeros(len(items.brands.of))
    values = popular.astype(np.float64)
    heaviest = max(weights.values()) or 1.0
    departments = {
        key: weight / 3 for (table, key), weight in weights.items()
        if table == "category" and "/" not in key
    }  # fmt: skip
    if departments:
        lines = items.categories.lines
        shelf = np.fromiter((departments.get(line[-1], 0.0) for line in lines), float, len(lines))
    for (table, key), weight in weights.items():
        if table == "category" and (number := items.categories.number(key)):
            shelf[number] = weight
        elif table == "brand" and (number := items.brands.number(key)):
            brand[number] = weight
        elif table == "item" and (row := items.row.get(key)) is not None:
            values[row] += _ITEM_BOOST * weight / heaviest
    values = values + (_CATEGORY_BOOST * shelf[items.category]) / heaviest
    values += (_BRAND_BOOST * brand[items.brand]) / heaviest
    return Scores(values, logits=False)
