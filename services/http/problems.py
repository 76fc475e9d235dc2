"""RFC 9457 problems: every error answer of the service and the page that explains it.

Belongs here: the list of problem types, their pages and how an exception becomes one. The
words "never a stack trace, never ``str(exception)``" are kept here: only messages of our own
exception tree, written for users, are shown.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any, Final

import orjson
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from feature_repo.errors import (
    BusyError,
    ConflictError,
    GateError,
    InvalidInputError,
    InvalidQuestionError,
    InvalidRuleError,
    NotFoundError,
    PortraitError,
    StoreUnavailableError,
    TooCostlyError,
)


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A kind of problem: HTTP status, title, and what the caller can do."""

    status: int
    title: str
    mend: str


ERASED: Final = "this user asked to be forgotten: no event of theirs is taken"

TYPES: Final[dict[str, ProblemType]] = {
    "malformed": ProblemType(
        400, "Malformed request", "Send well-formed JSON, or NDJSON with one object a line."
    ),
    "unauthorized": ProblemType(
        401, "No valid API key", "Send `Authorization: Bearer KEY` or `X-API-Key: KEY`."
    ),
    "forbidden": ProblemType(
        403,
        "The key's scope does not allow this",
        "Use a key with the scope that the detail names.",
    ),
    "not-found": ProblemType(
        404, "Not found", "Check the id or name; the detail says what was looked for."
    ),
    "method-not-allowed": ProblemType(405, "Method not allowed", "See the Allow header and /docs."),
    "method-unknown": ProblemType(501, "Unknown method", "See /docs for the methods of each path."),
    "timeout": ProblemType(
        408, "The request took too long to arrive", "Send it again over a better connection."
    ),
    "conflict": ProblemType(409, "Conflict", "Read the present state, then decide."),
    "erased": ProblemType(410, "Erased", "The user asked to be forgotten; nothing is kept."),
    "too-large": ProblemType(
        413, "Too large", "Split it: 32 KB an event, 1,000 events and 5 MB a batch."
    ),
    "headers-too-large": ProblemType(
        431, "Request header fields too large", "Send fewer or shorter headers: 16 KB in all."
    ),
    "unsupported-media-type": ProblemType(
        415,
        "Unsupported media type",
        "Send application/json, or application/x-ndjson to a batch, plain or gzip.",
    ),
    "invalid": ProblemType(422, "Invalid input", "Mend what `errors` points at."),
    "rate-limited": ProblemType(429, "Too many requests", "Wait as long as Retry-After says."),
    "internal": ProblemType(
        500, "Internal error", "Report the request_id; the server's log has the cause."
    ),
    "busy": ProblemType(503, "Too much is asked at once", "Repeat the request after Retry-After."),
    "too-costly": ProblemType(
        503,
        "The question costs too much",
        "Ask for less: a simpler rule, fewer or shorter spans, a smaller limit.",
    ),
    "unavailable": ProblemType(
        503,
        "The store does not answer",
        "Repeat the request, with the same event ids, after Retry-After.",
    ),
    "overtime": ProblemType(
        504,
        "The request took too long to answer",
        "Ask for less, or repeat it; an event sent again with its id is taken once.",
    ),
    "not-applied-yet": ProblemType(
        504,
        "The awaited event is not applied yet",
        "Repeat with the same receipt; nothing is lost.",
    ),
}
"""Problem types by name; ``/problems/<name>`` shows each."""
PROBLEM_URIS: Final = [f"/problems/{name}" for name in TYPES]
ProblemUri = Annotated[str, Field(json_schema_extra={"enum": [*PROBLEM_URIS]})]

_BY_STATUS: Final = {problem_type.status: name for name, problem_type in TYPES.items()}


class ProblemError(HTTPException):
    """An HTTP answer that is a problem; raised by handlers, answered by `answer`.

    A Starlette exception, so that one raised while FastAPI reads a body is not swallowed.

    Parameters
    ----------
    name
        One of `TYPES`.
    detail
        What is wrong in this case, fit for the caller.
    pointer
        Where, if that is one place.
    errors
        ``[{"pointer", "detail"}]``, if they are several, or say more.
    headers
        Extra answer headers.
    hint
        What the caller can do, if that is not what the type says.
    """

    def __init__(
        self,
        name: str,
        detail: str,
        *,
        pointer: str | None = None,
        errors: Sequence[dict[str, Any]] = (),
        headers: dict[str, str] | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(TYPES[name].status, detail)
        if pointer is not None:
            errors = [{"pointer": pointer, "detail": detail}]
        self.problem = Problem(name, detail, tuple(errors), dict(headers or {}), hint)


def unknown_user() -> ProblemError:
    """Return the problem of a user without any event."""
    return ProblemError(
        "not-found", "no event of this user is known",
        hint="Check the id; a profile exists from its first event on.",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """What an error answer says."""

    name: str
    detail: str
    errors: tuple[dict[str, Any], ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    hint: str = ""

    @classmethod
    def of_status(cls, status: int, detail: str) -> "Problem":
        """Return the problem of a bare HTTP status; 404 is that of a path without a route."""
        name = _BY_STATUS.get(status) or ("invalid" if status < 500 else "internal")
        if status == 404:
            return cls(name, "there is no such path", hint="See /docs for the paths there are.")
        return cls(name, detail or HTTPStatus(status).phrase)

    @classmethod
    def of_error(cls, error: PortraitError) -> "Problem":
        """Return the problem of one of our own exceptions."""
        if isinstance(error, StoreUnavailableError):
            return cls("unavailable", str(error), headers={"retry-after": "1"})
        if isinstance(error, BusyError):
            return cls("busy", str(error), headers={"retry-after": "1"})
        if isinstance(error, TooCostlyError):
            return cls("too-costly", str(error), headers={"retry-after": "10"})
        if isinstance(error, NotFoundError):
            return cls("not-found", str(error))
        if isinstance(error, GateError):
            found = [{"pointer": f"/gate/{rule}", "detail": text} for rule, text in error.findings]
            return cls("conflict", str(error), tuple(found))
        if isinstance(error, ConflictError):
            return cls("conflict", str(error))
        if isinstance(error, InvalidRuleError):
            return cls("invalid", str(error), tuple(error.errors))
        if isinstance(error, InvalidQuestionError):
            detail = {"pointer": f"/query/{error.parameter}", "detail": error.detail}
            return cls("invalid", str(error), (detail,))
        if isinstance(error, InvalidInputError):
            return cls("invalid", str(error))
        return cls("internal", "the server could not do this")

    def response(self, instance: str, request_id: str, status: int | None = None) -> Response:
        """Return the HTTP answer for a request to the path ``instance``."""
        problem_type = TYPES[self.name]
        body: dict[str, Any] = {
            "type": f"/problems/{self.name}",
            "title": problem_type.title,
            "status": status or problem_type.status,
            "detail": self.detail,
            "instance": instance,
            "request_id": request_id,
            "hint": self.hint or problem_type.mend,
        }
        if self.errors:
            body["errors"] = list(self.errors)
        return Response(
            orjson.dumps(body),
            status_code=status or problem_type.status,
            headers=self.headers,
            media_type="application/problem+json",
        )


def page(name: str) -> str | None:
    """Return the HTML page of a problem type, or None for an unknown one."""
    problem_type = TYPES.get(name)
    if problem_type is None:
        return None
    title = html.escape(f"{problem_type.status} {problem_type.title}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<h1>{title}</h1><p>{html.escape(problem_type.mend)}</p></html>"
    )
