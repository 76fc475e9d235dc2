"""Spreadsheets: the one way in which rows become CSV.

Belongs here: cells that a spreadsheet would run as a formula. Not here: which rows there are.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

_FORMULA: Final = tuple("=+-@\t\r\n＝＋－＠")
_NUMBER: Final = re.compile(r"[+-]?\d+(?:[.,]\d+)?", re.ASCII)


class _Writable(Protocol):
    def write(self, text: str, /) -> object:
        """Take text."""


def write_rows(file: _Writable, rows: Iterable[Sequence[object]]) -> None:
    """Write rows as CSV; text that begins like a formula gets an apostrophe before it.

    Names of categories, items and users come from whoever sends events, and a spreadsheet runs
    what begins with ``=``. Numbers stay numbers, also where they are text (``-5``, ``+49301234``).

    Parameters
    ----------
    file
        Opened as text with ``newline=""``.
    rows
        Rows of cells; None is an empty one.
    """
    csv.writer(file).writerows([_plain(cell) for cell in row] for row in rows)


def _plain(cell: object) -> object:
    if isinstance(cell, str) and cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell
