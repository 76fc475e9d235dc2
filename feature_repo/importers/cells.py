"""Cells: columns of text, numbers, flags and times out of whatever a file holds.

A cell that cannot be read becomes null (times, numbers are flagged as well); nothing raises.
Not here: which column means what (`mapping`).
"""

from typing import Any, Final

import numpy as np
import pandas as pd

_MILLIS_FROM: Final = 1e11
_MILLIS_TO: Final = 9e15
_FALSE: Final = frozenset({"0", "f", "false", "n", "no"})


def texts(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return trimmed text, null where empty; a whole float (an id read as 7.0) loses its ``.0``.

    Examples
    --------
    >>> texts(pd.Series([7.0, None, 8.0])).tolist()
    ['7', None, '8']
    """
    codes, distinct = pd.factorize(values)
    made = [_text(value) for value in distinct]
    table = np.array([*made, None], dtype=object)
    return pd.Series(table[codes], dtype=object)


def _text(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or None


def numbers(values: "pd.Series[Any]") -> "tuple[pd.Series[float], np.ndarray[Any, Any]]":
    """Return finite numbers (null elsewhere), and a flag where a cell held something else."""
    plain = values.reset_index(drop=True)
    read = pd.to_numeric(plain, errors="coerce").astype(float)
    read = read.where(np.isfinite(read))
    blank = plain.isna() | (plain.astype(str).str.strip() == "")
    return read, (read.isna() & ~blank).to_numpy(dtype=bool)


def flags(values: "pd.Series[Any]") -> "np.ndarray[Any, Any]":
    """Return whether a cell does not say no (0, f, false, n, no)."""
    words = values.astype(str).str.strip().str.lower()
    return (~words.isin(_FALSE)).to_numpy(dtype=bool)


def times_ms(values: "pd.Series[Any]", unit: str, zone: str) -> "pd.Series[Any]":
    """Return epoch milliseconds (Int64), null where unreadable.

    Parameters
    ----------
    values
        Datetimes, numbers or text.
    unit
        ``s``, ``ms``, ``iso``, or ``auto``: numbers from 1e11 on are milliseconds, smaller
        ones seconds, everything else RFC 3339.
    zone
        IANA zone of times without an offset. A time that the clock's change makes twice is
        the second one; one that it skips moves forward.
    """
    plain = values.reset_index(drop=True)
    if pd.api.types.is_datetime64_any_dtype(plain):
        return _millis(_in_zone(plain, zone))
    made = pd.Series(pd.NA, index=plain.index, dtype="Int64")
    if unit != "iso":
        read = pd.to_numeric(plain, errors="coerce").astype(float)
        in_seconds = (read.abs() < _MILLIS_FROM) if unit == "auto" else read.abs() < np.inf
        factor = np.where(in_seconds, 1000.0, 1.0) if unit != "ms" else 1.0
        number: pd.Series[float] = (read * factor).round()
        made = number.where(number.abs() < _MILLIS_TO).astype("Int64")
    if unit in {"iso", "auto"}:
        text = plain.where(made.isna()).astype("string").str.strip()
        offset = text.str.contains(r"(?:[zZ]|[+-]\d\d:?\d\d)$").fillna(value=False).astype(bool)
        with_offset = pd.to_datetime(
            text.where(offset), errors="coerce", utc=True, format="ISO8601"
        )
        without = pd.to_datetime(text.where(~offset), errors="coerce", format="ISO8601")
        made = made.fillna(_millis(with_offset)).fillna(_millis(_in_zone(without, zone)))
    return made


def _in_zone(times: "pd.Series[Any]", zone: str) -> "pd.Series[Any]":
    if times.dt.tz is not None:
        return times
    second = np.zeros(len(times), dtype=bool)
    local: pd.Series[Any] = times.dt.tz_localize(
        zone, ambiguous=second, nonexistent="shift_forward"
    )
    return local


def _millis(times: "pd.Series[Any]") -> "pd.Series[Any]":
    millis = times.dt.tz_convert("UTC").astype("datetime64[ms, UTC]").astype("int64")
    known: pd.Series[Any] = millis.astype("Int64").mask(times.isna())
    return known
