"""The client's calls about audiences."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from services.client.subject import Subject, drop_none

if TYPE_CHECKING:
    from services.audiences import schemas as said


class AudienceCalls(Subject):
    """Asks about audiences; what is returned are the answers' JSON documents."""

    root = "/v1/audiences"

    def all(self) -> "said.AudienceList":
        """Return every audience, the ready ones too, without rules."""
        return self._get("")

    def schema(self) -> Any:
        """Return the JSON Schema of a definition."""
        return self._get("/schema")

    def traits(self) -> "said.AudienceTraits":
        """Return the traits that rules may name."""
        return self._get("/traits")

    def create(self, name: str, definition: Mapping[str, Any]) -> "said.AudienceDetail":
        """Create an audience; 409 if the name is taken."""
        return self._send("POST", "/v1/audiences", {"name": name, **definition}, {}).json()

    def put(self, name: str, definition: Mapping[str, Any]) -> "said.AudienceDetail":
        """Create or replace an audience."""
        return self._send("PUT", _path(name), dict(definition), {}).json()

    def get(self, name: str) -> "said.AudienceDetail":
        """Return an audience with its rule."""
        return self._get(f"/{quote(name, safe='')}")

    def delete(self, name: str) -> bool:
        """Remove an audience; False if there was none."""
        return bool(self._send("DELETE", _path(name), None, {}, accept=(404,)).status_code == 204)

    def preview(self, definition: Mapping[str, Any], *, as_of: str | None = None) -> "said.Preview":
        """Return how many members a definition would have."""
        query = drop_none(as_of=as_of)
        return self._send("POST", "/v1/audiences/preview", dict(definition), query).json()

    def count(self, name: str, *, as_of: str | None = None) -> "said.Preview":
        """Return how many members an audience has."""
        return self._get(f"/{quote(name, safe='')}/preview", as_of=as_of)

    def members(
        self, name: str, *, limit: int = 1000, cursor: str | None = None, as_of: str | None = None
    ) -> "said.Members":
        """Return a page of members."""
        path = f"/{quote(name, safe='')}/members"
        return self._get(path, limit=limit, cursor=cursor, as_of=as_of)

    def export(self, name: str, *, as_of: str | None = None) -> str:
        """Return all members as CSV."""
        response = self._send("GET", f"{_path(name)}/export", None, drop_none(as_of=as_of))
        return str(response.text)

    def overlap(self, names: Sequence[str], *, as_of: str | None = None) -> "said.Overlap":
        """Return sizes and what every two share."""
        return self._get("/overlap", names=",".join(names), as_of=as_of)


def _path(name: str) -> str:
    return f"/v1/audiences/{quote(name, safe='')}"
