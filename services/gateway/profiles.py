"""Routes that read one user: the profile in its views, and the events behind it."""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import structlog
from fastapi import Query, Request
from starlette.responses import Response

from feature_repo.events.schema import EventRecord, record_to_api
from feature_repo.online.live_row import LiveState
from feature_repo.profile_views import views
from feature_repo.profile_views.shapes import Profile
from services.catalogue.catalogue import Catalogue
from services.context import users
from services.context.answers import answer, context_of
from services.context.context import Context
from services.context.users import After, UserId
from services.history.recent_events import Position, read_all
from services.http import scopes
from services.http.answer_schemas import EVENTS, EventPage
from services.http.problems import ProblemError, unknown_user
from services.http.profile_schemas import PROFILE
from services.recommend.serving import ServedModels, Serving
from services.runtime import workers

router = scopes.router("server", "users", "/v1/users")

View = Literal["full", "summary", "seed"]
_MAX_LIMIT: Final = 1000
_MAX_ADMIN_LIMIT: Final = 100_000

_log = structlog.get_logger(__name__)


@router.get("/{user_id}/profile", responses=PROFILE)
async def get_profile(
    request: Request, user_id: UserId, view: View = "full", after: After = None
) -> Response:
    """Return the profile; an anonymous id works in place of a user id."""
    context = context_of(request)
    pseudonym, row, batch = await users.find_whole(context, user_id, after, _service(context, view))
    if row is None:
        raise unknown_user()
    served, learned = context.of(ServedModels).find_serving(row)
    model = served.version if learned is not None else ""
    tag = f'W/"{row.version}-{view}-{context.of(Catalogue).changes}-{model}"'
    headers = {"etag": tag, "cache-control": "private, no-cache"}
    if tag in [each.strip() for each in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    return answer(_to_response(context, pseudonym, row, batch, user_id, view), headers=headers)


async def current(context: Context, pseudonym: str, user_id: str) -> Profile | None:
    """Return a profile as it is now; None for a user without a row."""
    row, batch = await users.read(context, pseudonym, _service(context, "full"))
    if row is None:
        return None
    profile: Profile = _to_response(context, pseudonym, row, batch, user_id, "full")
    return profile


def _service(context: Context, view: View) -> str | None:
    """Return the feature service that a view is made of."""
    if view == "seed":
        return None
    # One read serves both: ranking_v1 holds what a profile shows and what a model asks for.
    modelled = context.of(ServedModels).newest.model is not None
    return "ranking_v1" if view == "summary" or modelled else "profile_v1"


def _to_response(
    context: Context,
    pseudonym: str,
    row: LiveState,
    batch: dict[str, Any] | None,
    user_id: str,
    view: View,
) -> Any:
    profile, title = users.profile_of(row), context.of(Catalogue).title
    if view == "seed":
        return views.seed(profile, user_id=user_id, title=title)
    now_ms = context.clock.now_ms(row.time_ms)
    if view == "summary":
        return views.summary(profile, user_id=user_id, now_ms=now_ms, title=title, batch=batch)
    served, learned = context.of(ServedModels).find_serving(row)
    return views.full(
        profile,
        user_id=user_id,
        now_ms=now_ms,
        title=title,
        batch=batch,
        learned=None
        if learned is None
        else _summarise_learned(served, pseudonym, learned, batch, now_ms),
    )


def _summarise_learned(
    served: Serving,
    pseudonym: str,
    learned: bytes,
    features: dict[str, Any] | None,
    now_ms: int,
) -> views.LearnedSummary | None:
    try:
        propensities = served.scorer.propensities(learned, now_ms, features)
        following = served.scorer.next_categories(learned, now_ms, features)
    except Exception as error:  # noqa: BLE001 - a profile is worth more than its propensity
        _log.warning("propensity_failed", entity=pseudonym, error=type(error).__name__)
        return None
    return views.LearnedSummary(
        model=served.version,
        dim=served.scorer.dim,
        propensities=propensities,
        next_categories=None if following is None else following.probabilities,
        next_categories_calibrated=following is not None and following.calibrated,
    )


@router.get("/{user_id}/events", responses=EVENTS)
async def get_events(
    request: Request,
    user_id: UserId,
    limit: Annotated[int, Query(ge=1, le=_MAX_ADMIN_LIMIT)] = 50,
    cursor: Annotated[str | None, Query(max_length=256)] = None,
    type_: Annotated[str | None, Query(alias="type", max_length=64)] = None,
    after: After = None,
) -> Response:
    """Return a user's events, newest first: archive and log, each event once."""
    context = context_of(request)
    if limit > _MAX_LIMIT and not request.state.caller.may("admin"):
        raise ProblemError("forbidden", f"limit over {_MAX_LIMIT} needs a key with scope admin")
    pseudonym, row = await users.find(context, user_id, after)
    before = None if cursor is None else _decode_cursor(cursor)
    linked = [] if row is None else users.profile_of(row).linked
    found = await read_all(context, pseudonym, linked, before, type_, limit + 1)
    if not found and row is None:
        raise unknown_user()
    page = await workers.HISTORY.run(_page, found, limit)
    workers.HISTORY.free(found)
    return page


def _page(found: Sequence[tuple[Position, EventRecord]], limit: int) -> Response:
    page = found[:limit]
    more = len(found) > limit
    shown: EventPage = {
        "events": [record_to_api(record) for _, record in page],
        "next_cursor": _encode_cursor(page[-1][0]) if more else None,
    }
    return answer(shown)


def _encode_cursor(position: Position) -> str:
    text = f"{position[0]}.{position[1]}.{position[2]}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode_cursor(cursor: str) -> Position:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        ms, seq, event_id = text.split(".", 2)
        return int(ms), int(seq), event_id
    except (ValueError, binascii.Error):
        raise ProblemError(
            "invalid", "cursor is not one that this service gave",
            errors=[{"pointer": "/query/cursor", "detail": "pass next_cursor of the last answer"}],
        ) from None  # fmt: skip
