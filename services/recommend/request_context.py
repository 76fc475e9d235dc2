"""Request context: the user's row, or a session that is sent along, as stages see it.

Belongs here: reading what is known of a user, and saying why it may be less than usual. Not
here: what follows from it (the stages).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from feature_repo.errors import ModelMismatchError, StoreUnavailableError
from feature_repo.events.schema import Event, EventItem, EventRecord, to_record
from feature_repo.online.live_row import LiveState
from feature_repo.user_profile import explicit
from feature_repo.user_profile.purposes import allowed
from services.catalogue.catalogue import Catalogue
from services.context import users
from services.context.context import Context
from services.http.answer_schemas import Lacking
from services.recommend.serving import ServedModels, Serving
from services.recommend.user_context import UserContext
from services.runtime import workers

SERVICE = "ranking_v1"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A user at a moment.

    Attributes
    ----------
    now_ms
        The moment to rank at, epoch milliseconds.
    served
        The model that serves this user.
    lacking
        Why less is known than could be, None if nothing lacks: ``store_unavailable``,
        ``catalogue_loading``, ``model_unavailable`` or ``features_unavailable``.
    pseudonym
        Pseudonym of the user; None for a session without one.
    stored
        Whether the user has a row.
    """

    user: UserContext
    now_ms: int
    served: Serving
    lacking: Lacking | None = None
    pseudonym: str | None = None
    stored: bool = False


async def of_user(
    context: Context,
    user_id: str,
    after: str | None = None,
    session: Sequence[tuple[str, Sequence[EventItem]]] = (),
) -> RequestContext:
    """Return what is known of a user, with a session's events, not stored, on top of it.

    Of one who denies personalization nothing is known, nor of the session: a stranger's answer.
    """
    try:
        pseudonym, row, features = await users.find_whole(
            context, user_id, after, _service(context)
        )
    except StoreUnavailableError as error:
        _log.warning("recommending_without_store", error=str(error))
        given = await of_session(context, session)
        return replace(
            given, lacking="store_unavailable", pseudonym=context.pseudonyms.of_user(user_id)
        )
    if row is None:
        given = await of_session(context, session)
        return replace(given, pseudonym=pseudonym)
    now_ms, profile = context.clock.now_ms(row.time_ms), users.profile_of(row)
    standing = context.settings.standing
    if not allowed(profile.consent, "personalization", now_ms // 1000, standing):
        return replace(await of_session(context, ()), pseudonym=pseudonym)
    served, learned = context.of(ServedModels).find_serving(row)
    if session:
        # Without a context of the whole history there is none of the session alone either.
        learned = await workers.READING.run(
            _go_on, context, served if learned else None, profile, learned, session, now_ms
        )
    lacking = _lacking(context, row)
    if lacking is None and learned is not None and features is None and _asks(served):
        lacking = "features_unavailable"
    user = UserContext(profile, now_ms // 1000, learned, features)
    return RequestContext(user, now_ms, served, lacking, pseudonym, stored=True)


async def of_session(
    context: Context, session: Sequence[tuple[str, Sequence[EventItem]]]
) -> RequestContext:
    """Return what a session alone says."""
    now_ms = context.clock.now_ms()
    profile = explicit.new()
    served = context.of(ServedModels).newest
    learned: bytes | None = None
    if session:
        learned = await workers.READING.run(_go_on, context, served, profile, None, session, now_ms)
    user = UserContext(profile, now_ms // 1000, learned)
    return RequestContext(user, now_ms, served, _lacking(context, None))


def _service(context: Context) -> str | None:
    """Return the feature service that a model may ask for; None if none asks for a feature."""
    return SERVICE if context.of(ServedModels).ask_features else None


def _asks(served: Serving) -> bool:
    return served.model is not None and bool(served.model.user_features.names)


def _lacking(context: Context, row: LiveState | None) -> Lacking | None:
    if not context.of(Catalogue).loaded:
        return "catalogue_loading"
    models = context.of(ServedModels)
    if row is not None and row.model:
        lacking = models.of(row.model) is None
    else:
        lacking = models.refused and models.newest.model is None
    return "model_unavailable" if lacking else None


def _records(
    context: Context, session: Sequence[tuple[str, Sequence[EventItem]]], now_ms: int
) -> list[EventRecord]:
    records = []
    for n, (event_type, items) in enumerate(session):
        order = f"session-{n}" if event_type in {"purchase", "refund"} else None
        whole = Event.model_construct(
            type=event_type, anonymous_id="session", items=list(items), time=now_ms, order_id=order
        )
        record = to_record(whole, context.pseudonyms, now_ms)
        context.of(Catalogue).enrich(record)
        records.append(record)
    return records


def _go_on(
    context: Context,
    served: Serving | None,
    profile: explicit.ExplicitProfile,
    learned: bytes | None,
    session: Sequence[tuple[str, Sequence[EventItem]]],
    now_ms: int,
) -> bytes | None:
    """Apply a session's events to ``profile`` and return the learned context after them.

    Parameters
    ----------
    served
        Moves the learned context; None leaves it as it is.
    """
    records = _records(context, session, now_ms)
    for record in records:
        explicit.apply(profile, record)
    if served is None or served.model is None:
        return learned
    try:
        after: bytes = served.transition.replay([list(records)], [learned])[0]
    except ModelMismatchError as error:
        _log.error("session_unread", error=str(error))
        return learned
    return after
