"""Habits: at which hours and on which weekdays a user is active.

Belongs here: the two histograms and their bytes. Not here: gaps between orders (`orders`).
An event counts by its own time zone where it names one that all know, else by UTC.
"""

from datetime import datetime
from struct import Struct
from typing import Final, NamedTuple

from feature_repo.errors import ModelMismatchError
from feature_repo.events.time_zones import zone
from feature_repo.user_profile.compact import DAY_S

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_HOURS: Final = 24
_SLOTS: Final = _HOURS + 7
_COUNTERS: Final = {_SLOTS * width: Struct(f"<{_SLOTS}{code}") for width, code in
                    ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))}  # fmt: skip

_BYTES: Final = tuple(bytes((number,)) for number in range(256))

EMPTY: Final = bytes(_SLOTS)
"""No event yet."""


class ActivityHistogram(NamedTuple):
    """Events by hour of day (0–23) and by weekday (Monday 0)."""

    hours: list[int]
    weekdays: list[int]


def count_hour(counters: bytes, at: int, tz: str | None) -> bytes:
    """Return the counters with an event at ``at`` (epoch seconds) counted.

    ``counters`` holds 24 hours and 7 weekdays in 1, 2, 4 or 8 bytes each, as many as the
    largest needs.
    """
    hour, weekday = local_hour(at, tz)
    width = len(counters) // _SLOTS
    first, second = hour * width, (_HOURS + weekday) * width
    if width and counters[first] != 0xFF and counters[second] != 0xFF:
        return b"".join((
            counters[:first], _BYTES[counters[first] + 1], counters[first + 1 : second],
            _BYTES[counters[second] + 1], counters[second + 1 :],
        ))  # fmt: skip
    counted = bytearray(counters)
    for slot in (hour, _HOURS + weekday):
        byte, end = slot * width, (slot + 1) * width
        while byte < end and counted[byte] == 0xFF:
            counted[byte] = 0
            byte += 1
        if byte >= end:
            return count_hour(_COUNTERS[2 * len(counters)].pack(*_counts(counters)), at, tz)
        counted[byte] += 1
    return bytes(counted)


def read_histogram(counters: bytes) -> ActivityHistogram:
    """Return the two histograms.

    Examples
    --------
    >>> read_histogram(count_hour(EMPTY, 0, None)).weekdays
    [0, 0, 0, 1, 0, 0, 0]
    """
    counts = list(_counts(counters))
    return ActivityHistogram(counts[:_HOURS], counts[_HOURS:])


def _counts(counters: bytes) -> tuple[int, ...]:
    layout = _COUNTERS.get(len(counters))
    if layout is None:
        raise ModelMismatchError(
            f"{len(counters)} bytes are no activity histogram: rebuild it from the log"
        )
    return layout.unpack(counters)


def local_hour(at: int, tz: str | None) -> tuple[int, int]:
    """Return hour of day and weekday (Monday 0) of ``at`` in ``tz``, UTC without one.

    Examples
    --------
    >>> local_hour(0, None), local_hour(0, "America/New_York")
    ((0, 3), (19, 2))
    """
    if tz is None or tz == "UTC":
        return at % DAY_S // 3600, (at // DAY_S + 3) % 7
    moment = datetime.fromtimestamp(at, zone(tz))
    return moment.hour, moment.weekday()
