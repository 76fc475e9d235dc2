"""Answers about the audit trail, for the API's description; see `answer_schemas`."""

from typing import Any, Final, Literal

from feature_repo.profile_views.shapes import Answer
from services.http.answer_schemas import describe_answer
from services.http.api_keys import Scope
from services.http.profile_schemas import EXAMPLE_TIME


class AuditEntry(Answer):
    """One use of a key, or of a command on the machine: then ``key`` is ``cli:`` and a login."""

    id: str
    at: str
    key: str
    scope: Scope | Literal["machine"]
    operation: str
    user: str | None
    target: str | None
    status: int
    request_id: str


class AuditPage(Answer):
    """Some uses of keys, oldest first. A page may be short, or empty, and others still follow."""

    entries: list[AuditEntry]
    next_cursor: str | None


_ENTRY: Final = {
    "id": "1795737846570-0.0", "at": EXAMPLE_TIME, "key": "5f1c9e3a07b2", "scope": "server",
    "operation": "GET /v1/users/{user_id}/profile", "user": "9f86d081884c7d659a2feaa0c55ad015",
    "target": None, "status": 200, "request_id": "5f1c9e3a",
}  # fmt: skip
PAGE: Final[dict[int | str, dict[str, Any]]] = {
    200: describe_answer(AuditPage, "A page of uses", {"entries": [_ENTRY], "next_cursor": None})
}
