"""The client's calls about audiences."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from services.client.subject import Subject, drop_none

if TYPE_CHECKING:
    from services.audiences import schemas as said


class AudienceCalls(Subject):
    """Asks about audiences; what is returned are the answers' JSON documents."""

    root = "/v1/audiences"

    def all(self) -> "said.AudienceList":
        """Return every audience, the ready ones too, without rules."""
        return self._get()

    def schema(self) -> Any:
        """Return the JSON Schema of a definition."""
        return self._get("schema")

    def traits(self) -> "said.AudienceTraits":
        """Return the traits that rules may name."""
        return self._get("traits")

    def create(self, name: str, definition: Mapping[str, Any]) -> "said.AudienceDetail":
        """Create an audience; 409 if the name is taken."""
        return self._ask("POST", body={"name": name, **definition})

    def put(self, name: str, definition: Mapping[str, Any]) -> "said.AudienceDetail":
        """Create or replace an audience."""
        return self._ask("PUT", name, body=dict(definition))

    def get(self, name: str) -> "said.AudienceDetail":
        """Return an audience with its rule."""
        return self._get(name)

    def delete(self, name: str) -> bool:
        """Remove an audience; False if there was none."""
        return self._delete(name)

    def preview(self, definition: Mapping[str, Any], *, as_of: str | None = None) -> "said.Preview":
        """Return how many members a definition would have."""
        return self._ask("POST", "preview", body=dict(definition), as_of=as_of)

    def count(self, name: str, *, as_of: str | None = None) -> "said.Preview":
        """Return how many members an audience has."""
        return self._get(name, "preview", as_of=as_of)

    def members(
        self, name: str, *, limit: int = 1000, cursor: str | None = None, as_of: str | None = None
    ) -> "said.Members":
        """Return a page of members."""
        return self._get(name, "members", limit=limit, cursor=cursor, as_of=as_of)

    def export(self, name: str, *, as_of: str | None = None) -> str:
        """Return all members as CSV."""
        path, query = self._path(name, "export"), drop_none(as_of=as_of)
        return str(self._send("GET", path, None, query).text)

    def overlap(self, names: Sequence[str], *, as_of: str | None = None) -> "said.Overlap":
        """Return sizes and what every two share."""
        return self._get("overlap", names=",".join(names), as_of=as_of)
