"""Browsers: which pages may send and read (CORS).

A key may name the origins of the pages that use it; all of them together are answered with
``Access-Control-Allow-Origin``, and a key that names some is refused to a page of another.
"""

from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import Scope

from services.http.api_keys import Caller
from services.http.problems import Problem

_PREFLIGHT: Final = {
    "access-control-allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
    "access-control-allow-headers": "authorization, content-encoding, content-type, "
    "if-none-match, x-api-key, x-request-id",
    "access-control-max-age": "600",
}
_SHOWN: Final = "etag, location, retry-after, server-timing, x-request-id"


def is_preflight(scope: Scope, headers: Headers) -> bool:
    """Say whether a browser asks whether a page may send."""
    asks = "access-control-request-method" in headers and "origin" in headers
    return asks and scope["method"] == "OPTIONS"


def answer_preflight() -> Response:
    """Return the answer to a browser whose page may send; `allow` names the page."""
    return Response(status_code=204, headers=_PREFLIGHT)


def allow(headers: Headers, answered: MutableHeaders, origins: frozenset[str]) -> None:
    """Let the page that sent a request read its answer, if its origin is one of these."""
    origin = headers["origin"]
    answered.add_vary_header("Origin")
    if origin in origins:
        answered["access-control-allow-origin"] = origin
        answered["access-control-expose-headers"] = _SHOWN


def find_stranger(caller: Caller, headers: Headers) -> Problem | None:
    """Return the problem of a page of an origin that the key does not name, else None."""
    origin = headers.get("origin")
    if origin is None or not caller.origins or origin in caller.origins:
        return None
    return Problem(
        "forbidden", f"this key is not for pages of {origin[:255]}",
        hint="Use the key from its own pages, or make one that names this origin.",
    )  # fmt: skip
