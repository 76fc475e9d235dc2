"""NDJSON as rows: numbers keep the digits that they are written with.

Belongs here: lines that are no JSON object, cells inside cells. Not here: events that are in
the API's form already (`event_lines`).
"""

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NoReturn

from feature_repo.importers.files import open_text
from feature_repo.importers.mapping import Mapping
from feature_repo.importers.rows import FileRow, Refused

_EXACT: Final = 2**53
"""Whole numbers below it are told apart by a float."""
_ABSENT: Final = object()


class JsonRows:
    """Reader of NDJSON files; remembers which columns it has met.

    Parameters
    ----------
    mapping
        Gives the encoding.
    names
        Columns wanted; ``outer.inner`` is a field inside a field.
    raw
        Whether each row comes whole as well.
    """

    def __init__(self, mapping: Mapping, names: Sequence[str], *, raw: bool) -> None:
        self._mapping, self._names, self._raw = mapping, names, raw
        self._met = set[str]()
        self._objects = 0

    def read(self, path: Path) -> Iterator[FileRow]:
        """Yield the rows of one file."""
        for line in json_lines(path, self._mapping.encoding):
            yield self._row(line)

    def find_absent(self) -> str | None:
        """Return a column that no line had, if there were lines."""
        lacking = [name for name in self._names if name not in self._met]
        return lacking[0] if lacking and self._objects else None

    def _row(self, line: str) -> FileRow:
        raw = line.encode("utf-8", "backslashreplace").decode() if self._raw else None
        try:
            body = _decoder.decode(line)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            return FileRow((), Refused("malformed_json", None, "the line is no JSON object"), raw)
        self._objects += 1
        cells = list[str | None]()
        for name in self._names:
            value = _inside(body, name)
            if value is not _ABSENT:
                self._met.add(name)
            if isinstance(value, dict | list):
                return FileRow(
                    (), Refused("nested_value", name, "a list or object, not a value"), raw
                )
            cells.append(_text(value))
        return FileRow(tuple(cells), None, raw)


def json_lines(path: Path, encoding: str) -> Iterator[str]:
    """Yield the lines of a file that are not blank, without spaces around them."""
    with open_text(path, encoding) as text:
        for line in text:
            stripped = line.strip(" \t\r\n")
            if stripped:
                yield stripped


def _inside(body: dict[str, Any], name: str) -> Any:
    if name in body:
        return body[name]
    outer, _, inner = name.partition(".")
    within = body.get(outer)
    return _inside(within, inner) if inner and isinstance(within, dict) else _ABSENT


def _text(value: Any) -> str | None:
    return None if value is None or value is _ABSENT else str(value)


def float_text(text: str, exact: int = _EXACT) -> str:
    """Return a float's text: without ``.0`` if whole, with an exponent if too big to be exact.

    Examples
    --------
    >>> float_text("7.0"), float_text("7.50"), float_text("738529527931269425.0")
    ('7', '7.50', '7.385295279312694e+17')
    """
    value = float(text)
    if not value.is_integer():
        return text
    return str(int(value)) if abs(value) < exact else f"{Decimal(repr(value)):e}"


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


_decoder: Final = json.JSONDecoder(parse_int=str, parse_float=float_text, parse_constant=_no_number)
