"""The list as one piece of work: diversity, caps and exploration, over rows that stand still.

Belongs here: how long that takes, and so whose it is. How rows are chosen is `diversify`'s and
`explore`'s.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.recommend.assortment import AssortmentRows, Rows
from services.recommend.diversify import POOL, diversify
from services.recommend.explore import explore
from services.recommend.rules import Rules

Floats = npt.NDArray[np.floating[Any]]
Choice = tuple[Rows, list[float]]
"""Rows best first, and the propensity of each; none without exploration."""

LONG: Final = 10_000
"""Ranks times items to choose among from which on a list takes more than some milliseconds."""


@dataclass(frozen=True, slots=True)
class Choosing:
    """A list to be chosen; `choose` may be called from any thread.

    Attributes
    ----------
    items, values, new
        Rows, their scores (−∞ where a row may not be chosen) and which are new.
    n, rules, seed
        See `services.recommend.recommendation_request.RecommendationRequest`.
    vectors
        Gives the embeddings of the vocabulary; None: items are alike by category and brand.
    users
        Gives how many users had to do with items lately.
    """

    items: AssortmentRows
    values: Floats
    new: Rows
    n: int
    rules: Rules
    seed: str
    vectors: Callable[[], Floats] | None
    users: Callable[[list[str]], Floats]

    @property
    def long(self) -> bool:
        """Whether it may take longer than an event loop should be held up."""
        rules, most = self.rules, 0
        if rules.diversity > 0:
            most = max(POOL, 5 * self.n)
        if rules.cap.brand is not None or rules.cap.category is not None:
            most = len(self.values)  # where the caps leave places empty
        if rules.explore is not None and rules.explore.share > 0:
            if rules.explore.by == "thompson":
                return True
            most = max(most, rules.explore.pool + self.n)
        return self.n * most > LONG

    def choose(self) -> Choice:
        """Return the list."""
        items, rules = self.items, self.rules
        vectors = None
        if rules.diversity > 0 and self.vectors is not None:
            vectors = self.vectors()[items.vocabulary]
        rows = diversify(items, self.values, self.n, rules, vectors, self.new)
        if rules.explore is None or rules.explore.share == 0 or not len(rows):
            return rows, []
        return explore(
            items, rows, self.values, rules, self.seed,
            lambda some: self.users(items.names(some)),
        )  # fmt: skip
