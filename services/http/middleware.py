"""Middleware around every request: id, bounds, key, metrics, an answer whatever goes wrong.

Plain ASGI (no BaseHTTPMiddleware: it costs 0.1 ms and breaks cancellation).
"""

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.http import limits, slashes
from services.http.admission import Admission
from services.http.problems import Problem
from services.http.spelling import find_misspelt

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_CONTROL: Final = frozenset(
    {b"x-request-timeout-seconds", b"x-request-disconnect-disabled", b"x-session-id",
     b"serve-multiplexed-model-id", b"serve_multiplexed_model_id"}
)  # fmt: skip
"""Headers by which a client could steer Ray Serve; no business of the application's."""

_log = structlog.get_logger(__name__)


class Metrics:
    """The gateway's own numbers, in Prometheus form."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "portrait_http_requests_total", "Requests answered",
            ["method", "route", "status"], registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "portrait_http_request_seconds", "Time to answer", ["method", "route"],
            buckets=(0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
            registry=self.registry,
        )  # fmt: skip
        self.events = Counter(
            "portrait_events_total", "Events received by outcome", ["outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.late = Counter(
            "portrait_events_late_total",
            "Events accepted more than five minutes after their own time",
            registry=self.registry,
        )
        self.unprofiled = Counter(
            "portrait_events_unprofiled_total",
            "Events accepted of which nothing is kept: their users deny profiling",
            registry=self.registry,
        )
        self.set_aside = Counter(
            "portrait_events_set_aside_total", "Events whose amounts were set aside, by reason",
            ["reason"], registry=self.registry,
        )  # fmt: skip
        for outcome in ("accepted", "duplicate", "erased", "rejected"):
            self.events.labels(outcome)  # shown as 0 before the first
        self.recommendations = Counter(
            "portrait_recommendations_total", "Recommendations by source", ["source"],
            registry=self.registry,
        )  # fmt: skip
        self.audit = Counter(
            "portrait_audit_entries_total", "Uses of keys to be audited by outcome",
            ["outcome"], registry=self.registry,
        )  # fmt: skip
        self.impressions = Counter(
            "portrait_impressions_total", "Impressions to be logged by outcome", ["outcome"],
            registry=self.registry,
        )  # fmt: skip


class Frame:
    """Outermost layer of the gateway.

    Parameters
    ----------
    state
        The application's state; its ``replica`` knows the keys.
    open_routes
        What needs no key; everything else does, be there such a path or not.
    tags
        Whether to send the request id back; Ray Serve does so itself.
    body_timeout_s
        Longest time in which a request's body must arrive, seconds.
    timeout_s
        Longest time in which a request must be answered, seconds; of an answer in pieces, until
        the next one.
    note_use
        Takes each request of a known key once it is answered, with method and status.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        state: Any,
        *,
        open_routes: Sequence[BaseRoute],
        tags: bool,
        body_timeout_s: float,
        timeout_s: float,
        note_use: Callable[[Scope, str, int], None] = lambda scope, method, status: None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._admission = Admission(state, open_routes)
        self._tags = tags
        self._body_timeout_s = body_timeout_s
        self._timeout_s = timeout_s
        self._note_use = note_use

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s, status, begun, method = time.perf_counter(), 500, False, scope["method"]
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope = dict(scope)  # the server's own stays as it is
        if method == "HEAD":  # answered as GET is, but for the body
            scope["method"], send = "GET", _without_body(send)
        slashes.keep(scope)
        scope["headers"] = [(k, v) for k, v in scope["headers"] if k not in _CONTROL]
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_tagged(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                answered = MutableHeaders(scope=message)
                if self._tags:
                    answered["x-request-id"] = request_id
                spent = f"app;dur={(time.perf_counter() - started_s) * 1000:.2f}"
                parts = answered.get("server-timing")  # a route's own stages
                answered["server-timing"] = f"{parts}, {spent}" if parts else spent
                self._admission.allow_page(headers, answered)
                if status in limits.CLOSING:
                    answered["connection"] = "close"
            await send(message)
            _extend(bound, message, self._timeout_s)

        async def finish(answer: Problem | Response) -> None:
            if begun:  # half an answer cannot be mended: the server breaks the connection
                raise RuntimeError("the request failed after its answer had begun")
            instance = slashes.escape(scope["path"])
            made = answer if isinstance(answer, Response) else answer.response(instance, request_id)
            await made(scope, receive, send_tagged)

        try:
            # The bound cancels the handler, never an append: that has a task of its own.
            async with asyncio.timeout(self._timeout_s) as bound:
                answer: Problem | Response | None = limits.find_problem(scope, headers)
                answer = answer or await self._admission.admit(scope, headers)
                answer = answer or find_misspelt(scope)
                if answer is not None:
                    await finish(answer)
                else:
                    bounded = limits.within(receive, self._body_timeout_s)
                    await self._app(scope, bounded, send_tagged)
        except Exception as error:  # noqa: BLE001 - the last resort: an answer, the cause in the log
            if isinstance(error, TimeoutError) and bound.expired():
                _log.warning("request_overtime", request_id=request_id, exc_info=error)
                detail = f"there was no answer within {self._timeout_s:g} s"
                await finish(Problem("overtime", detail, headers={"retry-after": "1"}))
            else:
                _log.exception("request_failed", request_id=request_id)
                await finish(Problem("internal", "the server failed on this request"))
        finally:
            self._note(scope, method, request_id, status, time.perf_counter() - started_s)

    def _note(self, scope: Scope, method: str, request_id: str, status: int, took_s: float) -> None:
        route = getattr(scope.get("route"), "path", "other")  # its template: no id in it
        if status >= 500:
            _log.warning(
                "server_error", request_id=request_id, status=status, route=route, method=method
            )
        if "caller" in scope["state"]:
            self._note_use(scope, method, status)
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.seconds.labels(method, route).observe(took_s)


def _extend(bound: asyncio.Timeout, message: Message, timeout_s: float) -> None:
    """Give an answer that is written in pieces as long again until the next one."""
    if message.get("more_body"):
        bound.reschedule(asyncio.get_running_loop().time() + timeout_s)


def _without_body(send: Send) -> Send:
    """Return ``send`` that ends an answer with its head: a stream would not come to its end."""

    async def bare(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return bare
