"""Facts of candidates, compiled: what is known of the best items of one request.

One code makes them for training, comparisons and service, out of the repeat table, what the model
answers, and what sells just now. None of them tells one item from all others: trees that read an
item's own popularity or hours learn by heart what sold in the weeks they are fitted on
(docs/model.md). Belongs here: the numbers. Not here: the trees that read them
(`network.reranker`).

Shape legend: K candidates, N items, R rows of a repeat table, F facts.
"""

from typing import Any, Final

import numpy as np
from numba import njit

from training.state.item_table_kernels import (
    DAY_MS,
    EVENTS,
    FIRST_MS,
    LAST_GAP_MS,
    LAST_MS,
    LAST_SIZE,
    POWERS,
    SIZE_SUM,
    USED,
)
from training.state.pair_features import FEATURES, write_one

OWN: Final = 4
"""Facts before those of the pair: what the score says."""
PAIR: Final = len(FEATURES)
FACTS: Final = (
    "score", "below_best", "rank", "logit", *FEATURES, "hours_apart", "same_weekday",
    "category_count", "category_share", "category_days", "category_recent", "category_items",
    "sells_28_days", "sells_7_days", "user_events", "user_gap", "user_basket", "last_basket",
    "last_gap", "user_items", "hour", "weekday", "wait_days",
)  # fmt: skip
_CATEGORY: Final = OWN + PAIR + 2
_SELLS: Final = _CATEGORY + 5
_USER: Final = _SELLS + 2


@njit(cache=True, nogil=True)
def write_facts(
    to: Any, item: Any, score: Any, logit: Any, rows: Any, scalars: Any, now_ms: float,
    category: Any, median_gap_days: Any, sells: Any,
) -> None:  # fmt: skip
    """Write `FACTS` of candidates, best first, to ``to``, float32 of shape (K, F).

    Parameters
    ----------
    item, score, logit
        Candidates (from 0), their scores, the network's own logits. Shape (K,).
    rows, scalars
        A user's repeat table: `item_table_kernels.ROW` records, shape (R,), and scalars, (8,).
    now_ms
        Time of the request, epoch milliseconds.
    category, median_gap_days
        Of the vocabulary: row of each item's category, 0 for none, and gaps. Shape (N,).
    sells
        Logarithms of how many users the candidates had lately and just now; NaN where nobody
        knows. Shape (2, K).
    """
    now = max(now_ms, scalars[LAST_MS])
    hour, weekday = _clock(int(now) // 1000)
    categories, lines = _categories(rows, scalars, now, category)
    row_of = np.full(len(category), -1, np.int64)
    for r in range(len(rows)):
        row_of[rows[r].item - 1] = r
    for k in range(len(item)):
        out, i = to[k], item[k]
        out[0], out[1], out[2], out[3] = score[k], score[k] - score[0], k, logit[k]
        r = row_of[i]
        if r < 0:
            out[OWN:_CATEGORY] = np.nan
        else:
            write_one(out[OWN:], rows[r], scalars, now, median_gap_days)
            past_hour, past_weekday = _clock(rows[r].last_s)
            apart = abs(past_hour - hour)
            out[OWN + PAIR] = min(apart, 24 - apart)
            out[OWN + PAIR + 1] = np.float32(past_weekday == weekday)
        group, to_category = categories[category[i]], out[_CATEGORY:]
        to_category[0], to_category[1] = group[0], group[0] / max(lines, 1.0)
        to_category[2], to_category[3], to_category[4] = group[1], group[2], group[3]
        out[_SELLS], out[_SELLS + 1] = sells[0, k], sells[1, k]
        _write_user(out[_USER:], scalars, now, hour, weekday)


@njit
def _clock(seconds: int) -> Any:
    """Return hour and weekday (0 = Monday), UTC."""
    hours = seconds // 3600
    return hours % 24, (hours // 24 + 3) % 7


@njit
def _categories(rows: Any, scalars: Any, now: float, category: Any) -> Any:
    """Return count, days since the last, count faded by event, items of each category; and all."""
    out = np.zeros((category.max() + 1, 4), np.float64)
    out[:, 1] = np.nan
    lines = 0.0
    for r in range(len(rows)):
        row = rows[r]
        group = out[category[row.item - 1]]
        days = max(0.0, now - row.last_s * 1000.0) / DAY_MS
        passed = min(POWERS.shape[1] - 1, max(0, int(scalars[EVENTS]) - row.last_event))
        group[0] += row.counts[0]
        lines += row.counts[0]
        if not group[1] <= days:
            group[1] = days
        group[2] += row.counts[2] * POWERS[2, passed]
        group[3] += 1.0
    return out, lines


@njit
def _write_user(to: Any, scalars: Any, now: float, hour: int, weekday: int) -> None:
    events = max(scalars[EVENTS], 1.0)
    to[0] = scalars[EVENTS]
    to[1] = (scalars[LAST_MS] - scalars[FIRST_MS]) / DAY_MS / max(events - 1.0, 1.0)
    to[2] = scalars[SIZE_SUM] / events
    to[3] = scalars[LAST_SIZE]
    to[4] = scalars[LAST_GAP_MS] / DAY_MS
    to[5] = scalars[USED]
    to[6], to[7] = hour, weekday
    to[8] = (now - scalars[LAST_MS]) / DAY_MS
