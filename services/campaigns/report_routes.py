"""Routes of campaigns' reports: the figures, and their pictures."""

from typing import Literal

from fastapi import Request
from starlette.responses import Response

from feature_repo.analytics.suppression import K
from services.audiences.coarse import is_coarse, midnight
from services.audiences.index import AudienceIndex
from services.audiences.requests import Name
from services.campaigns import plots
from services.campaigns import schemas as said
from services.campaigns.definitions import Campaigns
from services.campaigns.report import report
from services.context.answers import answer, context_of
from services.http import scopes
from services.http.problems import ProblemError
from services.runtime import workers

router = scopes.router("analyst", "campaigns", "/v1/campaigns")


@router.get("/{name}/report", responses=said.REPORT)
async def get_report(request: Request, name: Name) -> Response:
    """Return what a campaign has brought, with 95 % intervals, and what may be claimed."""
    return answer(await _report(request, name))


@router.get("/{name}/report/{plot}.svg", responses=said.PLOT, response_class=Response)
async def get_plot(request: Request, name: Name, plot: Literal["arms", "qini"]) -> Response:
    """Return a picture of the report; 404 for a Qini curve where there is none."""
    found = await _report(request, name)
    if plot == "arms":
        drawn = await workers.ASKING.run(plots.arms, found)
    elif found["qini"] is None:
        raise ProblemError("not-found", "there is no Qini curve: treatment or score is not random")
    else:
        curve = found["qini"]["share"], found["qini"]["gain"]
        drawn = await workers.ASKING.run(plots.qini, *curve)
    return Response(drawn, media_type="image/svg+xml")


async def _report(request: Request, name: str) -> said.CampaignReport:
    context = context_of(request)
    stored = await context.await_bounded(context.of(Campaigns).get(name))
    index = await context.of(AudienceIndex).present()
    now_ms, coarse = context.clock.now_ms(), is_coarse(request.state.caller)
    found = await workers.ASKING.run(
        report, index, stored, midnight(now_ms, now_ms) if coarse else now_ms
    )
    if coarse and any(0 < found[arm]["users"] < K for arm in ("treated", "control")):
        detail = f"an arm of {name} has fewer than {K} users: that needs a key of scope server"
        raise ProblemError("forbidden", detail)
    return {**found, "newest_event": None} if coarse else found
