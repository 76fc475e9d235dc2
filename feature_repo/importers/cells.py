"""Cells: columns of text as trimmed text, numbers, flags and identifiers.

A cell that cannot be read becomes null and is flagged; nothing raises, nothing is guessed.
Not here: times (`times`), which column means what (`mapping`).
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd

Texts = Sequence[str | None]

_FALSE: Final = frozenset({"0", "f", "false", "n", "no"})
_EXACT: Final = 2**53
_FLOAT: Final = re.compile(r"[+-]?\d+(?:\.0+|(?:\.\d*)?[eE]\+\d+|\.\d*[eE]\d+)", re.ASCII)
"""Looks like a number that was a float once: 123.0, 7.38529527931269E+17. Not the id 12e5."""
_GROUPS: Final = {" ": "[ \u00a0\u202f]", "'": "['\u2019]"}
"""Separators of thousands that are written in more than one way."""
_Made = TypeVar("_Made")


def texts(cells: Texts) -> list[str | None]:
    """Return text without white space around it; None where it is empty.

    Examples
    --------
    >>> texts([" 007", "", None, "a\u00a0"])
    ['007', None, None, 'a']
    """
    return _each(cells, lambda cell: cell.strip() or None)


def numbers(
    cells: Texts, decimal: str = ".", thousands: str | None = None
) -> "tuple[pd.Series[float], np.ndarray[Any, Any]]":
    """Return finite numbers (null elsewhere), and a flag where a cell had something else.

    Parameters
    ----------
    decimal, thousands
        What stands before the decimals, and between groups of three digits.

    Examples
    --------
    >>> numbers(["1.234,50", "1.5", None], ",", ".")[0].tolist()
    [1234.5, nan, nan]
    """
    group = _GROUPS.get(thousands or "", re.escape(thousands or ""))
    whole = rf"\d+|\d{{1,3}}(?:{group}\d{{3}})+" if thousands else r"\d+"
    point = re.escape(decimal)
    form = re.compile(rf"[+-]?(?:(?:{whole})(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?", re.ASCII)

    def read(text: str) -> float:
        if not form.fullmatch(text):
            return math.nan
        if thousands:
            text = re.sub(group, "", text)
        return float(text.replace(decimal, "."))

    made = np.array([math.nan if n is None else n for n in _each(cells, read)], dtype=float)
    told = np.array([cell is not None for cell in cells], dtype=bool)
    finite = np.isfinite(made)
    return pd.Series(np.where(finite, made, np.nan)), told & ~finite


def ids(cells: Texts, rule: str) -> "tuple[list[str | None], np.ndarray[Any, Any]]":
    """Return identifiers, and a flag where one looks like a float, so that digits may be lost.

    Parameters
    ----------
    rule
        ``reject`` flags them all, ``whole`` takes ``123.0`` as ``123`` where a float is sure to
        have been exact, ``keep`` takes them as they stand.

    Examples
    --------
    >>> ids(["123.0", "123"], "whole")[0]
    ['123', '123']
    """
    if rule == "keep":
        return list(cells), np.zeros(len(cells), dtype=bool)

    def read(text: str) -> str | None:
        if not _FLOAT.fullmatch(text):
            return text
        whole, _, rest = text.partition(".")
        short = rule == "whole" and not rest.strip("0") and len(whole) <= len(f"-{_EXACT}")
        exact = short and abs(int(whole)) < _EXACT
        return whole if exact else None

    made = _each(cells, read)
    lost = [a is not None and b is None for a, b in zip(cells, made, strict=True)]
    return made, np.array(lost, dtype=bool)


def flags(cells: Texts) -> "np.ndarray[Any, Any]":
    """Return whether a cell does not say no (0, f, false, n, no)."""
    return np.array([cell is None or cell.lower() not in _FALSE for cell in cells], dtype=bool)


def _each(cells: Texts, read: Callable[[str], _Made]) -> list[_Made | None]:
    """Return what is read from each cell; equal ones are read once."""
    known: dict[str | None, _Made | None]
    known = {cell: None if cell is None else read(cell) for cell in set(cells)}
    return [known[cell] for cell in cells]
