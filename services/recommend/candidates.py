"""Candidates: which items are considered at all, and where each is from.

The model's whole vocabulary is searched, exactly: up to `retrieve.MANY_ITEMS` items in one pass
of the model's score (`score`), beyond them by `retrieve`. Beside it stand items
that no vocabulary knows: new ones, ones that are trending, and the user's own. Without a
model the candidates are all items. Not here: what a candidate is worth.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from services.http.answer_schemas import CandidateSource
from services.recommend.assortment import UNKNOWN_MS, Assortment, AssortmentRows, Rows
from services.recommend.rules import DAY_MS
from services.recommend.user_context import UserContext

NEW_DAYS: Final = 30
"""An item counts as new for so long after it was first put, or became available."""
MAX_NEW: Final = 500
"""New items considered, the newest first."""
TRENDING: Final = 200
"""Trending items considered beside a model's vocabulary."""


class Newcomers:
    """The new items outside the vocabulary; put in order again when items change."""

    def __init__(self, items: Assortment) -> None:
        self._items = items
        self._edits = -1
        self._rows = self._ages = np.zeros(0, np.int64)

    def rows(self, now_ms: int) -> Rows:
        """Return the rows of new items as of ``now_ms``, newest first."""
        items = self._items
        if self._edits != items.edits:
            ages = -items.since_ms(slice(items.known, None))
            dated = np.flatnonzero(ages != -UNKNOWN_MS)
            dated = dated[np.argsort(ages[dated], kind="stable")]
            self._rows, self._ages, self._edits = items.known + dated, ages[dated], items.edits
        fresh = int(np.searchsorted(self._ages, NEW_DAYS * DAY_MS - now_ms))
        return self._rows[: min(fresh, MAX_NEW)]


def beyond_vocabulary(
    items: Assortment, newcomers: Newcomers, trending: Rows, user: UserContext, now_ms: int
) -> Rows:
    """Return the candidates that the model does not know, without repeats."""
    own = own_items(items, user)
    rows = np.concatenate([newcomers.rows(now_ms), trending[:TRENDING], own])
    return np.unique(rows[rows >= items.known])


def own_items(items: Assortment, user: UserContext) -> Rows:
    """Return the rows of the items in the user's interests."""
    rows = [items.find_row(name) for name in user.interest_items]
    return np.array([row for row in rows if row is not None], np.int64)


def sources(
    items: AssortmentRows,
    rows: Sequence[int],
    user: UserContext,
    *,
    new: Rows,
    trending: Rows,
    modelled: bool,
) -> list[list[CandidateSource]]:
    """Return for each row the sources that it is a candidate of, for explanations."""
    purchased = set(user.purchased)
    own = set(user.interest_items)
    fresh, hot = set(new.tolist()), set(trending[:TRENDING].tolist())
    found = []
    for row, item in zip(rows, items.names(np.array(rows, np.int64)), strict=True):
        names = list[CandidateSource]()
        if modelled and row < items.known:
            names.append("index")
        if item in purchased:
            names.append("repeat")
        elif item in own:
            names.append("session")
        if row in hot:
            names.append("trending")
        if row in fresh:
            names.append("new")
        found.append(names or ["catalogue"])
    return found
