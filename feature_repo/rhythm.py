"""Habits: at which hours and on which weekdays a user is active.

Belongs here: the two histograms and their peak. Not here: gaps between orders (`orders`).
An event counts by its own time zone where it names one, else by UTC.
"""

from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

from feature_repo.compact import DAY_S

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Rhythm(msgspec.Struct, array_like=True):
    """Events by hour of day (0–23) and by weekday (Monday 0)."""

    hours: list[int] = msgspec.field(default_factory=lambda: [0] * 24)
    weekdays: list[int] = msgspec.field(default_factory=lambda: [0] * 7)


def beat(rhythm: Rhythm, at: int, tz: str | None) -> None:
    """Count an event at ``at`` (epoch seconds)."""
    hour, weekday = local_hour(at, tz)
    rhythm.hours[hour] += 1
    rhythm.weekdays[weekday] += 1


def local_hour(at: int, tz: str | None) -> tuple[int, int]:
    """Return hour of day and weekday (Monday 0) of ``at`` in ``tz``, UTC without one.

    Examples
    --------
    >>> local_hour(0, None), local_hour(0, "America/New_York")
    ((0, 3), (19, 2))
    """
    if tz is None or tz == "UTC":
        return at % DAY_S // 3600, (at // DAY_S + 3) % 7
    moment = datetime.fromtimestamp(at, _zone(tz))
    return moment.hour, moment.weekday()


@lru_cache(maxsize=1024)
def _zone(tz: str) -> ZoneInfo:
    return ZoneInfo(tz)
