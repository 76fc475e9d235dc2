"""The client's calls about API keys."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from services.client.subject import Subject, drop_none

if TYPE_CHECKING:
    from services.http import key_schemas as said


class KeyCalls(Subject):
    """Makes, lists, rotates and revokes keys; needs an admin key."""

    root = "/v1/keys"

    def create(
        self, name: str, scope: str, *, expires_at: str | None = None, origins: Sequence[str] = ()
    ) -> "said.KeyMade":
        """Make a key; the answer's ``key`` is shown once."""
        body = drop_none(name=name, scope=scope, expires_at=expires_at, origins=list(origins))
        return self._ask("POST", body=body)

    def all(self) -> "said.KeyList":
        """Return all keys, without the keys themselves."""
        return self._get()

    def rotate(self, key_id: str, *, overlap_s: int = 86_400) -> "said.KeyMade":
        """Make a key in the place of another, which works on for ``overlap_s`` seconds."""
        return self._ask("POST", key_id, "rotate", body={"overlap_s": overlap_s})

    def revoke(self, key_id: str) -> bool:
        """End a key; False if there was none of this id."""
        return self._delete(key_id)
