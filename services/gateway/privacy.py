"""Routes by which people see and decide: consents, and everything that is kept of a user.

Belongs here: what a user may ask about themselves. What a consent allows is decided where a
purpose is served. Erasing is not part of this version.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from feature_repo.events.schema import (
    MAX_EVENT_BYTES,
    Event,
    iso,
    now_ms,
    pointer,
    problems,
    record_to_api,
)
from feature_repo.profile_views.shapes import ProfileConsent
from feature_repo.user_profile.consent import MAX_PURPOSES, needs_no_room
from feature_repo.user_profile.state import ExplicitProfile
from services.context import users
from services.context.answers import answer, context_of
from services.context.context import Context
from services.context.users import After, UserId
from services.gateway.ingest import take
from services.gateway.profiles import current
from services.history.recent_events import read_all
from services.http import body, scopes
from services.http.answer_schemas import CONSENTED, CONSENTS, EXPORTED, Export, UserConsents
from services.http.openapi import CONSENTS_EXAMPLE, body_of
from services.http.problems import ProblemError, unknown_user
from services.runtime import workers

router = scopes.router("server", "privacy", "/v1/users")

MOST_EVENTS: Final = 100_000
_Purpose = Annotated[str, Field(min_length=1, max_length=128)]


class Consents(BaseModel):
    """What is granted and what is not; purposes that are not named stay as they are."""

    model_config = ConfigDict(extra="forbid")

    consents: Annotated[dict[_Purpose, bool], Field(min_length=1, max_length=32)]
    source: Annotated[str, Field(max_length=128)] = ""


@router.get("/{user_id}/consents", responses=CONSENTS)
async def get_consents(request: Request, user_id: UserId, after: After = None) -> Response:
    """Return what a user has granted; a purpose that is not listed is not granted."""
    context = context_of(request)
    _, row, _ = await users.find_user(context, user_id, after, None)
    if row is None:
        raise unknown_user()
    said: UserConsents = {"user_id": user_id, "consents": _consents(users.profile_of(row))}
    return answer(said)


@router.put(
    "/{user_id}/consents", status_code=202, responses=CONSENTED,
    openapi_extra=body_of(Consents, CONSENTS_EXAMPLE),
)  # fmt: skip
async def put_consents(request: Request, user_id: UserId) -> Response:
    """Take a statement as a ``consent_updated`` event; 202 once it is durable."""
    context = context_of(request)
    given = await body.model(request, Consents, limit=MAX_EVENT_BYTES)
    await _check_room(context, user_id, given.consents)
    said = {"consent": given.consents, "source": given.source}
    try:
        event = Event.model_validate({"type": "consent_updated", "user_id": user_id, **said})
    except ValidationError as error:
        detail = problems(error)[0]["detail"]
        raise ProblemError("invalid", detail, pointer="/path/user_id") from None
    return answer(await take(request, event), 202)


@router.get("/{user_id}/export", responses=EXPORTED, dependencies=[scopes.needs("admin")])
async def get_export(request: Request, user_id: UserId, after: After = None) -> Response:
    """Return everything that is kept of a user: profile, consents and events, oldest first."""
    context = context_of(request)
    pseudonym, row = await users.find(context, user_id, after)
    profile = None if row is None else await current(context, pseudonym, user_id)
    if row is None or profile is None:
        raise unknown_user()
    known = users.profile_of(row)
    found = await read_all(context, pseudonym, known.linked, None, None, MOST_EVENTS + 1)
    export: Export = {
        "user_id": user_id, "exported_at": iso(now_ms()), "consents": _consents(known),
        "complete": len(found) <= MOST_EVENTS, "profile": profile, "events": [],
    }  # fmt: skip
    exported = await workers.HISTORY.run(_to_export, export, found)
    workers.HISTORY.free(found)
    return exported


def _to_export(export: Export, found: Sequence[Any]) -> Response:
    # Not put into the caller's: it would give back the memory of all of them, on the event loop.
    events = [record_to_api(record) for _, record in reversed(found[:MOST_EVENTS])]
    return answer({**export, "events": events})


async def _check_room(context: Context, user_id: str, given: Mapping[str, bool]) -> None:
    """Refuse purposes that the user's table has no room for: they would not be kept."""
    _, row, _ = await users.find_user(context, user_id, None, None)
    known = {} if row is None else users.profile_of(row).consent
    new = [p for p, granted in given.items() if not needs_no_room(known, p, granted=granted)]
    if len(known) + len(new) <= MAX_PURPOSES:
        return
    detail = (
        f"a user has at most {MAX_PURPOSES} purposes and {user_id} has {len(known)}: "
        f"no room for {', '.join(new)}"
    )
    errors = [{"pointer": pointer(("consents", p)), "detail": "no room for it"} for p in new]
    raise ProblemError("invalid", detail, errors=errors)


def _consents(profile: ExplicitProfile) -> dict[str, ProfileConsent]:
    return {
        purpose: {"granted": said.granted, "at": iso(said.at * 1000), "source": said.source}
        for purpose, said in profile.consent.items()
    }
