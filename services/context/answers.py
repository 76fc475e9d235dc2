"""Small things all routes share: JSON answers and the context of a request."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from services.context.context import Context


def context_of(request: Request) -> Context:
    """Return the context of the replica that answers."""
    context: Context = request.app.state.replica.context
    return context


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return ``body`` as JSON."""
    return Response(
        orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY),
        status_code=status,
        headers=headers,
        media_type="application/json",
    )
