"""Routes of campaigns: definitions, ranking, decisions. Reports are `report_routes`'."""

from typing import Annotated, Any, cast

from fastapi import Query, Request
from starlette.responses import Response

from feature_repo.analytics.suppression import K
from feature_repo.events.schema import MAX_EVENT_BYTES, iso
from services.audiences.coarse import is_coarse
from services.audiences.requests import NAME, Name, read_named
from services.campaigns import language
from services.campaigns import schemas as said
from services.campaigns.decisions import decide
from services.campaigns.definitions import Campaigns, Stored
from services.campaigns.events import DecisionRequest
from services.campaigns.ledger import Ledger
from services.campaigns.ranking import set_threshold
from services.campaigns.requests import MAX_PAGE, DecideRequest, check_audience, moment_of
from services.campaigns.scores import rank_audience
from services.context.answers import answer, context_of
from services.context.context import Context
from services.http import body, scopes
from services.http.openapi import DECIDE_EXAMPLE, body_of
from services.runtime import workers

router = scopes.router("analyst", "campaigns", "/v1/campaigns")


@router.get("", responses=said.LIST)
async def list_campaigns(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    cursor: Annotated[str | None, Query(pattern=NAME, max_length=64)] = None,
) -> Response:
    """Return a page of campaigns by name, without their parts."""
    context = context_of(request)
    page = await context.await_bounded(context.of(Campaigns).page(cursor or "", limit + 1))
    more = len(page) > limit
    shown = [_head(each) for each in page[:limit]]
    return answer({"campaigns": shown, "next_cursor": page[limit - 1].name if more else None})


@router.post("", status_code=201, responses=said.CREATED, openapi_extra=said.body(named=True))
async def post_campaign(request: Request) -> Response:
    """Create a campaign whose ``name`` is in the body: 201, or 409 if the name is taken."""
    name, campaign = await read_named(request, language.read)
    return await _put(context_of(request), name, campaign, only_new=True)


@router.get("/schema", responses=said.SCHEMA)
async def get_campaign_schema() -> Response:
    """Return the JSON Schema of a campaign."""
    return answer(await workers.READING.run(language.schema))


@router.put("/{name}", responses=said.PUT, openapi_extra=said.body())
async def put_campaign(request: Request, name: Name) -> Response:
    """Create a campaign (201) or replace it (200)."""
    _, campaign = await read_named(request, language.read, name)
    return await _put(context_of(request), name, campaign)


@router.get("/{name}", responses=said.SHOWN)
async def get_campaign(request: Request, name: Name) -> Response:
    """Return a campaign, and what it has decided and spent."""
    context = context_of(request)
    found = await _to_response(
        context, await context.await_bounded(context.of(Campaigns).get(name))
    )  # fmt: skip
    if is_coarse(request.state.caller) and (found["decided"] or 0) < K:
        found = {**found, "decided": None, "spent": {"messages": None, "amount": None}}
    return answer(found)


@router.delete("/{name}", status_code=204, dependencies=[scopes.needs("admin")])
async def delete_campaign(request: Request, name: Name) -> Response:
    """Remove a campaign; its name is not used again if it has decided."""
    context = context_of(request)
    await context.await_bounded(context.of(Campaigns).delete(name))
    return Response(status_code=204)


@router.post(
    "/{name}/decide",
    responses=said.DECISION,
    openapi_extra=body_of(DecideRequest, DECIDE_EXAMPLE),
    dependencies=[scopes.needs("server")],
)
async def post_decide(request: Request, name: Name) -> Response:
    """Decide about a user, once: which arm, which offer, and why.

    A repeated decision gets the first one's answer, with the header ``idempotent-replayed``.
    """
    context = context_of(request)
    wanted = await body.model(request, DecideRequest, limit=MAX_EVENT_BYTES)
    request.state.about = wanted.user_id
    now_ms = moment_of(context, wanted.time)
    found = await decide(
        context, name, DecisionRequest(wanted.user_id, now_ms, wanted.decision_id, wanted.tz)
    )
    headers = {"idempotent-replayed": "true"} if found.repeated else None
    return answer(found.answer, headers=headers)


@router.post("/{name}/rank", responses=said.RANKED, dependencies=[scopes.needs("server")])
async def post_rank(
    request: Request, name: Name, limit: Annotated[int, Query(ge=0, le=MAX_PAGE)] = 100
) -> Response:
    """Rank the audience, and choose from now on the best: ``top`` per cent within the budget."""
    context = context_of(request)
    stored = await context.await_bounded(context.of(Campaigns).get(name))
    now_ms = context.clock.now_ms()
    found = await rank_audience(context, stored, now_ms)
    return answer(await set_threshold(context, stored, found, now_ms, limit))


async def _put(context: Context, name: str, campaign: Any, *, only_new: bool = False) -> Response:
    await check_audience(context, campaign)
    stored, new = await context.await_bounded(
        context.of(Campaigns).put(name, campaign, now_ms=context.clock.now_ms(), only_new=only_new)
    )
    headers = {"location": f"/v1/campaigns/{name}"} if new else None
    return answer(await _to_response(context, stored), 201 if new else 200, headers)


def _head(stored: Stored) -> said.CampaignHead:
    return {
        "name": stored.name,
        "title": stored.campaign.title,
        "audience": stored.campaign.audience,
        "channel": stored.campaign.channel,
        "offer": stored.campaign.offer.id,
        "active": stored.campaign.active,
        "created_at": iso(stored.created_ms),
        "updated_at": iso(stored.updated_ms),
    }


async def _to_response(context: Context, stored: Stored) -> said.CampaignDetail:
    spent = await context.await_bounded(context.of(Ledger).read_spent(stored.name))
    ranked_at = None if spent.ranked_ms is None else iso(spent.ranked_ms)
    shown = {
        "name": stored.name,
        **language.to_document(stored.campaign),
        "created_at": iso(stored.created_ms),
        "updated_at": iso(stored.updated_ms),
        "decided": spent.decided,
        "spent": {"messages": spent.messages, "amount": spent.amount},
        "ranked_at": ranked_at,
    }
    return cast("said.CampaignDetail", shown)
