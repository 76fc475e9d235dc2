"""Routes by which people decide: consents.

What a consent allows is decided where a purpose is served. Everything that is kept of a user is
`exports`', erasing `services.erasure`'s.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from fastapi import Request
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    model_validator,
)
from starlette.responses import Response

from feature_repo.events.fields import parse_time
from feature_repo.events.schema import (
    MAX_EVENT_BYTES,
    Event,
    iso,
    pointer,
    problems,
)
from feature_repo.online.live_row import LiveState
from feature_repo.profile_views.consents import show_standing
from feature_repo.profile_views.shapes import ProfileConsent
from feature_repo.user_profile.consent import (
    MAX_PURPOSES,
    MAX_VERSION,
    TERMS,
    count_own,
    name_of,
    needs_no_room,
)
from services.context import users
from services.context.answers import answer, context_of
from services.context.context import Context
from services.context.users import After, UserId
from services.gateway.ingest import take
from services.http import body, scopes
from services.http.answer_schemas import CONSENTED, CONSENTS, UserConsents
from services.http.openapi import CONSENTS_EXAMPLE, body_of
from services.http.problems import ProblemError, unknown_user

router = scopes.router("server", "privacy", "/v1/users")

_Purpose = Annotated[str, Field(min_length=1, max_length=128)]


class ConsentGiven(BaseModel):
    """A decision with its terms: until when a grant holds, and which text was agreed to."""

    model_config = ConfigDict(extra="forbid")

    granted: StrictBool
    expires_at: Annotated[int, BeforeValidator(parse_time)] | None = Field(
        default=None,
        description="Of a grant: RFC 3339 with offset, or epoch seconds or milliseconds",
        json_schema_extra={"type": ["string", "number", "null"]},
    )
    version: Annotated[str, Field(min_length=1, max_length=MAX_VERSION)] | None = None

    @model_validator(mode="after")
    def _check_expiry(self) -> Self:
        if self.expires_at is not None and not self.granted:
            raise ValueError("a denial does not expire: leave expires_at out")
        return self

    def terms(self) -> dict[str, Any]:
        """Return the terms as the event carries them."""
        found: dict[str, Any] = {}
        if self.expires_at is not None:
            found["expires_at"] = iso(self.expires_at)
        if self.version is not None:
            found["version"] = self.version
        return found


def _open(given: Any) -> Any:
    return given if isinstance(given, dict) else {"granted": given}


_Given = Annotated[ConsentGiven, BeforeValidator(_open, json_schema_input_type=bool | ConsentGiven)]


class Consents(BaseModel):
    """What is granted and what is not; purposes that are not named stay as they are."""

    model_config = ConfigDict(extra="forbid")

    consents: Annotated[dict[_Purpose, _Given], Field(min_length=1, max_length=32)]
    source: Annotated[str, Field(max_length=128)] = ""

    def say_granted(self) -> dict[str, bool]:
        """Return whether each purpose is granted."""
        return {purpose: given.granted for purpose, given in self.consents.items()}

    def properties(self) -> dict[str, Any] | None:
        """Return the properties of the event: the terms, if there are any."""
        terms = {p: found for p, given in self.consents.items() if (found := given.terms())}
        return {TERMS: terms} if terms else None


@router.get("/{user_id}/consents", responses=CONSENTS)
async def get_consents(request: Request, user_id: UserId, after: After = None) -> Response:
    """Return what stands of each purpose now; one of the shop's own that is not listed is denied.

    Where nobody was asked ``at`` is null and ``source`` is ``default``. An anonymous id works in
    place of a user id.
    """
    context = context_of(request)
    _, row = await users.find(context, user_id, after)
    if row is None:
        raise unknown_user()
    said: UserConsents = {"user_id": user_id, "consents": standing_of(context, row)}
    return answer(said)


@router.put(
    "/{user_id}/consents", status_code=202, responses=CONSENTED,
    openapi_extra=body_of(Consents, CONSENTS_EXAMPLE),
)  # fmt: skip
async def put_consents(request: Request, user_id: UserId) -> Response:
    """Take a statement as a ``consent_updated`` event; 202 once it is durable.

    It is the visitor's where the id is an anonymous one, and the user's where it is unknown.
    """
    context = context_of(request)
    given = await body.model(request, Consents, limit=MAX_EVENT_BYTES)
    granted, properties = given.say_granted(), given.properties()
    _check_names(given)
    _check_expiry(context, given)
    pseudonym, row = await users.find(context, user_id, None)
    _check_room(row, user_id, granted)
    known = pseudonym == context.pseudonyms.of_user(user_id)
    named = "user_id" if known else "anonymous_id"  # of one that is a user's the log moves it
    said = {"consent": granted, "source": given.source, "properties": properties}
    try:
        event = Event.model_validate({"type": "consent_updated", named: user_id, **said})
    except ValidationError as error:
        detail = problems(error)[0]["detail"]
        raise ProblemError("invalid", detail, pointer="/path/user_id") from None
    return answer(await take(request, event), 202)


def _check_room(row: LiveState | None, user_id: str, given: Mapping[str, bool]) -> None:
    """Refuse purposes that the user's table has no room for: they would not be kept."""
    known = {} if row is None else users.profile_of(row).consent
    new = [p for p, granted in given.items() if not needs_no_room(known, p, granted=granted)]
    if count_own(known) + len(new) <= MAX_PURPOSES:
        return
    detail = (
        f"a user has at most {MAX_PURPOSES} purposes of the shop's own and {user_id} has "
        f"{count_own(known)}: "
        f"no room for {', '.join(new)}"
    )
    errors = [{"pointer": pointer(("consents", p)), "detail": "no room for it"} for p in new]
    raise ProblemError("invalid", detail, errors=errors)


def _check_names(given: Consents) -> None:
    """Refuse what differs from a known purpose by case or blanks only: it would decide nothing."""
    errors = [
        {"pointer": pointer(("consents", purpose)), "detail": f"the purpose is named {name}"}
        for purpose in given.consents
        if (name := name_of(purpose)) != purpose
    ]
    if errors:
        detail = "; ".join(f"{one['pointer']}: {one['detail']}" for one in errors)
        raise ProblemError("invalid", detail, errors=errors)


def _check_expiry(context: Context, given: Consents) -> None:
    now = context.clock.now_ms()
    errors = [
        {"pointer": pointer(("consents", purpose, "expires_at")), "detail": "it is past already"}
        for purpose, one in given.consents.items()
        if one.expires_at is not None and one.expires_at <= now
    ]
    if errors:
        raise ProblemError("invalid", f"expires_at must lie after {iso(now)}", errors=errors)


def standing_of(context: Context, row: LiveState) -> dict[str, ProfileConsent]:
    """Return what stands of each purpose by a user's row."""
    consent, now_s = users.profile_of(row).consent, context.clock.now_ms(row.time_ms) // 1000
    return show_standing(consent, now_s, context.settings.standing)
