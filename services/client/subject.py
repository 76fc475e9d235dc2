"""Calls about a subject: who sends them, and where they go."""

from collections.abc import Callable
from typing import Any, ClassVar
from urllib.parse import quote

import orjson

Send = Callable[..., Any]
"""`services.client.Client`'s way of asking: method, path, body, query; returns the response."""


class Subject:
    """Calls about one subject.

    Parameters
    ----------
    send
        Sends a request, repeats it where that may be, raises `services.client.ApiError`.
    """

    root: ClassVar[str]
    """Path that all of the subject's calls begin with."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def _get(self, *names: str, **query: Any) -> Any:
        return self._ask("GET", *names, **query)

    def _ask(self, method: str, *names: str, body: Any = None, **query: Any) -> Any:
        """Return the JSON document below `root`; what is None is not asked."""
        content = self._send(method, self._path(*names), body, drop_none(**query)).content
        return orjson.loads(content) if content else None

    def _delete(self, *names: str) -> bool:
        """Say whether what is removed was there."""
        response = self._send("DELETE", self._path(*names), None, {}, accept=(404,))
        return bool(response.status_code == 204)

    def _path(self, *names: str) -> str:
        """Return the path below `root`, each name one segment of it."""
        return "/".join((self.root, *(quote(name, safe="") for name in names)))


def drop_none(**query: Any) -> dict[str, Any]:
    """Return what is not None."""
    return {name: value for name, value in query.items() if value is not None}
