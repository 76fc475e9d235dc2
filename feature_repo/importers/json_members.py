"""Members of one large JSON object, read as they come: a list is had an element at a time.

Belongs here: JSON's outermost structure. What the members mean is the reader's of a format.
"""

import json
from collections.abc import Iterator
from typing import Any, Final, NoReturn, TextIO

from feature_repo.errors import InvalidSourceError

_BLOCK: Final = 1 << 18
_SPACE: Final = " \t\r\n"


def read_members(text: TextIO, lists: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each member, those of ``lists`` once for each of their elements.

    Parameters
    ----------
    text
        One JSON object and nothing behind it.
    lists
        Names of members that must be lists.

    Raises
    ------
    InvalidSourceError
        If it is no JSON object, or is broken off.

    Examples
    --------
    >>> import io
    >>> list(read_members(io.StringIO('{"a": 1, "b": [2, {"c": 3}]}'), frozenset({"b"})))
    [('a', 1), ('b', 2), ('b', {'c': 3})]
    """
    scanner = _Scanner(text)
    scanner.expect("{")
    if scanner.skip("}"):
        return scanner.end()
    while True:
        name = scanner.value()
        if not isinstance(name, str):
            scanner.fail("a member has no name")
        scanner.expect(":")
        if name in lists:
            for element in scanner.elements():
                yield name, element
        else:
            yield name, scanner.value()
        if scanner.skip("}"):
            return scanner.end()
        scanner.expect(",")


class _Scanner:
    """Reads values from text of which only a part is in memory."""

    def __init__(self, text: TextIO) -> None:
        self._text, self._buffer, self._at, self._before = text, "", 0, 0
        self._whole = False  # whether the buffer reaches to the end of the text
        self._decoder = json.JSONDecoder(parse_constant=_refuse)

    def elements(self) -> Iterator[Any]:
        self.expect("[")
        if self.skip("]"):
            return
        while True:
            yield self.value()
            if self.skip("]"):
                return
            self.expect(",")

    def value(self) -> Any:
        self._peek()
        while True:
            try:
                found, end = self._decoder.raw_decode(self._buffer, self._at)
            except (ValueError, RecursionError):
                if self._whole:
                    self.fail("a value is no JSON, or is broken off")
            else:
                if end < len(self._buffer) or self._whole:  # else a number may go on
                    self._at = end
                    return found
            self._fill()

    def expect(self, sign: str) -> None:
        if not self.skip(sign):
            self.fail(f"{sign} is expected")

    def skip(self, sign: str) -> bool:
        """Pass over a sign; False if something else comes next."""
        if self._peek() != sign:
            return False
        self._at += 1
        return True

    def end(self) -> None:
        if self._peek():
            self.fail("something stands behind the object")

    def fail(self, why: str) -> NoReturn:
        raise InvalidSourceError(
            f"no whole JSON object, at character {self._before + self._at:,}: {why}"
        )

    def _peek(self) -> str:
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if self._whole:
                return ""
            self._fill()

    def _fill(self) -> None:
        self._before += self._at
        rest = self._buffer[self._at :]
        more = self._text.read(max(_BLOCK, len(rest)))  # doubled: long values stay linear
        self._buffer, self._at, self._whole = rest + more, 0, not more


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")
