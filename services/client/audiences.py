"""The client's calls about audiences."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from services.client.subject import Subject, drop_none


class AudienceCalls(Subject):
    """Asks about audiences; what is returned are the answers' JSON documents."""

    root = "/v1/audiences"

    def all(self) -> Any:
        """Return every audience, the ready ones too, without rules."""
        return self._get("")

    def schema(self) -> Any:
        """Return the JSON Schema of a definition."""
        return self._get("/schema")

    def traits(self) -> Any:
        """Return the traits that rules may name."""
        return self._get("/traits")

    def create(self, name: str, definition: Mapping[str, Any]) -> Any:
        """Create an audience; 409 if the name is taken."""
        return self._send("POST", "/v1/audiences", {"name": name, **definition}, {}).json()

    def put(self, name: str, definition: Mapping[str, Any]) -> Any:
        """Create or replace an audience."""
        return self._send("PUT", _path(name), dict(definition), {}).json()

    def get(self, name: str) -> Any:
        """Return an audience with its rule."""
        return self._get(f"/{quote(name, safe='')}")

    def delete(self, name: str) -> bool:
        """Remove an audience; False if there was none."""
        return bool(self._send("DELETE", _path(name), None, {}, accept=(404,)).status_code == 204)

    def preview(self, definition: Mapping[str, Any], *, as_of: str | None = None) -> Any:
        """Return how many members a definition would have."""
        query = drop_none(as_of=as_of)
        return self._send("POST", "/v1/audiences/preview", dict(definition), query).json()

    def count(self, name: str, *, as_of: str | None = None) -> Any:
        """Return how many members an audience has."""
        return self._get(f"/{quote(name, safe='')}/preview", as_of=as_of)

    def members(
        self, name: str, *, limit: int = 1000, cursor: str | None = None, as_of: str | None = None
    ) -> Any:
        """Return a page of members."""
        path = f"/{quote(name, safe='')}/members"
        return self._get(path, limit=limit, cursor=cursor, as_of=as_of)

    def export(self, name: str, *, as_of: str | None = None) -> str:
        """Return all members as CSV."""
        response = self._send("GET", f"{_path(name)}/export", None, drop_none(as_of=as_of))
        return str(response.text)

    def overlap(self, names: Sequence[str], *, as_of: str | None = None) -> Any:
        """Return sizes and what every two share."""
        return self._get("/overlap", names=",".join(names), as_of=as_of)


def _path(name: str) -> str:
    return f"/v1/audiences/{quote(name, safe='')}"
