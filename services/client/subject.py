"""Calls about a subject: who sends them, and where they go."""

from collections.abc import Callable
from typing import Any, ClassVar

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

    def _get(self, path: str, **query: Any) -> Any:
        """Return the JSON document below `root`; what is None is not asked."""
        return self._send("GET", f"{self.root}{path}", None, drop_none(**query)).json()


def drop_none(**query: Any) -> dict[str, Any]:
    """Return what is not None."""
    return {name: value for name, value in query.items() if value is not None}
