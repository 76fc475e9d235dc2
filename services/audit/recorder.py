"""The recorder of a gateway: notes uses of keys, and sends them to the store in the background.

Noted is what changes something or reads one person; see `is_noted`. An answer never waits for it.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import orjson
import redis
import structlog
from prometheus_client import Counter
from redis.exceptions import RedisClusterException

from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import iso
from services.audit.writer import LOG
from services.http.api_keys import Caller
from services.runtime.outbox import Outbox

MOST_WAITING: Final = 20_000
"""Uses that may wait to be sent; more are lost, and counted."""
MOST_GROUPS: Final = 100_000
"""Groups that may wait in the store for the files; then the oldest go."""
EVENTS: Final = frozenset({"/v1/events", "/v1/events/batch"})
"""Not noted: log and archive keep with each event which key sent it."""
SERVING: Final = frozenset({
    "/v1/users/{user_id}/recommendations", "/v1/users/{user_id}/explanations", "/v1/rank",
    "/v1/recommendations", "/v1/campaigns/{name}/decide",
})  # fmt: skip
"""What a shop asks at each of its pages: left out by a setting."""
PEOPLE: Final = frozenset({
    "/v1/audiences/{name}/members", "/v1/audiences/{name}/export", "/v1/audiences/changes",
})  # fmt: skip
"""Reads of people that name none in their path."""
_GROUP: Final = 500
_PAUSE_S: Final = 0.5

_log = structlog.get_logger(__name__)


class KeyUse(NamedTuple):
    """One use of a key; ``user_id`` is the shop's own, and goes no further than this process."""

    time_ms: int
    caller: Caller
    operation: str
    user_id: str | None
    target: str | None
    status: int
    request_id: str


def is_noted(method: str, path: str, scope: str, *, serving: bool) -> bool:
    """Say whether the audit keeps uses of a route.

    Parameters
    ----------
    path
        The route's template.
    scope
        What the route declares.
    serving
        Whether it keeps those of `SERVING` too.
    """
    if path in EVENTS or (path in SERVING and not serving):
        return False
    reads = method in {"GET", "HEAD"}
    return not reads or "{user_id}" in path or path in PEOPLE or scope == "admin"


def name_user(pseudonyms: Pseudonyms, user_id: str) -> str:
    """Return what the audit calls a user: made from the pseudonym, and in no other place.

    So the chain, which cannot be rewritten, holds nothing by which an erased user could be found
    in anything else.
    """
    pseudonym = pseudonyms.of_user(user_id)
    return hashlib.sha256(b"audit:" + pseudonym.encode()).hexdigest()[:32]


class AuditRecorder:
    """Sends uses of keys to the store; counts ``sent`` and ``lost``."""

    def __init__(
        self, client: Any, pseudonyms: Pseudonyms, counter: Counter, *, serving: bool
    ) -> None:
        self._client = client
        self._pseudonyms = pseudonyms
        self._counter = counter
        self.serving = serving
        self._outbox = Outbox[KeyUse](self._send, self._lose, most=MOST_WAITING, group=_GROUP)
        for outcome in ("sent", "lost"):
            counter.labels(outcome)  # shown as 0 before the first

    def start(self) -> None:
        """Begin to send."""
        self._outbox.start()

    async def stop(self) -> None:
        """Send what waits, for two seconds at most, and end."""
        await self._outbox.stop()

    def note(self, use: KeyUse) -> None:
        """Take one use; never waits."""
        self._outbox.put(use)

    def _lose(self, lost: Sequence[KeyUse]) -> None:
        self._counter.labels("lost").inc(len(lost))

    async def _send(self, group: list[KeyUse]) -> None:
        body = orjson.dumps([self._entry(use) for use in group])
        while not await self._append(body):
            await asyncio.sleep(_PAUSE_S)
        self._counter.labels("sent").inc(len(group))

    async def _append(self, body: bytes) -> bool:
        try:
            await self._client.xadd(LOG, {"entries": body}, maxlen=MOST_GROUPS, approximate=True)
        except (redis.RedisError, RedisClusterException, OSError, TimeoutError) as error:
            _log.warning("audit_waits", error=type(error).__name__)
            return False
        return True

    def _entry(self, use: KeyUse) -> dict[str, Any]:
        return {
            "at": iso(use.time_ms),
            "key": use.caller.id,
            "scope": use.caller.scope,
            "operation": use.operation,
            "user": None if use.user_id is None else name_user(self._pseudonyms, use.user_id),
            "target": use.target,
            "status": use.status,
            "request_id": use.request_id,
        }
