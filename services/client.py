"""A small client of the HTTP API: what the demo, the bench and the tests talk through."""

import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import httpx2
import orjson
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from feature_repo.errors import PortraitError

ATTEMPTS: Final = 6
_TRANSIENT: Final = frozenset({429, 502, 503, 504})


class ApiError(PortraitError):
    """The service answered with a problem (RFC 9457).

    Attributes
    ----------
    status
        HTTP status.
    problem
        The problem document, empty if the body was none.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"HTTP {status}: {problem.get('detail', 'no detail')}")
        self.status = status
        self.problem = dict(problem)


class TransientApiError(ApiError):
    """A problem that may pass by itself; retried."""


class Client:
    """Talks to one service; repeats what may be repeated.

    Events carry ids (made here when missing), so a repeated post changes nothing twice.

    Parameters
    ----------
    base_url
        E.g. ``http://127.0.0.1:8080``.
    api_key
        Sent as a bearer token.
    timeout_s
        Longest wait for one answer.
    attempts
        Tries in all; 1 switches retries off.
    """

    def __init__(
        self, base_url: str, api_key: str, *, timeout_s: float = 30.0, attempts: int = ATTEMPTS
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.api_key = api_key
        self.http = httpx2.Client(
            base_url=self.base_url,
            timeout=timeout_s,
            headers={"authorization": f"Bearer {api_key}"},
        )
        self._attempts = attempts

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def live(self) -> Any:
        """Ask whether the process answers: the cheapest request there is."""
        return self._call("GET", "/health/live")

    def ready(self) -> bool:
        """Say whether events are taken and applied."""
        return bool(self.http.get("/health/ready").status_code == 200)

    def post_event(self, event: Mapping[str, Any], *, return_profile: bool = False) -> Any:
        """Post one event; with ``return_profile`` wait for its effect and return the profile."""
        body = {"id": uuid.uuid4().hex, **event}
        params = {"return": "profile"} if return_profile else {}
        return self._call("POST", "/v1/events", body, params)

    def post_batch(self, events: Sequence[Mapping[str, Any]]) -> Any:
        """Post up to 1,000 events; returns the counts, also when some or all were refused."""
        body = [e if "id" in e else {"id": uuid.uuid4().hex, **e} for e in events]
        return self._call("POST", "/v1/events/batch", body, accept=(422,))

    def profile(self, user_id: str, *, view: str = "full", after: str | None = None) -> Any:
        """Return a user's profile, not older than the receipt ``after``."""
        params = _given(view=view, after=after)
        return self._call("GET", f"/v1/users/{user_id}/profile", params=params)

    def events(
        self,
        user_id: str,
        *,
        limit: int = 50,
        cursor: str | None = None,
        type: str | None = None,  # noqa: A002 - the API's word
        after: str | None = None,
    ) -> Any:
        """Return a page of a user's events, newest first."""
        params = _given(limit=limit, cursor=cursor, type=type, after=after)
        return self._call("GET", f"/v1/users/{user_id}/events", params=params)

    def recommendations(
        self,
        user_id: str,
        *,
        n: int = 10,
        after: str | None = None,
        exclude: Sequence[str] = (),
        category: str | None = None,
        explain: bool = False,
    ) -> Any:
        """Return recommendations for a user."""
        params = _given(
            n=n,
            after=after,
            exclude=",".join(exclude) or None,
            category=category,
            explain="true" if explain else None,
        )
        return self._call("GET", f"/v1/users/{user_id}/recommendations", params=params)

    def rank(self, user_id: str, items: Sequence[str]) -> Any:
        """Return ``items`` in the user's order."""
        return self._call("POST", "/v1/rank", {"user_id": user_id, "items": list(items)})

    def item(self, item_id: str) -> Any:
        """Return an item of the catalogue."""
        return self._call("GET", f"/v1/items/{item_id}")

    def put_item(self, item: Mapping[str, Any]) -> Any:
        """Create or replace an item."""
        return self._call("PUT", f"/v1/items/{item['item_id']}", dict(item))

    def put_items(self, items: Sequence[Mapping[str, Any]]) -> Any:
        """Create or replace up to 1,000 items."""
        return self._call("POST", "/v1/items/batch", list(items), accept=(422,))

    def similar(self, item_id: str, *, n: int = 10) -> Any:
        """Return similar items."""
        return self._call("GET", f"/v1/items/{item_id}/similar", params={"n": n})

    def applied(self) -> int:
        """Return how many events the service has applied since its store was made."""
        for line in self.metrics().splitlines():
            if line.startswith("portrait_events_applied_total "):
                return int(float(line.split()[1]))
        return 0

    def wait_applied(self, receipt: str) -> None:
        """Return once everything up to ``receipt`` is applied; each part is waited for."""
        self._call("GET", "/v1/receipts", params={"after": receipt})

    def metrics(self) -> str:
        """Return the numbers of the service in Prometheus form."""
        return str(self._send("GET", "/metrics", None, {}).text)

    def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        accept: tuple[int, ...] = (),
    ) -> Any:
        response = self._send(method, path, body, params or {}, accept)
        return orjson.loads(response.content) if response.content else None

    def _send(
        self,
        method: str,
        path: str,
        body: Any,
        params: Mapping[str, Any],
        accept: tuple[int, ...] = (),
    ) -> Any:
        content = None if body is None else orjson.dumps(body)
        headers = {} if body is None else {"content-type": "application/json"}
        for attempt in Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=wait_exponential_jitter(initial=0.1, max=2),
            retry=retry_if_exception_type((TransientApiError, httpx2.TransportError)),
            reraise=True,
        ):
            with attempt:
                response = self.http.request(
                    method, path, content=content, headers=headers, params=dict(params)
                )
                if response.status_code >= 400 and response.status_code not in accept:
                    raise _error(response)
        return response


def _error(response: Any) -> ApiError:
    try:
        problem = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        problem = {}
    kind = TransientApiError if response.status_code in _TRANSIENT else ApiError
    return kind(response.status_code, problem if isinstance(problem, dict) else {})


def _given(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}
