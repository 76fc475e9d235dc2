"""What shoppers had before a request, as sparse rows that fade with age."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from training.baselines import Window
from training.compare.shop import Shop
from training.sequences import ranges
from training.vocabulary import DAY_MS


@dataclass(frozen=True)
class Fade:
    """How a past event's weight shrinks: per later event, and by the calendar.

    ``weight · γ^(positive events since) · 2^(−days / half_life)``; at most the last ``events``
    positive events count (0: all).
    """

    per_event: float = 1.0
    half_life_days: float = float("inf")
    events: int = 0


def faded(shop: Shop, wanted: Window, fade: Fade, *, once: bool = False) -> Any:
    """Return the histories before the requests, shape (P, N), sparse.

    Parameters
    ----------
    once
        Count an item at its latest event only, instead of adding up.
    """
    histories = shop.histories
    positive = np.cumsum(histories.weight > 0)
    start = histories.starts[:-1][wanted.user]
    sizes = histories.lines[wanted.event] - histories.lines[start]
    line = ranges(histories.lines[start], sizes)
    request = np.repeat(np.arange(len(sizes)), sizes)
    per_event = np.diff(histories.lines)
    event = np.repeat(np.arange(len(per_event)), per_event)[line]
    last = wanted.event[request] - 1
    since = positive[last] - positive[event]
    days = np.maximum(histories.time_ms[last] - histories.time_ms[event], 0) / DAY_MS
    value = histories.weight[event] * fade.per_event**since * 0.5 ** (days / fade.half_life_days)
    item = histories.item[line]
    kept = (item > 0) & (value > 0)
    if fade.events:
        kept &= since < fade.events
    shape = (len(wanted.event), shop.items)
    request, item, value = request[kept], item[kept] - 1, value[kept].astype(np.float32)
    if once:
        # Lines stand oldest first: the last of equal pairs is the newest.
        pair = request[::-1] * shop.items + item[::-1]
        newest = np.unique(pair, return_index=True)[1]
        request, item, value = request[::-1][newest], item[::-1][newest], value[::-1][newest]
    return sp.csr_matrix((value, (request, item)), shape)


def baskets(shop: Shop, wanted: Window) -> Any:
    """Return the answers' items, shape (P, N), sparse zeros and ones."""
    histories = shop.histories
    sizes = histories.lines[wanted.event + 1] - histories.lines[wanted.event]
    item = histories.item[ranges(histories.lines[wanted.event], sizes)]
    request = np.repeat(np.arange(len(sizes)), sizes)
    known = item > 0
    values = np.ones(int(known.sum()), np.float32)
    return sp.csr_matrix((values, (request[known], item[known] - 1)), (len(sizes), shop.items))
