"""The HTTP application of one gateway replica: routes, errors and the frame put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import fastapi_offline
import orjson
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from feature_repo.archive.catalogue import Item
from feature_repo.errors import PortraitError
from feature_repo.events.schema import Event, EventItem, pointer
from services.analytics import routes as analytics
from services.audiences import questions as audience_questions
from services.audiences import routes as audiences
from services.audit import routes as audit
from services.audit.note import note_use
from services.campaigns import report_routes as campaign_reports
from services.campaigns import routes as campaigns
from services.campaigns.requests import DecideRequest
from services.catalogue import routes as items
from services.erasure import routes as erasures
from services.erasure.routes import ErasureRequest
from services.gateway import exports, ingest, keys, models, operations, privacy, profiles
from services.gateway.models import PromoteRequest
from services.gateway.privacy import Consents
from services.gateway.wiring import Replica
from services.http import scopes, slashes
from services.http.key_requests import NewKey, Rotation
from services.http.middleware import Frame, Metrics
from services.http.openapi import describe
from services.http.problems import Problem, ProblemError, page
from services.recommend import explanation_routes as explanations
from services.recommend import routes as recommendations
from services.recommend import similar_routes as similar
from services.recommend.requests import RankRequest, SessionRequest
from services.runtime import freeze_heap, workers
from services.settings import Settings

DESCRIPTION = """Post behaviour events; read the profile and the recommendations they lead to.
Every error is `application/problem+json` (RFC 9457). See the Authorize button for keys."""
BODIES: Final = (
    Event,
    EventItem,
    Item,
    SessionRequest,
    RankRequest,
    Consents,
    PromoteRequest,
    DecideRequest,
    NewKey,
    Rotation,
    ErasureRequest,
)
"""What handlers read for themselves, for the API's description."""
ANSWER_TIMEOUT_S: Final = 30.0
"""Longest time for an answer, once body and awaited receipt have had theirs."""
_SWAGGER_UI: Final = Path(fastapi_offline.__file__).parent / "static"


def create_app(
    settings: Settings,
    url: str,
    admin_digest: str | None,
    *,
    behind_serve: bool = False,
    drain_file: Path | None = None,
) -> FastAPI:
    """Return the ASGI application.

    Parameters
    ----------
    settings, url, admin_digest
        See `services.gateway.wiring.Replica`; nothing is opened before the lifespan starts.
    behind_serve
        Whether Ray Serve is around it, which sends the request id back by itself.
    drain_file
        While this file exists, the service is about to end and says that it is not ready.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        from services.runtime import logs, replica

        begin = replica.begin if behind_serve else logs.configure
        begin(settings, "gateway")
        app.state.replica = Replica(
            settings,
            url,
            admin_digest,
            drain_file,
            impressions=metrics.impressions,
            audit=metrics.audit,
        )
        await app.state.replica.start()
        if behind_serve:  # then the process is ours alone
            freeze_heap.freeze_heap()
        try:
            yield
        finally:
            await app.state.replica.stop()

    app = FastAPI(
        title="Portrait",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url=None,  # FastAPI's own pages make the text anew each time, and load others'
        docs_url=None,  # scripts: see `_pages`
        redoc_url=None,
    )
    app.state.metrics = metrics
    modules = (
        ingest, profiles, privacy, exports, recommendations, explanations, items, similar,
        audience_questions, audiences, campaigns, campaign_reports, analytics, erasures, keys,
        audit, operations, models,
    )  # fmt: skip
    routers = [module.router for module in modules]
    slashes.read()
    for router in [*routers, _pages(app)]:
        app.include_router(router)
    routes = scopes.check_routes(app)
    app.add_middleware(
        Frame,
        metrics=metrics,
        state=app.state,
        open_routes=[route for route in routes if scopes.needs_of(route) == "open"],
        tags=not behind_serve,
        body_timeout_s=settings.body_timeout_s,
        timeout_s=settings.body_timeout_s + settings.wait_ms / 1000 + ANSWER_TIMEOUT_S,
        note_use=lambda scope, method, status: note_use(
            app.state.replica.audit, scope, method, status
        ),
    )
    _handle_errors(app)
    describe(app, routers, BODIES)
    return app


def _pages(app: FastAPI) -> APIRouter:
    """Return what a browser may read without a key."""
    pages, making, made = scopes.router("open", "pages"), asyncio.Lock(), list[bytes]()

    @pages.get("/openapi.json", include_in_schema=False)
    async def get_description() -> Response:
        async with making:
            if not made:
                made.append(await workers.READING.run(lambda: orjson.dumps(app.openapi())))
        return Response(made[0], media_type="application/json")

    @pages.get("/docs", include_in_schema=False, response_class=HTMLResponse)
    async def docs() -> Response:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Portrait",
            swagger_js_url="/docs/swagger-ui-bundle.js",
            swagger_css_url="/docs/swagger-ui.css",
            swagger_favicon_url="/favicon.ico",
        )

    @pages.get("/docs/swagger-ui-bundle.js", include_in_schema=False)
    async def script() -> Response:
        return FileResponse(_SWAGGER_UI / "swagger-ui-bundle.js")

    @pages.get("/docs/swagger-ui.css", include_in_schema=False)
    async def style() -> Response:
        return FileResponse(_SWAGGER_UI / "swagger-ui.css")

    @pages.get("/problems/{name}", include_in_schema=False, response_class=HTMLResponse)
    async def problem(name: str) -> Response:
        found = page(name)
        if found is None:
            raise ProblemError("not-found", "no problem type has this name")
        return HTMLResponse(found)

    @pages.get("/favicon.ico", include_in_schema=False, status_code=204)
    async def icon() -> Response:
        return Response(status_code=204)

    return pages


def _handle_errors(app: FastAPI) -> None:
    def answer(request: Request, problem: Problem, status: int | None = None) -> Response:
        return problem.response(
            slashes.escape(request.scope["path"]), request.state.request_id, status
        )

    @app.exception_handler(ProblemError)
    async def _problem(request: Request, error: ProblemError) -> Response:
        return answer(request, error.problem)

    @app.exception_handler(PortraitError)
    async def _portrait(request: Request, error: PortraitError) -> Response:
        return answer(request, Problem.of_error(error))

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:
        errors = [
            {"pointer": pointer(e["loc"]), "detail": e["msg"].removeprefix("Value error, ")}
            for e in error.errors()
        ]
        where = ", ".join(e["pointer"] for e in errors[:5])
        return answer(request, Problem("invalid", f"invalid: {where}", tuple(errors)))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        problem = Problem.of_status(error.status_code, "")
        response = answer(request, problem, error.status_code)
        response.headers.update(error.headers or {})
        return response
