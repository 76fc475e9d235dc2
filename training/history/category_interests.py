"""A user's categories of interest as the feature service states them, for the next category.

In service they are read from the online row (``interest_categories`` of the view ``profile``, whose
SQL and equation are in `features.sql.interests`). Offline the same numbers are made from
histories, so that training needs no join; they are tested equal to that SQL.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from feature_repo.events.types import CONSUMED, LONG_HALF_LIFE_DAYS
from feature_repo.features.catalogue import INTERESTS
from feature_repo.features.sql.interests import SHRINKAGE_BASKETS
from training.history.sequences import Histories, Ints, ranges
from training.history.vocabulary import DAY_MS

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interests:
    """Categories (rows from 1, 0: none) and their shares, both of shape (M, `INTERESTS`)."""

    category: Tensor
    share: Tensor


class InterestReader:
    """Makes the interests of users at Mondays from histories.

    Parameters
    ----------
    histories
        Of all users: what is popular is part of the equation.
    categories
        Size of the vocabulary.
    """

    def __init__(self, histories: Histories, categories: int) -> None:
        self._histories, self._categories = histories, categories
        self._everyone = dict[int, Doubles]()

    @cached_property
    def _baskets(self) -> Ints:
        return np.flatnonzero(self._histories.kind == CONSUMED.index("purchase"))

    @cached_property
    def _lines(self) -> tuple[Ints, Ints]:
        """Event and category of every distinct category of every basket, by event."""
        histories, baskets = self._histories, self._baskets
        sizes = np.diff(histories.lines)[baskets]
        category = histories.category[ranges(histories.lines[baskets], sizes)]
        width = self._categories + 1
        pair = np.unique((np.repeat(baskets, sizes) * width + category)[category > 0])
        return pair // width, pair % width

    @cached_property
    def _bounds(self) -> tuple[Ints, Ints]:
        """Where each user's baskets and lines begin, and the totals."""
        starts = self._histories.starts
        return np.searchsorted(self._baskets, starts), np.searchsorted(self._lines[0], starts)

    def at(self, user: Ints, time_ms: Ints) -> Interests:
        """Return the interests as of each moment, from what lies before it."""
        category = np.zeros((len(user), INTERESTS), np.int64)
        share = np.zeros((len(user), INTERESTS), np.float32)
        (baskets_at, lines_at), (event, of_line) = self._bounds, self._lines
        for row, (who, moment) in enumerate(zip(user.tolist(), time_ms.tolist(), strict=True)):
            mine = slice(lines_at[who], lines_at[who + 1])
            own = self._count(event[mine], of_line[mine], moment)
            total = self._weight(self._baskets[baskets_at[who] : baskets_at[who + 1]], moment).sum()
            prior = SHRINKAGE_BASKETS * self._popular(moment)
            weight = np.where(own > 0, (own + prior) / (total + SHRINKAGE_BASKETS), 0.0)
            best = np.argsort(-weight, kind="stable")[: min(INTERESTS, int((weight > 0).sum()))]
            category[row, : len(best)], share[row, : len(best)] = best, weight[best]
        return Interests(torch.from_numpy(category), torch.from_numpy(share))

    def _weight(self, event: Ints, moment: int) -> Doubles:
        """Return what a basket of each event counts at a moment; nothing from then on."""
        times = self._histories.time_ms[event]
        age_days = moment // DAY_MS - times // DAY_MS
        out: Doubles = np.where(times < moment, 0.5 ** (age_days / LONG_HALF_LIFE_DAYS), 0.0)
        return out

    def _count(self, event: Ints, category: Ints, moment: int) -> Doubles:
        out = np.bincount(category, self._weight(event, moment), minlength=self._categories + 1)
        return out.astype(np.float64)

    def _popular(self, moment: int) -> Doubles:
        if moment not in self._everyone:
            total = self._weight(self._baskets, moment).sum()
            self._everyone[moment] = self._count(*self._lines, moment) / max(total, 1e-12)
        return self._everyone[moment]


def read_interests(
    values: Mapping[str, Any] | None, category_index: Mapping[str, int]
) -> Interests:
    """Read one online row; categories that the model does not know are left out."""
    given = values or {}
    names = given.get("interest_categories")
    shares = given.get("interest_category_weights")
    found = [
        (category_index[name], float(share))
        for name, share in zip(
            () if names is None else names, () if shares is None else shares, strict=False
        )
        if name in category_index
    ][:INTERESTS]
    padded = found + [(0, 0.0)] * (INTERESTS - len(found))
    return Interests(
        torch.tensor([[row for row, _ in padded]]), torch.tensor([[share for _, share in padded]])
    )
