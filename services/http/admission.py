"""Admission: who a request comes from, and whether it may go on to its route.

Belongs here: the order of the checks before a route is asked. Whether the key's scope is enough
is the route's to say: `services.http.scopes`.
"""

import math
from collections.abc import Sequence
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from services.http import browsers
from services.http.api_keys import KeyRing, digest
from services.http.credentials import read_key, take_beacon_key
from services.http.problems import Problem
from services.http.rate_limits import RateLimits
from services.http.scopes import CHALLENGE, NO_KEY
from services.http.wrong_keys import WrongKeys


class Admission:
    """Lets requests in.

    Parameters
    ----------
    state
        The application's state; its ``replica`` knows the keys.
    open_routes
        What needs no key; everything else does, be there such a path or not.
    """

    def __init__(self, state: Any, open_routes: Sequence[BaseRoute]) -> None:
        self._state = state
        self._open = open_routes

    def allow_page(self, headers: Headers, answered: MutableHeaders) -> None:
        """Let the page that sent a request read the answer, if some key names its origin."""
        if "origin" in headers:
            browsers.allow(headers, answered, self._state.replica.keys.origins)

    async def admit(self, scope: Scope, headers: Headers) -> Problem | Response | None:
        """Put the caller into the request's state; None if it may go on to its route.

        Else its answer: why it may not, or that the page of a browser may send.
        """
        if any(route.matches(scope)[0] is Match.FULL for route in self._open):
            return None
        keys: KeyRing = self._state.replica.keys
        if browsers.is_preflight(scope, headers):
            await keys.refresh()
            if headers["origin"] in keys.origins:
                return browsers.answer_preflight()
        key, beacon = read_key(headers), False
        if key is None:
            key = take_beacon_key(scope, headers)
            beacon = key is not None
        caller = await keys.caller(key) if key else None
        if key is None or caller is None:
            return await self._refuse(scope, headers, key)
        if beacon and caller.scope != "write":
            detail = f"?key= is for keys of scope write; the given one is {caller.scope}"
            return Problem("forbidden", detail, hint="Send this key in a header.")
        scope["state"]["caller"] = caller
        return browsers.find_stranger(caller, headers) or await self._limit(key)

    async def _refuse(self, scope: Scope, headers: Headers, key: str | None) -> Problem:
        if not key:
            return Problem("unauthorized", NO_KEY, headers=CHALLENGE)
        wrong: WrongKeys = self._state.replica.wrong_keys
        wait_s = await wrong.wait_s(scope, headers)
        if wait_s == 0:
            return Problem("unauthorized", "the API key is not known", headers=CHALLENGE)
        detail = f"this address has sent {wrong.per_min} wrong keys in a minute"
        return _slow_down(detail, wait_s)

    async def _limit(self, key: str) -> Problem | None:
        rates: RateLimits = self._state.replica.rates
        wait_s = await rates.wait_s(digest(key))
        if wait_s == 0:
            return None
        return _slow_down(f"this key may make {rates.per_min} requests a minute", wait_s)


def _slow_down(detail: str, wait_s: float) -> Problem:
    return Problem("rate-limited", detail, headers={"retry-after": str(math.ceil(wait_s))})
