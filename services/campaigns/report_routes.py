"""Routes of campaigns' reports: the figures, and their pictures."""

from typing import Literal

from fastapi import Request
from starlette.responses import Response

from services.audiences.index import AudienceIndex
from services.audiences.requests import Name
from services.campaigns import plots
from services.campaigns import schemas as said
from services.campaigns.definitions import Campaigns
from services.campaigns.report import report
from services.context.answers import answer, context_of
from services.context.context import Context
from services.http import scopes
from services.http.problems import ProblemError
from services.runtime import workers

router = scopes.router("analyst", "campaigns", "/v1/campaigns")


@router.get("/{name}/report", responses=said.REPORT)
async def get_report(request: Request, name: Name) -> Response:
    """Return what a campaign has brought, with 95 % intervals, and what may be claimed."""
    return answer(await _report(context_of(request), name))


@router.get("/{name}/report/{plot}.svg", responses=said.PLOT, response_class=Response)
async def get_plot(request: Request, name: Name, plot: Literal["arms", "qini"]) -> Response:
    """Return a picture of the report; 404 for a Qini curve where there is none."""
    found = await _report(context_of(request), name)
    if plot == "arms":
        drawn = await workers.ASKING.run(plots.arms, found)
    elif found["qini"] is None:
        raise ProblemError("not-found", "there is no Qini curve: treatment or score is not random")
    else:
        curve = found["qini"]["share"], found["qini"]["gain"]
        drawn = await workers.ASKING.run(plots.qini, *curve)
    return Response(drawn, media_type="image/svg+xml")


async def _report(context: Context, name: str) -> said.CampaignReport:
    stored = await context.await_bounded(context.of(Campaigns).get(name))
    index = await context.of(AudienceIndex).present()
    return await workers.ASKING.run(report, index, stored, context.clock.now_ms())
