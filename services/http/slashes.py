"""Slashes in ids: ``/v1/items/A%2FB`` is about the item ``A/B``, not about ``B`` below ``A``.

Servers decode a path before it is split into segments, so an escaped slash has to be kept
apart from then until the id is read.
"""

import re
from typing import Final
from urllib.parse import unquote

from starlette.convertors import StringConvertor, register_url_convertor
from starlette.types import Scope

_ESCAPED: Final = re.compile(rb"%2f", re.IGNORECASE)
_KEPT: Final = "\udc2f"  # half a surrogate pair: no decoded path has one


def keep(scope: Scope) -> None:
    """Put a mark in the place of every escaped slash of a request's path."""
    raw = scope.get("raw_path") or b""
    if b"%2" in raw:
        parts = _ESCAPED.split(raw)
        scope["path"] = _KEPT.join(unquote(part.decode("ascii", "replace")) for part in parts)


def escape(path: str) -> str:
    """Return a path as it may be sent back: escaped slashes escaped."""
    return path.replace(_KEPT, "%2F")


def read() -> None:
    """Have the ids in the paths of routes read with their slashes; before routes are included."""
    register_url_convertor("str", _Id())


class _Id(StringConvertor):
    def convert(self, value: str) -> str:
        return value.replace(_KEPT, "/")
