"""Histories before a request, as sparse rows that fade with age."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from training.evaluation.baselines import EvaluationWindow, window
from training.history.sequences import Ints, ranges
from training.history.vocabulary import DAY_MS
from training.lab.comparison.shop import Shop

Doubles = npt.NDArray[np.float64]
Weigh = Callable[[Ints, Ints, Doubles], Doubles]
"""Takes request, positive events since, and days since of every line; returns its weight."""


@dataclass(frozen=True)
class Fade:
    """How a past event's weight shrinks: per later event, and by the calendar.

    ``weight · γ^(positive events since) · 2^(−days / half_life)``.
    """

    per_event: float = 1.0
    half_life_days: float = float("inf")


def fade_histories(shop: Shop, wanted: EvaluationWindow, fade: Fade) -> Any:
    """Return the histories before the requests, shape (P, N), sparse."""
    return weight_histories(
        shop,
        wanted,
        lambda request, since, days: fade.per_event**since * 0.5 ** (days / fade.half_life_days),
    )


def weight_histories(shop: Shop, wanted: EvaluationWindow, weigh: Weigh) -> Any:
    """Return the histories before the requests with a weight per line, shape (P, N), sparse."""
    histories = shop.histories
    positive: Ints = np.cumsum(histories.weight > 0)
    start = histories.starts[:-1][wanted.user]
    sizes = histories.lines[wanted.event] - histories.lines[start]
    line = ranges(histories.lines[start], sizes)
    request: Ints = np.repeat(np.arange(len(sizes)), sizes)
    per_event = np.diff(histories.lines)
    event = np.repeat(np.arange(len(per_event)), per_event)[line]
    item = histories.item[line]
    kept = (item > 0) & (histories.weight[event] > 0)
    request, event, item = request[kept], event[kept], item[kept]
    last = wanted.event[request] - 1
    days = np.maximum(histories.time_ms[last] - histories.time_ms[event], 0) / DAY_MS
    value = histories.weight[event] * weigh(request, positive[last] - positive[event], days)
    shape = (len(wanted.event), shop.items)
    return sp.csr_matrix((value.astype(np.float32), (request, item - 1)), shape)


def counts(shop: Shop, wanted: EvaluationWindow) -> Ints:
    """Return the positive events before each request, shape (P,)."""
    positive: Ints = np.cumsum(shop.histories.weight > 0)
    start = shop.histories.starts[:-1][wanted.user]
    before: Ints = np.where(start > 0, positive[start - 1], 0)
    out: Ints = positive[wanted.event - 1] - before
    return out


def baskets(shop: Shop, wanted: EvaluationWindow) -> Any:
    """Return the answers' items, shape (P, N), sparse zeros and ones."""
    histories = shop.histories
    sizes = histories.lines[wanted.event + 1] - histories.lines[wanted.event]
    item = histories.item[ranges(histories.lines[wanted.event], sizes)]
    request = np.repeat(np.arange(len(sizes)), sizes)
    known = item > 0
    values = np.ones(int(known.sum()), np.float32)
    return sp.csr_matrix((values, (request[known], item[known] - 1)), (len(sizes), shop.items))


def training_requests(shop: Shop) -> EvaluationWindow:
    """Return a request before every target event of the training period."""
    return window(shop.histories, -(2**62), shop.split.train_until_ms)


def training_ends(shop: Shop) -> EvaluationWindow:
    """Return a request right after the last training event of each user that has one."""
    starts = shop.histories.starts
    before = np.concatenate([[0], np.cumsum(shop.trained)])
    trained = before[starts[1:]] - before[starts[:-1]]
    user = np.flatnonzero(trained)
    return EvaluationWindow(starts[:-1][user] + trained[user], user)
