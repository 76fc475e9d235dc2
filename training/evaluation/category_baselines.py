"""Baselines of the next category: decayed distinct baskets by category, and popularity.

They read every line of the whole history, as no bounded state does.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from feature_repo.events.types import LONG_HALF_LIFE_DAYS
from training.evaluation.metrics import ranking_metrics
from training.history.prepared import Moments
from training.history.sequences import Histories, Ints, ranges
from training.history.vocabulary import DAY_MS
from training.network.next_category import bought_within

SHRINKS: Final = (5.0, 20.0, 50.0, 100.0)
"""Baskets that popularity counts for; tuned on the validation period."""
_CHUNK: Final = 512

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def popular_categories(histories: Histories, categories: int, *, until_ms: int) -> Floats:
    """Return each category's share of the baskets' categories before ``until_ms``, shape (K,)."""
    event, category = _baskets(histories)
    early = histories.time_ms[event] < until_ms
    counts = np.bincount(category[early], minlength=categories)
    out: Floats = (counts / max(int(counts.sum()), 1)).astype(np.float32)
    return out


def category_counts(histories: Histories, user: Ints, time_ms: Ints, categories: int) -> Floats:
    """Return decayed distinct baskets by category ahead of each moment, shape (M, K)."""
    event, category = _baskets(histories)
    bounds = np.searchsorted(event, histories.starts)
    out = np.zeros((len(user), categories), np.float32)
    for row, (who, moment) in enumerate(zip(user, time_ms, strict=True)):
        part = slice(bounds[who], bounds[who + 1])
        age_days = (moment - histories.time_ms[event[part]]) / DAY_MS
        past = age_days > 0
        faded = 0.5 ** (age_days[past] / LONG_HALF_LIFE_DAYS)
        out[row] = np.bincount(category[part][past], faded, minlength=categories)
    return out


def _baskets(histories: Histories) -> tuple[Ints, Ints]:
    """Return event and category (from 0) of every distinct category of every target event."""
    event = np.flatnonzero(histories.target)
    sizes = np.diff(histories.lines)[event]
    category = histories.category[ranges(histories.lines[event], sizes)]
    width = int(category.max(initial=0)) + 1
    pair = np.unique((np.repeat(event, sizes) * width + category)[category > 0])
    return pair // width, pair % width - 1


def tune_shrink(histories: Histories, moments: Moments, rows: Ints, popular: Floats) -> float:
    """Return the one of `SHRINKS` with the best NDCG@10 at some moments."""
    value = {
        shrink: float(np.nanmean(count_metrics(histories, moments, rows, popular, shrink)[:, 0]))
        for shrink in SHRINKS
    }
    return max(value, key=lambda shrink: value[shrink])


def count_metrics(
    histories: Histories, moments: Moments, rows: Ints, popular: Floats, shrink: float
) -> Doubles:
    """Return the metrics of counts shrunk to popularity, shape (M, 4); NaN: nothing bought.

    ``score_k = count_k + shrink · popular_k``; an infinite ``shrink`` is popularity alone.
    """
    parts = [np.zeros((0, 4), np.float64)]
    for begin in range(0, len(rows), _CHUNK):
        some = rows[begin : begin + _CHUNK]
        user, time_ms = moments.user[some], moments.time_ms[some]
        scores: Tensor = torch.from_numpy(popular).expand(len(some), -1)
        if np.isfinite(shrink):
            counts = category_counts(histories, user, time_ms, len(popular))
            scores = torch.from_numpy(counts) + shrink * scores
        parts.append(ranking_metrics(scores, bought_within(histories, user, time_ms)))
    return np.concatenate(parts)
