"""Route of the audit trail."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query, Request
from starlette.responses import Response

from feature_repo.errors import InvalidQuestionError
from feature_repo.events.schema import iso
from services.audit import schemas as said
from services.audit.pages import AuditQuestion, read_page
from services.audit.trail import Trail
from services.context.answers import answer, context_of
from services.http import scopes
from services.runtime import workers

router = scopes.router("admin", "audit", "/v1/audit")

Time = Annotated[str | None, Query(max_length=40, description="A day or an RFC 3339 time")]


@router.get("", responses=said.PAGE)
async def get_audit(
    request: Request,
    since: Time = None,
    until: Time = None,
    key: Annotated[
        str | None,
        Query(
            pattern=r"^([0-9a-f]{12}|cli:[A-Za-z0-9._-]{1,32})$",
            description="Only uses of this key's id, or of `cli:` and a login: of commands",
        ),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=32)] = None,
) -> Response:
    """Return who used which key for what, oldest first; entries are there after some seconds."""
    context = context_of(request)
    question = AuditQuestion(_moment("since", since), _moment("until", until), key, limit)
    trail = Trail(context.settings.home)
    return answer(await workers.ASKING.run(read_page, trail, question, cursor))


def _moment(name: str, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidQuestionError(name, "no day (2026-12-01) and no RFC 3339 time") from None
    if not 1971 <= parsed.year <= 9998:
        raise InvalidQuestionError(name, "a time of the years 1971 to 9998")
    aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return iso(round(aware.timestamp() * 1000))
