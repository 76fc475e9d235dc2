"""Membership changes of real-time audiences, told at the event that makes them.

After each commit the updater evaluates the real-time audiences for the users it changed: on
the profile before, as of its last event, and on the one after. What differs goes to a bounded
stream. A crash or a broken connection may lose or repeat the last few; who is a member now
is asked of ``/v1/audiences/{name}/members``. Belongs here: comparing and telling. Who is a member
is for `feature_repo.audiences.live` to say.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import redis
import structlog
from redis.exceptions import RedisClusterException

from feature_repo.audiences.live import User, is_member
from feature_repo.audiences.plan import plan
from feature_repo.audiences.ready import ready
from feature_repo.audiences.rules import Definition
from feature_repo.online.cluster import node_of
from feature_repo.online.live_row import LiveState
from feature_repo.user_profile import explicit
from feature_repo.user_profile.purposes import DEFAULTS
from services.audiences.definitions import KEY, VERSION, decode_all
from services.runtime.backoff import Backoff

CHANGES: Final = "portrait:audiences:changes"
MAX_CHANGES: Final = 100_000
"""Of the stream; older ones go."""
READ_EVERY_S: Final = 2.0
"""A new audience is followed within so long."""

_log = structlog.get_logger(__name__)

Change = dict[str, str]
"""``audience``, ``user``, ``change`` (entered or left), ``at_ms``, ``version``."""


class AudienceWatch:
    """Follows the stored real-time audiences; never fails.

    Parameters
    ----------
    client
        Synchronous client.
    backoff
        With the nodes of a cluster; shared, so that a node that hangs costs one wait.
    standing
        What stands of each purpose when nobody was asked.
    """

    def __init__(
        self, client: Any, backoff: Backoff, standing: Mapping[str, bool] = DEFAULTS
    ) -> None:
        self._client = client
        self._standing = standing
        self._backoff = backoff
        self._next_s = 0.0
        self._version: bytes | None = None
        self._known: dict[str, Definition] = {}
        self._followed: dict[str, Definition] = {}

    def refresh(self) -> None:
        """Read the definitions again if it is time and they have changed."""
        node = node_of(self._client, KEY)
        if time.monotonic() < self._next_s or not self._backoff.allows(node):
            return
        self._next_s = time.monotonic() + READ_EVERY_S
        try:
            version = self._client.hget(KEY, VERSION)
            if version != self._version:
                stored = decode_all(self._client.hgetall(KEY))
                self.follow({name: each.definition for name, each in stored.items()})
                self._version = version
        except (redis.RedisError, RedisClusterException, OSError) as error:
            self._note_failure(node, error)
        else:
            self._backoff.note_answer(node)

    def follow(self, definitions: Mapping[str, Definition]) -> None:
        """Follow the real-time ones of these audiences from now on."""
        self._known = {**ready(), **definitions}
        self._followed = {
            name: each
            for name, each in definitions.items()
            if plan(each, self._known)["mode"] == "realtime"
        }

    def note_commit(
        self, before: Mapping[str, LiveState | None], after: Mapping[str, LiveState]
    ) -> None:
        """Tell who entered and left by a commit that replaced rows ``before`` by ``after``."""
        if not self._followed:
            return
        node = node_of(self._client, CHANGES)
        if not self._backoff.allows(node):
            return
        try:
            with self._client.pipeline(transaction=False) as pipe:
                for change in self.changes(before, after):
                    pipe.xadd(CHANGES, change, maxlen=MAX_CHANGES, approximate=True)
                pipe.execute()
        except (redis.RedisError, RedisClusterException, OSError) as error:
            self._note_failure(node, error)
        else:
            self._backoff.note_answer(node)

    def changes(
        self, before: Mapping[str, LiveState | None], after: Mapping[str, LiveState]
    ) -> Iterator[Change]:
        """Yield what differs between rows, for each audience that is followed."""
        for pseudonym, row in after.items():
            old, new = (self._user(pseudonym, one) for one in (before.get(pseudonym), row))
            for name, definition in self._followed.items():
                was = old is not None and is_member(definition, self._known, old)
                now = new is not None and is_member(definition, self._known, new)
                if was != now:
                    yield {
                        "audience": name, "user": pseudonym, "change": "entered" if now else "left",
                        "at_ms": str(row.time_ms), "version": str(row.version),
                    }  # fmt: skip

    def _user(self, pseudonym: str, row: LiveState | None) -> User | None:
        if row is None or row.version == 0:
            return None
        profile = explicit.decode(row.profile)
        return User(pseudonym, profile, row.time_ms // 1000, self._standing)

    def _note_failure(self, node: str, error: Exception) -> None:
        self._backoff.note_failure(node)
        _log.warning("audience_changes_untold", node=node, error=type(error).__name__)
