"""Users' rows folded again from their whole histories, and put in place of the live ones.

Nobody is held up: a row is replaced only if it is still the one that the history was read for,
else what happened since is folded on top. Not here: who is folded again, and why.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.online.connection import translated
from feature_repo.online.live_row import LiveState
from feature_repo.online.live_rows import (
    note_profiling,
    read_live,
    read_versions,
    replace_live,
)
from feature_repo.user_profile import explicit
from services.event_log.keys import erased_key, log_key
from services.event_log.links import Placed, first_links, fresh_links, merge_histories
from services.event_log.unprofiled import note_of
from services.history.merged_history import LinkedHistory
from services.history.unjoined import read_unjoined, remove_unjoined
from services.history.users import PartitionHistory
from services.models.transition import Transition

ATTEMPTS: Final = 8
"""How often rows that move are tried again before something else is done about them."""


class Refolding:
    """Rows on their way from histories to the store.

    Parameters
    ----------
    keep_s
        See `feature_repo.online.live_rows.replace_live`.
    fewer
        Whether a row may be replaced by one of fewer events: a link of its user is undone.

    Attributes
    ----------
    rows
        Made and not yet in place.
    done
        In place.
    short
        Users whose known history is shorter than their row: left as they were.
    """

    def __init__(
        self,
        client: Any,
        archive: Archive,
        transition: Transition,
        partition: int,
        keep_s: int = 0,
        *,
        fewer: bool = False,
    ) -> None:
        self._keep_s = keep_s
        self._client = client
        self._fewer = fewer
        self._transition = transition
        self._partition = partition
        self._history = PartitionHistory(client, archive, partition)
        self._linked = LinkedHistory(client, archive)
        self._cursor = LogPosition(0, 0)
        self._entry = ""  # the cursor's, if the log held it then: a store may lose it
        self._expected: dict[str, int | None] = {}
        self._unjoined: dict[str, set[str]] = {}
        self._missing = dict[str, int]()  # events that come in, and that the live row may lack
        self._late: dict[str, tuple[Sequence[Placed], Mapping[str, Sequence[Placed]], list[str]]]
        self._late = {}  # its own events, those of its ids, and the ids of which it may be without
        self.rows: dict[str, LiveState] = {}
        self.done: dict[str, LiveState] = {}
        self.short: list[str] = []

    def begin(self, users: Sequence[str]) -> None:
        """Fold whole histories."""
        with translated():
            erased = self._client.smismember(erased_key(self._partition), list(users))
        users = [user for user, gone in zip(users, erased, strict=True) if not gone]
        self._unjoined = read_unjoined(self._client, self._partition)
        self.rows = self._whole(users, lambda: self._look(users))
        self.short = [u for u, v in self._expected.items() if v is not None and u not in self.rows]

    def catch_up(self) -> None:
        """Fold what happened since on top; a history that was joined meanwhile from its start.

        From its start too where the live row has fewer events than before: a link was undone.
        """
        before, entry, users = self._cursor, self._entry, list(self.rows)
        versions = self._expected
        self._cursor = self._look(users)
        fell = {u for u in users if (self._expected[u] or 0) < (versions[u] or 0)}
        with translated():
            key = log_key(self._partition)
            lost = entry != "" and not self._client.xrange(key, entry, entry)
        if lost or self._cursor < before:  # the store lost its last writes, the log its end
            self.rows = self._whole(users, lambda: self._look(users))
            return
        histories = self._history.since(users, before, self._cursor)
        linking = [
            user for user in users
            if user in fell
            or ((since := histories.get(user)) is not None
                and (user in self._missing or fresh_links(self.rows[user], since)))
        ]  # fmt: skip
        events = [e for u, found in histories.items() if u not in linking for _, e in found]
        if events:
            self.rows |= self._transition.apply(self.rows, events)[0]
        for user in linking:
            del self.rows[user]  # it may have no history any more
        if linking:
            self.rows |= self._whole(linking, lambda: self._cursor)

    def _whole(self, users: Sequence[str], look: Callable[[], LogPosition]) -> dict[str, LiveState]:
        self._cursor, own = self._history.whole(users, look)
        theirs = self._linked.theirs(own)
        for user in own.keys() & self._unjoined:
            links, found = first_links(own[user]), theirs[user]
            self._unjoined[user] &= links.keys()
            late = sorted(self._unjoined[user] & found.keys(), key=lambda one: links[one])
            self._missing[user] = sum(len(found[anonymous]) for anonymous in late)
            self._late[user] = own[user], found, late
        return self._transition.fold(
            {u: merge_histories(events, theirs[u]) for u, events in own.items()}
        )

    def settle(self, attempts: int) -> bool:
        """Put the rows in place; False if some still move on after so many attempts."""
        for _ in range(attempts):
            if not self.replace():
                return True
            self.catch_up()
        return False

    def replace(self) -> set[str]:
        """Put the rows in place; those returned, and kept in ``rows``, had moved on."""
        for user, row in list(self.rows.items()):
            if not self._fewer and self.is_short(user, row):
                self.short.append(user)
                del self.rows[user]
        left = replace_live(
            self._client, self._partition, self.rows, self._expected, self._entry, self._keep_s
        )
        done = self.rows.keys() - left
        said = {user: note_of(explicit.decode(self.rows[user].profile)) for user in done}
        note_profiling(self._client, self._partition, said)
        for user in done:
            self.done[user] = self.rows[user]
            remove_unjoined(self._client, user, self._unjoined.get(user, ()))
        self.rows = {user: self.rows[user] for user in left}
        return left

    def is_short(self, user: str, row: LiveState) -> bool:
        """Say whether the live row has seen more than the history that ``row`` was folded from."""
        expected, missing = self._expected[user] or 0, self._missing.get(user, 0)
        if not missing or row.version < expected or row.version - missing >= expected:
            return row.version < expected
        # Notes may say too much: who made them good was killed before taking them away, or the row
        # names an id no more. Whoever folds takes all ids linked so far: it lacks the last ones.
        live = read_live(self._client, [user])[0]
        if live is None or live.version != expected:
            return False  # it has moved on: it is not replaced
        own, found, late = self._late[user]
        for kept in range(len(late), 0, -1):
            known = {a: found[a] for a in found.keys() - late[kept:]}
            fold = self._transition.fold({user: merge_histories(own, known)})
            if user in fold and fold[user].profile == live.profile:
                return False
        return True

    def _look(self, users: Sequence[str]) -> LogPosition:
        cursor, in_log, self._expected = read_versions(self._client, self._partition, users)
        self._entry = cursor if in_log else ""
        return LogPosition.parse(cursor)
