"""Calls of the HTTP API, and which of them are repeated."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Self, overload

import httpx2
import orjson
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from feature_repo.errors import PortraitError
from services.client.analytics import AnalyticsCalls
from services.client.audiences import AudienceCalls
from services.client.campaigns import CampaignCalls
from services.client.keys import KeyCalls
from services.client.models import ModelCalls
from services.client.privacy import PrivacyCalls
from services.client.subject import Subject, drop_none

if TYPE_CHECKING:  # the client runs without what makes the answers
    from services.audit.schemas import AuditPage
    from services.export.schemas import Export
    from services.http import answer_schemas as said

ATTEMPTS: Final = 6
LONGEST_WAIT_S: Final = 60.0
"""Longest time that an answer's Retry-After is followed."""
_TRANSIENT: Final = frozenset({429, 502, 503, 504})
_JITTER: Final = wait_exponential_jitter(initial=0.1, max=2)


class ApiError(PortraitError):
    """The service answered with a problem (RFC 9457), an empty one if the body was none."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"HTTP {status}: {problem.get('detail', 'no detail')}")
        self.status = status
        self.problem = dict(problem)


class TransientApiError(ApiError):
    """A problem that may pass by itself; retried.

    Attributes
    ----------
    retry_after_s
        How long the service asked to wait, seconds; 0 if it did not.
    """

    retry_after_s = 0.0


class Client(Subject):
    """Talks to one service; repeats what may be repeated.

    Events carry ids (made here when missing), so a repeated post changes nothing twice; the
    other calls say how things are to be, not what to change. What may pass by itself (no
    connection, 429, 502, 503, 504) is tried again, after what ``Retry-After`` says.

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

    root = "/v1"

    def __init__(
        self, base_url: str, api_key: str, *, timeout_s: float = 30.0, attempts: int = ATTEMPTS
    ) -> None:
        super().__init__(self._request)
        self.base_url = base_url.rstrip("/")
        self.api_key = api_key
        self.http = httpx2.Client(
            base_url=self.base_url,
            timeout=timeout_s,
            headers={"authorization": f"Bearer {api_key}"},
        )
        self._attempts = attempts
        self.audiences = AudienceCalls(self._send)
        self.campaigns = CampaignCalls(self._send)
        self.analytics = AnalyticsCalls(self._send)
        self.keys = KeyCalls(self._send)
        self.models = ModelCalls(self._send)
        self.privacy = PrivacyCalls(self._send)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def live(self) -> "said.Live":
        """Ask whether the process answers: the cheapest request there is."""
        return orjson.loads(self._send("GET", "/health/live", None, {}).content)

    def ready(self) -> bool:
        """Say whether events are taken and applied."""
        return bool(self.http.get("/health/ready").status_code == 200)

    def readiness(self) -> "said.Ready":
        """Return each check of readiness, also when one fails."""
        return orjson.loads(self.http.get("/health/ready").content)

    def audit(
        self, *, since: str | None = None, until: str | None = None, key: str | None = None,
        limit: int = 100, cursor: str | None = None,
    ) -> "AuditPage":  # fmt: skip
        """Return a page of who used which key for what; needs an admin key."""
        return self._get("audit", since=since, until=until, key=key, limit=limit, cursor=cursor)

    @overload
    def post_event(self, event: Mapping[str, Any]) -> "said.Accepted": ...

    @overload
    def post_event(
        self, event: Mapping[str, Any], *, return_profile: Literal[True]
    ) -> "said.Applied": ...

    def post_event(
        self, event: Mapping[str, Any], *, return_profile: bool = False
    ) -> "said.Accepted":
        """Post one event; with ``return_profile`` wait for its effect and return the profile."""
        body = {"id": uuid.uuid4().hex, **event}
        query = {"return": "profile"} if return_profile else {}
        return self._ask("POST", "events", body=body, **query)

    def post_batch(self, events: Sequence[Mapping[str, Any]]) -> "said.EventsTaken":
        """Post up to 1,000 events; returns the counts, also when some or all were refused."""
        body = [e if "id" in e else {"id": uuid.uuid4().hex, **e} for e in events]
        return self._batch("POST", ("events", "batch"), body)

    def profile(self, user_id: str, *, view: str = "full", after: str | None = None) -> Any:
        """Return a user's profile, not older than the receipt ``after``."""
        return self._get("users", user_id, "profile", view=view, after=after)

    def events(
        self,
        user_id: str,
        *,
        limit: int = 50,
        cursor: str | None = None,
        type: str | None = None,  # noqa: A002 - the API's word
        after: str | None = None,
    ) -> "said.EventPage":
        """Return a page of a user's events, newest first."""
        query = {"limit": limit, "cursor": cursor, "type": type, "after": after}
        return self._get("users", user_id, "events", **query)

    def consents(self, user_id: str, *, after: str | None = None) -> "said.UserConsents":
        """Return what stands of each purpose."""
        return self._get("users", user_id, "consents", after=after)

    def put_consents(
        self, user_id: str, consents: Mapping[str, bool | Mapping[str, Any]], *, source: str = ""
    ) -> "said.Accepted":
        """State what a user grants, with terms if need be; what is not named stays as it is."""
        body = {"consents": dict(consents), "source": source}
        return self._ask("PUT", "users", user_id, "consents", body=body)

    def export(self, user_id: str, *, after: str | None = None) -> "Export":
        """Return everything that is kept of a user; see `stream_export` for users of any size."""
        return self._get("users", user_id, "export", after=after)

    def stream_export(self, user_id: str, *, after: str | None = None) -> Iterator[bytes]:
        """Yield the text of an export as it comes; it is whole if ``complete`` is its last member.

        Not repeated: what was read before a connection broke would come again.
        """
        path = self._path("users", user_id, "export")
        with self.http.stream("GET", path, params=drop_none(after=after)) as response:
            if response.status_code >= 400:
                response.read()
                raise _error(response)
            yield from response.iter_bytes()

    def recommendations(
        self,
        user_id: str,
        *,
        n: int = 10,
        after: str | None = None,
        exclude: Sequence[str] = (),
        category: str | None = None,
        placement: str | None = None,
        explain: bool = False,
    ) -> "said.Recommendations":
        """Return recommendations for a user."""
        return self._get(
            "users", user_id, "recommendations", n=n, after=after, category=category,
            exclude=",".join(exclude) or None, placement=placement,
            explain="true" if explain else None,
        )  # fmt: skip

    def explanation(self, user_id: str, item_id: str, *, events: int = 100) -> "said.Explanation":
        """Return which of a user's last events moved an item's score."""
        target = f"item:{item_id}"
        return self._get("users", user_id, "explanations", target=target, events=events)

    def recommend_session(
        self,
        events: Sequence[Mapping[str, Any]],
        *,
        n: int = 10,
        exclude: Sequence[str] = (),
        category: str | None = None,
        explain: bool = False,
    ) -> "said.Recommendations":
        """Return recommendations for a session of an anonymous visitor; nothing is stored."""
        body = drop_none(
            events=list(events), n=n, exclude=list(exclude), category=category, explain=explain
        )
        return self._ask("POST", "recommendations", body=body)

    def rank(
        self,
        user_id: str,
        items: Sequence[str | Mapping[str, Any]],
        *,
        query: str | None = None,
        explain: bool = False,
    ) -> "said.Recommendations":
        """Return ``items``, ids or each with its ``relevance`` to a query, in the user's order."""
        body = {"user_id": user_id, "items": list(items), "explain": explain}
        if query is not None:
            body["query"] = query
        return self._ask("POST", "rank", body=body)

    def item(self, item_id: str) -> "said.ShownItem":
        """Return an item of the catalogue."""
        return self._get("items", item_id)

    def put_item(self, item: Mapping[str, Any]) -> "said.ShownItem":
        """Create or replace an item."""
        return self._ask("PUT", "items", item["item_id"], body=dict(item))

    def put_items(self, items: Sequence[Mapping[str, Any]]) -> "said.ItemsTaken":
        """Create or replace up to 1,000 items; returns the counts, also when some were refused."""
        return self._batch("POST", ("items", "batch"), list(items))

    def patch_item(self, item_id: str, changes: Mapping[str, Any]) -> "said.ShownItem":
        """Change the named fields of an item, None takes one away; return the whole item."""
        return self._ask("PATCH", "items", item_id, body=dict(changes))

    def patch_items(self, changes: Sequence[Mapping[str, Any]]) -> "said.ItemsTaken":
        """Change the named fields of up to 1,000 items, each with its ``item_id``."""
        return self._batch("PATCH", ("items",), list(changes))

    def delete_item(self, item_id: str) -> bool:
        """Remove an item; False if there was none (or an earlier try removed it)."""
        return self._delete("items", item_id)

    def similar(self, item_id: str, *, n: int = 10) -> "said.Similar":
        """Return similar items."""
        return self._get("items", item_id, "similar", n=n)

    def applied(self) -> int:
        """Return how many events the service has applied since its store was made."""
        for line in self.metrics().splitlines():
            if line.startswith("portrait_events_applied_total "):
                return int(float(line.split()[1]))
        return 0

    def wait_applied(self, receipt: str | None) -> None:
        """Return once everything up to ``receipt`` is applied; at once if nothing was taken."""
        if receipt is not None:
            self._get("receipts", after=receipt)

    def metrics(self) -> str:
        """Return the numbers of the service in Prometheus form."""
        return str(self._send("GET", "/metrics", None, {}).text)

    def _batch(self, method: str, names: Sequence[str], body: Sequence[Mapping[str, Any]]) -> Any:
        response = self._send(method, self._path(*names), body, {}, accept=(422,))
        found = orjson.loads(response.content)
        if "received" not in found:  # not a batch of which nothing was taken: no batch at all
            raise _error(response)
        return found

    def _request(
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
            wait=_pause_s,
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
    error_type = TransientApiError if response.status_code in _TRANSIENT else ApiError
    error = error_type(response.status_code, problem if isinstance(problem, dict) else {})
    if isinstance(error, TransientApiError):
        header = response.headers.get("retry-after", "")
        error.retry_after_s = float(header) if header.isdecimal() else 0.0
    return error


def _pause_s(state: RetryCallState) -> float:
    """Return how long to wait before the next try: as long as asked, and a little more."""
    error = None if state.outcome is None else state.outcome.exception()
    wait_s = error.retry_after_s if isinstance(error, TransientApiError) else 0.0
    return min(wait_s, LONGEST_WAIT_S) + _JITTER(state)
