"""Cost of rows without HTTP: their size, one update after a long life, a replay.

Belongs here: measures of the transition and the store in this process. Not here: the
service (`updates`), the floor (`floor`).
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any, Final

import msgspec
import numpy as np

from feature_repo.archive.event_archive import Archive
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import EventRecord
from feature_repo.online.live_row import LiveState
from feature_repo.online.live_rows import commit, load_live, read_batch
from services.event_log.keys import log_key
from services.models.transition import Transition
from services.update.lease import lease_key

Tell = Callable[[int, int, str], None]

FOLD_USERS: Final = 512
"""Users folded together: wide waves are cheap ones, and their rows still fit the caches."""


def chunks(
    histories: Iterable[tuple[str, list[EventRecord]]], size: int = FOLD_USERS
) -> Iterator[dict[str, list[EventRecord]]]:
    """Yield users by the ``size``."""
    waiting = iter(histories)
    while chunk := dict(itertools.islice(waiting, size)):
        yield chunk


def sizes(
    transition: Transition, archive: Archive, tell: Tell, users: Sequence[str] | None = None
) -> dict[str, Any]:
    """Fold whole histories and return the bytes of the rows they leave.

    Parameters
    ----------
    archive
        Whose users.
    users
        Only these pseudonyms.

    Returns
    -------
    dict
        ``users``, ``events``, and p50, p95 and max of ``bytes`` (profile and learned state
        together), ``explicit`` and ``learned``.
    """
    explicit, learned, events = list[int](), list[int](), 0
    for chunk in chunks(archive.histories(users)):
        for row in transition.fold(chunk).values():
            explicit.append(len(row.profile))
            learned.append(len(row.learned))
            events += row.version
        tell(len(explicit), 0, "users folded")
    both = [a + b for a, b in zip(explicit, learned, strict=True)]
    return {
        "users": len(both), "events": events, "bytes": _spread(both),
        "explicit": _spread(explicit), "learned": _spread(learned),
    }  # fmt: skip


def _spread(values: Sequence[int]) -> dict[str, int]:
    return {
        "p50": int(np.percentile(values, 50)),
        "p95": int(np.percentile(values, 95)),
        "max": max(values),
    }


def replay(transition: Transition, archive: Archive, client: Any, tell: Tell) -> dict[str, Any]:
    """Read an archive, fold it and load the rows, in this one process.

    Returns
    -------
    dict
        ``events``, ``users`` and ``per_s``, events per second.
    """
    started_s, events, users = time.perf_counter(), 0, 0
    for chunk in chunks(archive.histories()):
        rows = transition.fold(chunk)
        load_live(client, rows)
        events += sum(row.version for row in rows.values())
        users += len(rows)
        tell(events, 0, "events replayed")
    return {
        "events": events, "users": users, "per_s": events / (time.perf_counter() - started_s)
    }  # fmt: skip


class UpdateCost:
    """Times updates of rows with few and with many events, side by side.

    Parameters
    ----------
    client
        A server for this alone: rows, cursor and lease of partition 0 are written.
    transition
        What an event does.
    history
        ``history(user, numbers)`` gives that user's events of these numbers, event
        ``n`` standing ``n`` steps after the first.
    users
        Rows updated at a time. Several are copies of one history, under ids of their own.
    """

    DISTINCT: Final = 8
    """Different histories that are folded; the rows beyond are copies under other ids."""

    def __init__(
        self,
        client: Any,
        transition: Transition,
        history: Callable[[int, range], list[EventRecord]],
        *,
        users: int = 64,
    ) -> None:
        self._client = client
        self._transition = transition
        self._history = history
        pseudonyms = Pseudonyms(bytes(16), 1)
        self.users = [pseudonyms.of_user(f"cost-{number}") for number in range(users)]
        client.hset(lease_key(0), mapping={"owner": "bench", "epoch": 1, "until_ms": 2**53})
        self._cursor = "0-0"

    def rows(self, events: int, end: int) -> dict[str, LiveState]:
        """Return the rows of users with exactly that many events, the last before ``end``."""
        numbers = range(end - events, end)
        users = range(min(self.DISTINCT, len(self.users)))
        histories = [self._history(user, numbers) for user in users]
        folded = self._transition.fold({h[0].user: h for h in histories})
        assert {row.version for row in folded.values()} == {events}
        copied = itertools.cycle(folded.values())
        return {user: next(copied) for user in self.users}

    def measure(self, lengths: Sequence[int], rounds: int, tell: Tell) -> dict[int, list[float]]:
        """Return the microseconds of one update, per round, for each length of history.

        The lengths take turns within a round, so that a disturbance meets all alike; before
        every update the rows are put back, so that they keep their number of events.
        """
        end = max(lengths)
        rows = {events: self.rows(events, end) for events in lengths}
        tell(0, rounds, "updates")
        taken: dict[int, list[float]] = {events: [] for events in lengths}
        for number in range(rounds):
            turns = list(lengths) if number % 2 else list(lengths)[::-1]
            following = [
                msgspec.structs.replace(self._history(n, range(end, end + 1))[0], user=user)
                for n, user in enumerate(self.users, number * len(self.users))
            ]
            for events in turns:
                load_live(self._client, rows[events])
                taken[events].append(self._update(following))
            tell(number + 1, rounds, "updates")
        return taken

    def _update(self, events: list[EventRecord]) -> float:
        """Apply one event to every row as the updater does; return microseconds per update."""
        entry = self._client.xadd(log_key(0), {"e": events[-1].encode()}).decode()
        started_s = time.perf_counter()
        rebuilt, found = read_batch(self._client, {0: self.users})
        changed, poison = self._transition.apply(found, events)
        commit(
            self._client, 0, epoch=1, expected_cursor=self._cursor, new_cursor=entry,
            rows=changed, expected_rebuilt=rebuilt[0],
        )  # fmt: skip
        taken_s = time.perf_counter() - started_s
        assert not poison
        assert len(changed) == len(self.users)
        self._cursor = entry
        return taken_s * 1e6 / len(self.users)


def ratio(taken: Mapping[int, Sequence[float]], long: int, short: int) -> float:
    """Return the median cost at ``long`` over that at ``short``.

    Examples
    --------
    >>> ratio({10: [1.0, 2.0, 9.0], 10_000: [2.0, 3.0, 3.0]}, 10_000, 10)
    1.5
    """
    return median(taken[long]) / median(taken[short])
