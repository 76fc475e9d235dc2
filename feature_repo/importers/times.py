"""Times: text to epoch milliseconds, every cell by itself.

Belongs here: ISO 8601, epochs, zones. Not here: whether a time is plausible (`lines`).
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pandas as pd

_SECONDS_TO: Final = 10**11
"""The year 5138 in seconds; smaller numbers are seconds, a thousand times more milliseconds …"""
_UNITS: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_MILLIS_TO: Final = 9 * 10**15
_NANOS_TO: Final = _MILLIS_TO * 10**6
_YEARS: Final = (1900, 2261)
"""Years that zones are known for; a time outside is impossible in any zone."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLI: Final = timedelta(milliseconds=1)
_NUMBER: Final = re.compile(r"[+-]?\d{1,30}(?:\.\d{0,30})?(?:[eE][+-]?\d{1,2})?", re.ASCII)
_UTC: Final = re.compile(r"\s*(?:UTC|GMT|[zZ])$")
_OFFSET: Final = re.compile(r"\s+([+-]\d\d(?::?\d\d)?)$", re.ASCII)


def times_ms(values: Sequence[str | None], unit: str, zone: str) -> "pd.Series[Any]":
    """Return epoch milliseconds (Int64), null where unreadable.

    Parameters
    ----------
    values
        Text of times.
    unit
        ``s``, ``ms``, ``us``, ``ns``, ``iso``, or ``auto``: numbers below 1e11 are seconds,
        below 1e14 milliseconds, below 1e17 microseconds, from there nanoseconds, and everything
        else is ISO 8601.
    zone
        IANA zone of times without an offset. A time that the clock's change makes twice is
        the second one; one that it skips moves forward.

    Examples
    --------
    >>> times_ms(["1970-01-01 01:00:00+01", "1970-01-01 00:00:01 UTC", "2", "x"], "auto", "UTC")
    0       0
    1    1000
    2    2000
    3    <NA>
    dtype: Int64
    """
    distinct = list(dict.fromkeys(values))
    made = np.zeros(len(distinct), dtype=np.int64)
    known = np.zeros(len(distinct), dtype=bool)
    indices, local = list[int](), list[datetime]()
    for at, text in enumerate(distinct):
        found = None if text is None else _read(text, unit)
        if isinstance(found, datetime):
            indices.append(at)
            local.append(found)
        elif found is not None:
            made[at], known[at] = found, True
    if indices:
        made[indices], known[indices] = _in_zone(local, zone), True
    at_of = {text: at for at, text in enumerate(distinct)}
    codes = np.array([at_of[text] for text in values], dtype=np.int64)
    return pd.Series(pd.arrays.IntegerArray(made[codes], ~known[codes]))


def _read(text: str, unit: str) -> int | datetime | None:
    """Return milliseconds, or a time without an offset, or None."""
    if unit != "iso" and _NUMBER.fullmatch(text):
        return _from_number(text, unit)
    if unit not in {"iso", "auto"}:
        return None
    moment = _moment(text)
    if moment is None or (moment.tzinfo is None and _YEARS[0] <= moment.year <= _YEARS[1]):
        return moment
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MILLI


def _from_number(text: str, unit: str) -> int | None:
    value = Decimal(text)
    if abs(value) >= _NANOS_TO:
        return None
    if unit == "auto":
        size, parts = abs(value), 1
        while size >= _SECONDS_TO * parts and parts < _UNITS["ns"]:
            parts *= 1000
    else:
        parts = _UNITS[unit]
    # Seconds and milliseconds may be broken; of smaller units the whole milliseconds count.
    millis = round(value * 1000 / parts) if parts <= _UNITS["ms"] else int(value * 1000 // parts)
    return millis if abs(millis) < _MILLIS_TO else None


def _moment(text: str) -> datetime | None:
    try:  # most are ISO as they stand
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(_OFFSET.sub(r"\1", _UTC.sub("Z", text)))
    except ValueError:
        return None


def _in_zone(times: list[datetime], zone: str) -> "np.ndarray[Any, Any]":
    plain = pd.Series(np.array(times, dtype="datetime64[us]"))
    second = np.zeros(len(plain), dtype=bool)
    local = plain.dt.tz_localize(zone, ambiguous=second, nonexistent="shift_forward")
    return local.dt.tz_convert("UTC").astype("datetime64[ms, UTC]").astype("int64").to_numpy()
