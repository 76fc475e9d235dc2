"""Paths and queries as they are written: what is escaped in them must be UTF-8.

Servers put a mark in the place of what is not, so that all such ids would be one.
"""

from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from services.http.problems import Problem

_HINT: Final = "Escape the bytes of UTF-8 text: é is %C3%A9."
_SHOWN: Final = 64


def find_misspelt(scope: Scope) -> Problem | None:
    """Return the problem of a request whose path or query is no UTF-8, else None.

    Examples
    --------
    >>> find_misspelt({"raw_path": b"/v1/items/%C3%A9", "query_string": b"n=1"})
    >>> print(find_misspelt({"raw_path": b"/v1/items/%ff", "query_string": b""}).detail)
    the path's part '%ff' is no UTF-8
    """
    path, query = scope.get("raw_path") or b"", scope.get("query_string") or b""
    if b"%" in path and (wrong := _find(path.split(b"/"))) is not None:
        return Problem("malformed", f"the path's part {wrong!r} is no UTF-8", hint=_HINT)
    if b"%" in query and (wrong := _find(query.split(b"&"))) is not None:
        return Problem("malformed", f"the query's part {wrong!r} is no UTF-8", hint=_HINT)
    return None


def _find(parts: list[bytes]) -> str | None:
    for part in parts:
        try:
            unquote_to_bytes(part).decode()
        except UnicodeDecodeError:
            return part.decode("ascii", "replace")[:_SHOWN]
    return None
