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
from services.recommend.assortment import UNKNOWN_MS, Assortment, Items, Rows
from services.recommend.rules import DAY_MS
from services.recommend.user_context import UserContext

NEW_DAYS: Final = 30
"""An item counts as new for so long after it was first put, or became available."""
MAX_NEW: Final = 500
"""New items considered, the newest first."""
TRENDING: Final = 200
"""Trending items considered beside a model's vocabulary."""


class Newcomers:
    """The new items outside the vocabulary; found again when items change, or a minute passes."""

    def __init__(self, items: Assortment) -> None:
        self._items = items
        self._found: tuple[int, int, Rows] | None = None

    def rows(self, now_ms: int) -> Rows:
        """Return the rows of new items as of ``now_ms``, newest first."""
        items, minute = self._items, now_ms // 60_000
        if self._found is None or self._found[:2] != (items.edits, minute):
            beyond = np.arange(items.known, len(items))
            since = items.since_ms(beyond)
            fresh = (since != UNKNOWN_MS) & (since > now_ms - NEW_DAYS * DAY_MS)
            order = np.argsort(-since[fresh], kind="stable")
            self._found = (items.edits, minute, beyond[fresh][order][:MAX_NEW])
        return self._found[2]


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
    items: Items,
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
    for row in rows:
        item, names = items.ids[row], list[CandidateSource]()
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
