"""The HTTP application of one gateway replica: routes, errors and the frame put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from feature_repo.errors import PortraitError
from feature_repo.events import pointer
from services import (
    audience_questions,
    audiences,
    heap,
    ingest,
    items,
    operations,
    profiles,
    recommendations,
)
from services.middleware import Frame, Metrics
from services.problems import Problem, ProblemError, page
from services.settings import Settings
from services.state import GatewayState

DESCRIPTION = """Post behaviour events; read the profile and the recommendations they lead to.
Every error is `application/problem+json` (RFC 9457). See the Authorize button for keys."""
ANSWER_TIMEOUT_S: Final = 30.0
"""Longest time for an answer, once body and awaited receipt have had theirs."""


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
        See `services.state.GatewayState`; nothing is opened before the lifespan starts.
    behind_serve
        Whether Ray Serve is around it, which sends the request id back by itself.
    drain_file
        While this file exists, the service is about to end and says that it is not ready.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        from services.logs import configure

        configure(settings.log_level)
        app.state.gateway = GatewayState(settings, url, admin_digest, drain_file)
        await app.state.gateway.start()
        if behind_serve:  # then the process is ours alone
            heap.settle()
        try:
            yield
        finally:
            await app.state.gateway.stop()

    app = FastAPI(
        title="Portrait",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.metrics = metrics
    for module in (
        ingest,
        profiles,
        recommendations,
        items,
        audience_questions,
        audiences,
        operations,
    ):
        app.include_router(module.router)
    app.add_api_route(
        "/problems/{name}", _problem_page, include_in_schema=False, response_class=HTMLResponse
    )
    app.add_middleware(
        Frame,
        metrics=metrics,
        state=app.state,
        tags=not behind_serve,
        body_timeout_s=settings.body_timeout_s,
        timeout_s=settings.body_timeout_s + settings.wait_ms / 1000 + ANSWER_TIMEOUT_S,
    )
    _handle_errors(app)
    _document(app)
    return app


async def _problem_page(name: str) -> Response:
    found = page(name)
    if found is None:
        raise ProblemError("not-found", "no problem type has this name")
    return HTMLResponse(found)


def _handle_errors(app: FastAPI) -> None:
    def answer(request: Request, problem: Problem, status: int | None = None) -> Response:
        return problem.response(request.url.path, request.state.request_id, status)

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


def _document(app: FastAPI) -> None:
    """Add what FastAPI cannot see: the key, and that errors are problems."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = original()
            components = schema.setdefault("components", {})
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            components.setdefault("schemas", {})["Problem"] = PROBLEM_SCHEMA
            schema["security"] = [{"bearer": []}, {"header": []}]
            for path, operations_ in schema["paths"].items():
                for operation in operations_.values():
                    if path.startswith("/health/"):
                        operation["security"] = []
                    operation["responses"].pop("422", None)
                    operation["responses"]["default"] = PROBLEM_RESPONSE
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": "string"},
        "hint": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
PROBLEM_RESPONSE: dict[str, Any] = {
    "description": "A problem (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
