"""Rows: what every reader of a file yields, and what makes a cell unfit to be read.

Belongs here: the shape of a row and the checks of its text. Not here: a format of its own.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

Cells = tuple[str | None, ...]

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""All but tab, line feed and return: no name has them, and tables of strings end at NUL."""


class Refused(NamedTuple):
    """Why a row is not read.

    Attributes
    ----------
    reason
        One word; see docs/data.md.
    column
        The column at fault, or None.
    detail
        What is wrong and how it is mended, or None; never the value.
    """

    reason: str
    column: str | None = None
    detail: str | None = None


class FileRow(NamedTuple):
    """One row of a file.

    Attributes
    ----------
    cells
        Text of the columns asked for, exactly as it stands; None where there is nothing.
    refused
        Why it cannot be read; then it has no cells.
    raw
        The whole row as JSON, where that is kept.
    """

    cells: Cells
    refused: Refused | None = None
    raw: str | None = None


def unfit(cells: Sequence[str | None]) -> Iterator[tuple[int, str, str]]:
    """Yield index, reason and detail of the cells that are no text or hold control characters."""
    whole = "\n".join([cell for cell in cells if cell is not None])
    if _is_text(whole) and not _CONTROL.search(whole):
        return
    for at, cell in enumerate(cells):
        if cell is None:
            continue
        if not _is_text(cell):
            yield at, "not_text", "bytes that the encoding does not know: set encoding"
        elif (found := _CONTROL.search(cell)) is not None:
            yield at, "control_character", f"U+{ord(found[0]):04X} stands in it"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
