"""Rows of active users, kept decoded by the updater that alone writes them.

What is kept is what the last commit wrote. A row is taken out for a batch and comes back with its
commit; so one whose commit was refused, or is unknown, is not kept. A partition's rows go with its
lease, when the cursor is not where this updater left it, and when a rebuild replaced any row of it.
The commit compares their versions all the same.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from feature_repo.events.pseudonyms import partition_of
from feature_repo.online.live_row import LiveState
from feature_repo.online.live_rows import read_batch
from feature_repo.user_profile.explicit import ExplicitProfile

ROW_BYTES: Final = 4_000
PACKED_BYTES: Final = 3
"""A kept row takes about so much memory, and so many times the bytes of its profile."""


class KeptRow(NamedTuple):
    """A row and its profile, decoded."""

    row: LiveState
    profile: ExplicitProfile

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        return ROW_BYTES + PACKED_BYTES * len(self.row.profile) + len(self.row.learned)


class RoundRows(NamedTuple):
    """What a round starts from.

    Attributes
    ----------
    rebuilt
        See `read_batch`.
    rows
        The row of each user.
    kept
        Of those that were kept, the decoded ones.
    """

    rebuilt: dict[int, int]
    rows: dict[str, LiveState | None]
    kept: dict[str, KeptRow]

    def versions(self, users: Collection[str]) -> dict[str, int]:
        """Return the versions that kept rows of ``users`` must have in the store."""
        return {user: kept.row.version for user, kept in self.kept.items() if user in users}


class KeptRows:
    """The rows that one updater keeps, last written last; for one thread.

    Parameters
    ----------
    client
        Synchronous client.
    most_bytes
        Bound of their memory, about; beyond it those written longest ago go.
    """

    def __init__(self, client: Any, most_bytes: int) -> None:
        self._client = client
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: dict[str, KeptRow] = {}
        self._rebuilt: dict[int, int] = {}

    def __contains__(self, user: object) -> bool:
        return user in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, users: Mapping[int, Sequence[str]]) -> RoundRows:
        """Take out the rows of ``users``, by partition, and read those that are not kept.

        Raises
        ------
        StoreUnavailableError
            If the store does not answer in time.
        """
        kept = {u: k for some in users.values() for u in some if (k := self._take(u)) is not None}
        rebuilt, rows = read_batch(
            self._client, {p: [u for u in some if u not in kept] for p, some in users.items()}
        )
        moved = [p for p in users if rebuilt[p] != self._rebuilt.get(p, rebuilt[p])]
        self.drop(*moved)
        if again := {p: [u for u in users[p] if kept.pop(u, None)] for p in moved}:
            rows |= read_batch(self._client, again)[1]
        self._rebuilt |= rebuilt
        return RoundRows(rebuilt, rows | {user: each.row for user, each in kept.items()}, kept)

    def put(self, user: str, kept: KeptRow) -> None:
        """Keep a row as it was committed."""
        self._take(user)
        self._kept[user] = kept
        self._bytes += kept.size
        while self._bytes > self._most_bytes:
            self._take(next(iter(self._kept)))

    def drop(self, *partitions: int) -> None:
        """Keep no row of these partitions any more."""
        gone = {p for p in partitions if self._rebuilt.pop(p, None) is not None}
        for user in [user for user in self._kept if partition_of(user) in gone] if gone else ():
            self._take(user)

    def _take(self, user: str) -> KeptRow | None:
        kept = self._kept.pop(user, None)
        if kept is not None:
            self._bytes -= kept.size
        return kept
