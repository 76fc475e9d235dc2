"""Scopes of routes: each declares the one it needs, or that it is open to everybody.

Belongs here: the declaration and where it is checked. Not here: who a caller is (`api_keys`), and
what a handler asks of its parsed parameters; for that it calls `require`.
"""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from fastapi import APIRouter, FastAPI, params
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from services.http.api_keys import Caller, Scope
from services.http.problems import ProblemError

Needed = Scope | Literal["open"]
NO_KEY: Final = "the request carries no API key"
CHALLENGE: Final = {"www-authenticate": "Bearer"}


@dataclass(frozen=True)
class _Needs(params.Depends):
    """A declaration among a route's dependencies: `Guarded` takes it out, no request solves it."""

    needed: Needed | None = None


class Guarded(APIRoute):
    """A route that looks at the caller's scope before it reads anything of the request.

    Attributes
    ----------
    needed
        What is declared last: by the route, else by its router; None if nothing is.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        dependencies: Sequence[params.Depends] | None = None,
        **given: Any,
    ) -> None:
        self.needed: Needed | None = None
        others = list[params.Depends]()
        for each in dependencies or ():
            if isinstance(each, _Needs):
                self.needed = each.needed
            else:
                others.append(each)
        super().__init__(path, endpoint, dependencies=others, **given)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler with the check before it."""
        handle, needed = super().get_route_handler(), self.needed

        async def handle_guarded(request: Request) -> Response:
            if needed is None:
                raise RuntimeError(f"{self.path} declares no scope")
            if needed != "open":
                require(request, needed)
            return await handle(request)

        return handle_guarded


def router(needed: Needed, tag: str, prefix: str = "") -> APIRouter:
    """Return a router all of whose routes need a scope, unless they declare another.

    Examples
    --------
    >>> items = router("server", "items", "/v1/items")
    >>> @items.delete("/{item_id}", dependencies=[needs("admin")])
    ... async def forget(item_id: str) -> None: ...
    >>> needs_of(items.routes[0])
    'admin'
    """
    return APIRouter(
        prefix=prefix, tags=[tag], route_class=Guarded, dependencies=[needs(needed)]
    )  # fmt: skip


def needs(needed: Needed) -> params.Depends:
    """Declare what a route needs, in its ``dependencies``: a scope, or ``open``."""
    return _Needs(needed=needed)


def needs_of(route: BaseRoute) -> Needed | None:
    """Return what a route declares; None if it declares nothing."""
    return route.needed if isinstance(route, Guarded) else None


def require(request: Request, needed: Scope) -> None:
    """Let a request go on whose key has the scope.

    Raises
    ------
    ProblemError
        401 without a caller, 403 for one of another scope.
    """
    caller: Caller | None = request.scope["state"].get("caller")
    if caller is None:
        raise ProblemError("unauthorized", NO_KEY, headers=CHALLENGE)
    if not caller.may(needed):
        raise ProblemError(
            "forbidden", f"this needs a key of scope {needed}; the given one is {caller.scope}"
        )


def check_routes(app: FastAPI) -> list[BaseRoute]:
    """Return all routes of an application.

    Raises
    ------
    RuntimeError
        If one declares nothing: it would be anybody's.
    """
    found = [context.original_route for context in iter_route_contexts(app.routes)]
    for route in found:
        if needs_of(route) is None:
            name = getattr(route, "path", repr(route))
            raise RuntimeError(f"{name} declares no scope: give its router or it `needs(…)`")
    return found
