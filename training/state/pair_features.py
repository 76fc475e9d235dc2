"""Pair features of an item in history, compiled: one pass over the rows of many tables.

Belongs here: the numbers themselves. Not here: the head that reads them
(`network.repeat_head`), how rows come about (`item_table_kernels`).
"""

import math
from typing import Any, Final

import numpy as np
from numba import njit

from training.state.item_table_kernels import DAY_MS, DAY_SCALES, EVENTS, LAST_MS, POWERS

FEATURES: Final = (
    "log_count", "decayed_95", "decayed_80", "decayed_97", "root_share", "log_events_since",
    "log_days_since", "log_personal_gap", "twice", "log_days_to_gap", "log_days_to_median",
    "log_days_30", "log_days_120", "in_last",
)  # fmt: skip
_PRIOR_GAPS: Final = 2.0


@njit
def write_one(to: Any, row: Any, scalars: Any, now_ms: float, median_gap_days: Any) -> None:
    """Write `FEATURES` of one row to ``to``, float32 of shape (14,); see `fill`."""
    events = scalars[EVENTS]
    since = int(events) - row.last_event
    elapsed_ms = max(0.0, max(now_ms, scalars[LAST_MS]) - row.last_s * 1000.0)
    days = elapsed_ms / DAY_MS
    passed = min(POWERS.shape[1] - 1, max(0, since))
    count = row.counts[0]
    # The first touch is known by its day only.
    span = max(row.last_s / 86_400 - row.first_day - 0.5, 0.0) * row.again
    times = max(count - 1.0, 0.0)
    gap = span / max(times, 1.0)
    median = median_gap_days[row.item - 1]
    shrunk = (gap * times + median * _PRIOR_GAPS) / (times + _PRIOR_GAPS)
    to[0] = math.log1p(count)
    for n in range(1, 4):
        to[n] = math.log1p(row.counts[n] * POWERS[n, passed])
    to[4] = math.sqrt(count / max(events, 1.0))
    to[5] = math.log1p(since)
    to[6] = math.log1p(days)
    to[7] = math.log1p(gap)
    to[8] = np.float32(row.again)
    to[9] = math.log((days + 0.5) / (shrunk + 0.5))
    to[10] = math.log((days + 0.5) / (median + 0.5))
    for n in range(2):
        to[11 + n] = math.log1p(row.counts[4 + n] * math.exp(-days / DAY_SCALES[n]))
    to[13] = np.float32(since == 0)


@njit(cache=True, nogil=True)
def fill(out: Any, owner: Any, rows: Any, scalars: Any, now_ms: Any, median_gap_days: Any) -> None:
    """Write `FEATURES` of every row to ``out``, float32 of shape (R, 14).

    Parameters
    ----------
    owner, rows, scalars
        See `training.state.item_table.Rows`.
    now_ms
        Time of the request per table; a time before the last event counts as that event's.
    median_gap_days
        Of the vocabulary, shape (N,).
    """
    for r in range(len(owner)):
        of = owner[r]
        write_one(out[r], rows[r], scalars[of], now_ms[of], median_gap_days)
