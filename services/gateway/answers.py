"""Small things all routes share: JSON answers and the gateway's state of a request."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.state import GatewayState


def gateway(request: Request) -> GatewayState:
    """Return the state of the replica that answers."""
    state: GatewayState = request.app.state.gateway
    return state


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return ``body`` as JSON."""
    return Response(
        orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY),
        status_code=status,
        headers=headers,
        media_type="application/json",
    )
