"""Activity by hour of the day and weekday, where users are.

Belongs here: the answer. Local time is that of the event's ``tz``, UTC without one.
"""

from typing import Any, Final

import numpy as np

from feature_repo.analytics.calendar import DAY_MS
from feature_repo.analytics.cube import Moment
from feature_repo.analytics.intervals import LEVEL, quantile
from feature_repo.analytics.suppression import few, grid
from feature_repo.events.schema import iso

WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_SLOTS: Final = 7 * 24


def habits(moment: Moment, *, event_type: str, days: int) -> dict[str, Any]:
    """Return the events of each hour of the week, and how many people stand behind them.

    Shares are of the events in cells with a total; their intervals take users, not events, to be
    independent: p = Σ x_u / Σ n_u has the variance Σ (x_u − p n_u)² / (Σ n_u)².

    Parameters
    ----------
    event_type
        Type of event.
    days
        The last so many.
    """
    columns = moment.cube.slots(event_type)
    from_ms = moment.until_ms - days * DAY_MS
    low, high = np.searchsorted(columns["time_ms"], [from_ms, moment.until_ms])
    u, slot = columns["u"][low:high], columns["slot"][low:high]
    num = moment.cube.index.num_users
    counted = np.bincount(slot.astype(np.int64) * num + u, minlength=_SLOTS * num)
    x = counted.astype(np.float32).reshape(_SLOTS, -1) if num else np.zeros((_SLOTS, 0))
    events = np.bincount(slot, minlength=_SLOTS).reshape(7, 24)
    users = np.count_nonzero(x, axis=1).reshape(7, 24)
    masked = grid(events, few(users))
    per_day, per_hour = masked.totals(events)
    share, half = _shares(x, np.outer(masked.rows, masked.columns).ravel())
    cells = []
    for day in range(7):
        for hour in range(24):
            index, hidden = 24 * day + hour, bool(masked.hidden[day, hour])
            cells.append({
                "weekday": day, "hour": hour,
                "users": None if hidden else int(users[day, hour]),
                "events": None if hidden else int(events[day, hour]),
                "share": None if hidden else round(float(share[index]), 5),
                "interval": None if hidden else [
                    round(max(0.0, float(share[index] - half[index])), 5),
                    round(min(1.0, float(share[index] + half[index])), 5),
                ],
            })  # fmt: skip
    return {
        **moment.head(int(masked.hidden.sum())),
        "type": event_type,
        "period": {"from": iso(max(0, from_ms)), "to": iso(moment.at_ms)},
        "cells": cells,
        "weekday_totals": [int(n) if n else None for n in per_day],
        "hour_totals": [int(n) if n else None for n in per_hour],
    }


def _shares(x: Any, counted: Any) -> tuple[Any, Any]:
    """Return each slot's share of the counted events, and half its interval."""
    own = x[counted].sum(axis=0)
    total = max(1.0, float(own.sum(dtype=np.float64)))
    share = np.where(counted, x.sum(axis=1, dtype=np.float64), 0) / total
    squares = np.array([float(row @ row) for row in x])
    variance = squares - 2 * share * (x @ own) + share**2 * float(own @ own)
    half = quantile(LEVEL, max(1, int((own > 0).sum()) - 1))
    return share, half * np.sqrt(np.maximum(variance, 0.0)) / total
