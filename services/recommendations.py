"""Routes that recommend: for a user, for an anonymous session, and ranking given items."""

import uuid
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from feature_repo import derived, explicit
from feature_repo.errors import StoreUnavailableError
from feature_repo.event_fields import Id
from feature_repo.events import Event, EventItem, to_record
from feature_repo.live_row import LiveState
from services.answer_schemas import RECOMMENDED
from services.answers import answer, gateway
from services.profiles import After, UserId
from services.recommender import Ranking, Shopper, Wish
from services.state import GatewayState

router = APIRouter(prefix="/v1", tags=["recommendations"])

Count = Annotated[int, Query(ge=1, le=500)]
_NEED: Final = frozenset({"purchased", "seen"})

_log = structlog.get_logger(__name__)


class SessionEvent(BaseModel):
    """One event of a session that is not stored."""

    model_config = ConfigDict(extra="forbid")

    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")] = "view_item"
    items: Annotated[list[EventItem], Field(max_length=200)]


class Session(BaseModel):
    """What an anonymous visitor did so far, and what is wanted."""

    model_config = ConfigDict(extra="forbid")

    events: Annotated[list[SessionEvent], Field(max_length=200)] = []
    n: Annotated[int, Field(ge=1, le=500)] = 10
    exclude: Annotated[list[str], Field(max_length=1000)] = []
    category: Annotated[str | None, Field(max_length=256)] = None
    explain: bool = False


class RankItem(BaseModel):
    """An item to be ranked."""

    model_config = ConfigDict(extra="forbid")

    item_id: Id


class RankRequest(BaseModel):
    """Items to be put into a user's order."""

    model_config = ConfigDict(extra="forbid")

    user_id: Id
    items: Annotated[list[Id | RankItem], Field(min_length=1, max_length=1000)]
    explain: bool = False


@router.get("/users/{user_id}/recommendations", responses=RECOMMENDED)
async def get_recommendations(
    request: Request,
    user_id: UserId,
    n: Count = 10,
    after: After = None,
    exclude: Annotated[str | None, Query(max_length=65_536)] = None,
    category: Annotated[str | None, Query(max_length=256)] = None,
    explain: bool = False,
) -> Response:
    """Recommend to a user; an unknown one gets what is popular."""
    state = gateway(request)
    excluded = [name for name in (exclude or "").split(",") if name]
    shopper, now_ms, degraded = await _shopper(state, user_id, after)
    wish = Wish(n=n, excluded=excluded, category=category, explain=explain)
    return _answer(request, user_id, shopper, wish, now_ms, degraded=degraded)


@router.post("/recommendations", responses=RECOMMENDED)
async def post_recommendations(request: Request, session: Session) -> Response:
    """Recommend to a session that is sent along; nothing is stored."""
    state = gateway(request)
    now_ms = state.clock.now_ms()
    wish = Wish(session.n, session.exclude, session.category, session.explain)
    return _answer(request, None, _of_session(state, session), wish, now_ms, degraded=False)


@router.post("/rank", responses=RECOMMENDED)
async def rank(request: Request, body: RankRequest) -> Response:
    """Score the given items for a user and return them in order."""
    state = gateway(request)
    names = [i.item_id if isinstance(i, RankItem) else i for i in body.items]
    shopper, now_ms, degraded = await _shopper(state, body.user_id, None)
    items = list(dict.fromkeys(names))
    wish = Wish(n=len(items), explain=body.explain, only=items)
    return _answer(request, body.user_id, shopper, wish, now_ms, degraded=degraded)


async def _shopper(
    state: GatewayState, user_id: str, after: str | None
) -> tuple[Shopper, int, bool]:
    """Return what is known of a user, the moment to rank at, and whether the store was away."""
    try:
        entity, row = await state.find(user_id, after)
    except StoreUnavailableError as error:
        _log.warning("recommending_without_store", error=str(error))
        return Shopper(), state.clock.now_ms(), True
    if row is None:
        return Shopper(), state.clock.now_ms(), False
    now_ms = state.clock.now_ms(row.time_ms)
    return await _known(state, entity, row, now_ms), now_ms, False


async def _known(state: GatewayState, entity: str, row: LiveState, now_ms: int) -> Shopper:
    profile, learned = state.profile(row), state.learned(row)
    features = None if learned is None else await state.features.read(entity, "ranking_v1")
    return _from_profile(profile, now_ms, learned, features)


def _from_profile(
    profile: explicit.ExplicitProfile,
    now_ms: int,
    learned: bytes | None,
    features: dict[str, Any] | None,
) -> Shopper:
    return Shopper(
        learned=learned,
        interests=derived.interests(profile, now_ms // 1000),
        purchased=frozenset(explicit.purchased_items(profile)),
        seen=frozenset(explicit.seen_items(profile)),
        refused=frozenset(explicit.refused_items(profile)),
        user_features=features,
    )


def _of_session(state: GatewayState, session: Session) -> Shopper:
    profile, records = explicit.new(), []
    now_ms = state.clock.now_ms()
    for event in session.events:
        order = "session" if event.type in {"purchase", "refund"} else None
        whole = Event.model_construct(
            type=event.type, anonymous_id="session", items=event.items, time=now_ms, order_id=order
        )
        record = to_record(whole, state.tenant, now_ms)
        state.catalogue.enrich(record)
        explicit.apply(profile, record)
        records.append(record)
    learned: bytes | None = None
    if state.model is not None and records:
        learned = state.transition.replay([records])[0]
    return _from_profile(profile, now_ms, learned, None)


def _answer(
    request: Request,
    user_id: str | None,
    shopper: Shopper,
    wish: Wish,
    now_ms: int,
    *,
    degraded: bool,
) -> Response:
    state = gateway(request)
    excluded = [name for name in wish.excluded if name not in _NEED]
    if "purchased" in wish.excluded:
        excluded.extend(shopper.purchased)
    if "seen" in wish.excluded:
        excluded.extend(shopper.seen)
    ranking = state.recommender.rank(
        shopper, Wish(wish.n, excluded, wish.category, wish.explain, wish.only), now_ms
    )
    request.app.state.metrics.recommendations.labels(_source(ranking, degraded)).inc()
    reply: dict[str, Any] = {
        "recommendation_id": uuid.uuid4().hex,
        "user_id": user_id,
        "items": ranking.items,
        "model": ranking.model,
        "personalized": ranking.personalized,
        "degraded": degraded,
        "reason": _reason(ranking, degraded),
    }
    return answer(reply)


def _source(ranking: Ranking, degraded: bool) -> str:
    if degraded:
        return "degraded"
    return "model" if ranking.model else "profile" if ranking.personalized else "popular"


def _reason(ranking: Ranking, degraded: bool) -> str:
    if degraded:
        return "store_unavailable"
    if not ranking.personalized:
        return "cold_start"
    return "model" if ranking.model else "explicit_profile"
