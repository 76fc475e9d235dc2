"""Answers about API keys, for the API's description; see `answer_schemas`."""

from typing import Any, Final, Literal

from feature_repo.profile_views.shapes import Answer
from services.http.answer_schemas import describe_answer
from services.http.api_keys import Scope
from services.http.profile_schemas import EXAMPLE_TIME

KeyState = Literal["active", "rotated", "expired", "revoked"]


class KeyShown(Answer):
    """A key, without the key itself. A rotated one works until it expires."""

    id: str
    name: str
    scope: Scope
    state: KeyState
    created_at: str | None
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    replaced_by: str | None
    origins: list[str]


class KeyMade(KeyShown):
    """A key that was made: this answer alone has it."""

    key: str


class KeyList(Answer):
    """All keys, the newest first, those that were revoked last."""

    keys: list[KeyShown]


NEW_EXAMPLE: Final[dict[str, Any]] = {
    "name": "web shop", "scope": "write", "expires_at": "2027-11-30T00:00:00Z",
    "origins": ["https://shop.example"],
}  # fmt: skip
ROTATION_EXAMPLE: Final = {"overlap_s": 3600}
_SHOWN: Final[dict[str, Any]] = {
    "id": "5f1c9e3a07b2", "name": "web shop", "scope": "write", "state": "active",
    "created_at": EXAMPLE_TIME, "expires_at": "2027-11-30T00:00:00.000Z", "revoked_at": None,
    "last_used_at": None, "replaced_by": None, "origins": ["https://shop.example"],
}  # fmt: skip
_MADE: Final = {**_SHOWN, "key": "pk_0123456789abcdefghijklmnopqrstuv"}
MADE: Final[dict[int | str, dict[str, Any]]] = {
    201: describe_answer(KeyMade, "The key is made; it is shown once", _MADE)
}
LIST: Final[dict[int | str, dict[str, Any]]] = {
    200: describe_answer(KeyList, "The keys, without the keys themselves", {"keys": [_SHOWN]})
}
