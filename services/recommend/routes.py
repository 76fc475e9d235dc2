"""Routes that recommend: for a user, for a session that is sent along, and ranking given items."""

import time
import uuid
from dataclasses import replace
from typing import Final

import structlog
from fastapi import Request
from starlette.responses import Response

from feature_repo.errors import StoreUnavailableError
from feature_repo.events.schema import now_ms as wall_ms
from services.catalogue.catalogue import Catalogue
from services.context.answers import answer, context_of
from services.context.context import Context
from services.context.users import UserId
from services.http import body, scopes
from services.http.answer_schemas import RECOMMENDED, Recommended
from services.http.openapi import RANK_EXAMPLE, SESSION_EXAMPLE, body_of
from services.recommend.contributions import contributions, to_response
from services.recommend.impressions import Impressions, Shown
from services.recommend.ranking import Ranking
from services.recommend.recommendation_request import RecommendationRequest
from services.recommend.request_context import RequestContext, of_session, of_user
from services.recommend.requests import (
    MAX_BYTES,
    QUERY_PARAMETERS,
    RankItem,
    RankRequest,
    SessionRequest,
    parse_query,
)
from services.recommend.respond import respond, source, timing
from services.recommend.rule_book import RuleBook
from services.runtime import workers

router = scopes.router("server", "recommendations", "/v1")

_LAST_EVENTS: Final = 20
"""Events that `explain` looks at; an explanation of one item looks at more."""
_MOST_EVENTS: Final = 3

_log = structlog.get_logger(__name__)


@router.get(
    "/users/{user_id}/recommendations", responses=RECOMMENDED, openapi_extra=QUERY_PARAMETERS
)
async def get_recommendations(request: Request, user_id: UserId) -> Response:
    """Recommend to a user; an unknown one gets what is popular."""
    started_s = time.perf_counter()
    context, given = context_of(request), parse_query(request.query_params)
    rules = context.of(RuleBook).rules(given.placement, given.rules())
    request_context = await of_user(context, user_id, given.after)
    wanted = RecommendationRequest(
        given.n, given.excluded(), given.category, given.explain, rules=rules,
        seed=uuid.uuid4().hex,
    )  # fmt: skip
    return await _answer(request, user_id, request_context, wanted, given.placement, started_s)


@router.post(
    "/recommendations",
    responses=RECOMMENDED,
    openapi_extra=body_of(SessionRequest, SESSION_EXAMPLE),
)
async def post_recommendations(request: Request) -> Response:
    """Recommend to a session that is sent along, which is not stored; or to a user in one."""
    started_s = time.perf_counter()
    session = await body.model(request, SessionRequest, limit=MAX_BYTES)
    context = context_of(request)
    request.state.about = session.user_id
    rules = context.of(RuleBook).rules(session.placement, session.rules)
    events = [(event.type, event.items) for event in session.events]
    session.events.clear()
    if session.user_id is None:
        request_context = await of_session(context, events)
    else:
        request_context = await of_user(context, session.user_id, None, events)
    wanted = RecommendationRequest(
        session.n, session.exclude, session.category, session.explain, rules=rules,
        seed=uuid.uuid4().hex,
    )  # fmt: skip
    workers.READING.free(events)
    return await _answer(
        request,
        session.user_id,
        request_context,
        wanted,
        session.placement,
        started_s,
    )


@router.post("/rank", responses=RECOMMENDED, openapi_extra=body_of(RankRequest, RANK_EXAMPLE))
async def rank(request: Request) -> Response:
    """Score the given items for a user and return them in order."""
    started_s = time.perf_counter()
    given = await body.model(request, RankRequest, limit=MAX_BYTES)
    request.state.about = given.user_id
    found = [i if isinstance(i, RankItem) else RankItem(item_id=i) for i in given.items]
    request_context = await of_user(context_of(request), given.user_id)
    items = list(dict.fromkeys(item.item_id for item in found))
    relevance = {item.item_id: item.relevance for item in found if item.relevance is not None}
    wanted = RecommendationRequest(
        n=len(items), explain=given.explain, only=items, query=given.query, relevance=relevance,
        seed=uuid.uuid4().hex,
    )  # fmt: skip
    return await _answer(request, given.user_id, request_context, wanted, None, started_s)


async def _answer(
    request: Request,
    user_id: str | None,
    request_context: RequestContext,
    wanted: RecommendationRequest,
    placement: str | None,
    started_s: float,
) -> Response:
    context = context_of(request)
    read_ms = (time.perf_counter() - started_s) * 1000
    recommender = request_context.served.recommender
    ranking = await _rank(request_context, replace(wanted, explain=False))
    lacking = request_context.lacking or ("model_failed" if ranking.failed else None)
    request.app.state.metrics.recommendations.labels(source(ranking, lacking)).inc()
    if wanted.explain:
        explain = recommender.explaining(ranking, request_context.user, request_context.now_ms)
        await workers.HISTORY.run(explain)
        await _contribute(context, request_context, ranking.items)
    reply = respond(ranking, wanted.seed, user_id, lacking, placement)
    if placement is not None or (context.settings.impressions and wanted.only is None):
        _note(context, user_id, request_context, wanted, placement, ranking.items)
    return answer(reply, headers={"server-timing": timing(ranking, read_ms)})


async def _rank(request_context: RequestContext, wanted: RecommendationRequest) -> Ranking:
    """Return the ranking, of which what takes long is done aside."""
    steps, choice = (
        request_context.served.recommender.ranking(
            request_context.user, wanted, request_context.now_ms
        ),
        None,
    )
    while True:
        try:
            choosing = steps.send(choice)
        except StopIteration as end:
            ranking: Ranking = end.value
            return ranking
        if choosing.long:
            choice = await workers.CHOOSING.run(choosing.choose)
        else:
            choice = choosing.choose()


async def _contribute(
    context: Context, request_context: RequestContext, items: list[Recommended]
) -> None:
    """Add to each item the events that moved its score most; none if the log cannot be read."""
    for entry in items:
        entry["contributions"] = []
    if not request_context.stored or not items:
        return
    try:
        names = [entry["item_id"] for entry in items]
        found = await contributions(context, request_context, names, _LAST_EVENTS)
    except StoreUnavailableError as error:
        _log.warning("explaining_without_history", error=str(error))
        return
    title, now_ms = context.of(Catalogue).title, request_context.now_ms
    indices = {item: n for n, item in enumerate(found.items)}

    def add_contributions() -> None:
        for entry in items:
            index = indices.get(entry["item_id"])
            if index is not None:
                entry["contributions"] = to_response(found, index, title, now_ms, _MOST_EVENTS)

    await workers.HISTORY.run(add_contributions)


def _note(
    context: Context,
    user_id: str | None,
    request_context: RequestContext,
    wanted: RecommendationRequest,
    placement: str | None,
    items: list[Recommended],
) -> None:
    """Have the impression logged; a session without a user has nobody to log it for."""
    if request_context.pseudonym is None or user_id is None or not items:
        return
    anonymous = request_context.pseudonym == context.pseudonyms.of_anonymous(user_id)
    received_ms = request_context.now_ms if context.clock.replay else wall_ms()
    context.of(Impressions).note(
        Shown(
            request_context.pseudonym,
            anonymous,
            wanted.seed,
            placement,
            items,
            request_context.now_ms,
            received_ms,
        )
    )
