"""Rows made again: some users' histories folded and put in place of their live rows.

Belongs here: one group of users of one partition, while an updater may go on applying their
events. Nobody is held up: a row is replaced only if it is still the one that the history was
read for, else what happened since is folded on top. Not here: which users, and where this
runs (`run`).
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from feature_repo.archive import Archive, LogPosition
from feature_repo.connection import translated
from feature_repo.errors import StoreUnavailableError
from feature_repo.live_row import LiveState
from feature_repo.live_store import read_versions, replace_live
from services.history.linked import LinkedHistory
from services.history.users import PartitionHistory
from services.links import fresh_links
from services.log.keys import erased_key
from services.transition import Transition
from services.update.lease import Leases

ATTEMPTS: Final = 8
"""How often rows that move are tried again before their partition's lease is taken."""
LEASE_MS: Final = 5_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Refolded:
    """What became of a group of users.

    Attributes
    ----------
    rows
        The new rows, by user.
    short
        Users whose known history is shorter than their row: left as they were.
    """

    rows: dict[str, LiveState]
    short: list[str]


def refold(
    client: Any, archive: Archive, transition: Transition, partition: int, users: Sequence[str]
) -> Refolded:
    """Fold the histories of ``users`` and replace their live rows.

    Parameters
    ----------
    client
        Synchronous client.
    archive
        Where the parts lie.
    transition
        Gives the rows; its target is the model they follow.
    partition
        Number of the partition that all of them belong to.
    users
        Entity ids. Who is erased, or has no history and no row, is passed over.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer, or a row changed even while nobody else might.
    """
    work = _Work(client, archive, transition, partition)
    work.begin(users)
    for _ in range(ATTEMPTS):
        if not work.replace():
            return Refolded(work.done, work.short)
        work.catch_up()
    _log.info("lease_taken", partition=partition, users=len(work.rows))
    leases = Leases(client, f"rebuild-{uuid.uuid4().hex[:8]}", LEASE_MS)
    with translated():
        leases.take(partition, force=True)
        try:
            work.catch_up()
            left = work.replace()
        finally:
            leases.release(partition)
    if left:
        raise StoreUnavailableError(
            f"{len(left)} rows of partition {partition} changed while its lease was held here: "
            "another rebuild runs; run this one again when it is done"
        )
    return Refolded(work.done, work.short)


class _Work:
    """Rows on their way from histories to the store."""

    def __init__(
        self, client: Any, archive: Archive, transition: Transition, partition: int
    ) -> None:
        self._client = client
        self._transition = transition
        self._partition = partition
        self._history = PartitionHistory(client, archive, partition)
        self._linked = LinkedHistory(client, archive)
        self._cursor = LogPosition(0, 0)
        self._expected: dict[str, int | None] = {}
        self.rows: dict[str, LiveState] = {}
        self.done: dict[str, LiveState] = {}
        self.short: list[str] = []

    def begin(self, users: Sequence[str]) -> None:
        """Fold whole histories."""
        with translated():
            erased = self._client.smismember(erased_key(self._partition), list(users))
        users = [user for user, gone in zip(users, erased, strict=True) if not gone]
        self.rows = self._whole(users, lambda: self._look(users))
        self.short = [u for u, v in self._expected.items() if v is not None and u not in self.rows]

    def catch_up(self) -> None:
        """Fold what happened since on top; a history that was joined meanwhile from its start."""
        before = self._cursor
        self._cursor = self._look(list(self.rows))
        histories = self._history.since(list(self.rows), before, self._cursor)
        linking = [u for u, events in histories.items() if fresh_links(self.rows[u], events)]
        events = [e for u, found in histories.items() if u not in linking for _, e in found]
        if events:
            self.rows |= self._transition.apply(self.rows, events)[0]
        if linking:
            self.rows |= self._whole(linking, lambda: self._cursor)

    def _whole(self, users: Sequence[str], look: Callable[[], LogPosition]) -> dict[str, LiveState]:
        self._cursor, own = self._history.whole(users, look)
        return self._transition.fold(self._linked.joined(own))

    def replace(self) -> set[str]:
        """Put the rows in place; those returned, and kept in ``rows``, had moved on."""
        for user, row in list(self.rows.items()):
            if row.version < (self._expected[user] or 0):
                self.short.append(user)
                del self.rows[user]
        left = replace_live(self._client, self._partition, self.rows, self._expected)
        self.done |= {user: row for user, row in self.rows.items() if user not in left}
        self.rows = {user: self.rows[user] for user in left}
        return left

    def _look(self, users: Sequence[str]) -> LogPosition:
        cursor, versions = read_versions(self._client, self._partition, users)
        self._expected = versions
        return LogPosition.parse(cursor)
