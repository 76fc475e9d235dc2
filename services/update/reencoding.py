"""Rows encoded anew after production has changed: beside the updates, active users first.

A row says itself which model it follows, so a pass finds what is left, whoever was killed before.
Belongs here: which rows, in which order and how fast. How one is made and put in its place beside
the updates is `services.history.refolding`'s.
"""

import heapq
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from feature_repo.archive.event_archive import Archive
from feature_repo.events.pseudonyms import partition_of
from feature_repo.events.schema import now_ms
from feature_repo.online.connection import translated
from feature_repo.online.live_row import PROJECT
from feature_repo.online.live_rows import read_models
from feature_repo.online.previous_states import restore
from services.history.refolding import ATTEMPTS, Refolding
from services.models import row_counts
from services.models.row_counts import RowCounts
from services.models.transition import Transition
from services.settings import Settings

PASS_USERS: Final = 20_000
"""Users of a pass: the most active; then rows are looked through anew."""
GROUP_USERS: Final = 256
"""Users whose histories are read together."""
AGAIN_S: Final = 600.0
"""How often rows are counted when all follow production."""
_PAGE: Final = 500

Found = list[tuple[int, str]]


class Reencoding:
    """Encodes the rows of an updater's partitions anew.

    Parameters
    ----------
    settings
        ``home``, ``reencode_per_s`` and ``model_rollback_days`` are read.
    client
        Synchronous client, its own.
    partitions
        Gives the partitions that the updater owns just now.
    stopping
        Set when the updater ends.
    target
        Gives the encoder that rows are to follow, None if there is none yet.
    """

    def __init__(
        self,
        settings: Settings,
        client: Any,
        partitions: Callable[[], Collection[int]],
        stopping: threading.Event,
        target: Callable[[], Any],
    ) -> None:
        self._settings = settings
        self._client = client
        self._partitions = partitions
        self._stopping = stopping
        self._target = target
        self._archive = Archive(settings.home / "archive" / "events")
        self._short: dict[str, set[str]] = defaultdict(set)  # by version, who cannot be
        self._done: tuple[str, frozenset[int]] | None = None
        self._again_s = 0.0

    def run(self) -> None:
        """Do one pass, if rows may be left.

        Raises
        ------
        StoreUnavailableError
            If the store does not answer; the next pass goes on.
        """
        step, owned = self._target(), frozenset(self._partitions())
        if step is None or not owned:
            return
        what = step.version, owned
        if what == self._done and time.monotonic() < self._again_s:
            return
        counts, found = self._look_through(step.version, owned)
        if found is None:
            return
        self._write(step.version, counts)
        left = self._restore(step.version, counts, found)
        if self._settings.reencode_per_s:
            left = self._fold(step, counts, left)
            is_over = not left and len(found) < PASS_USERS
        else:
            is_over = len(found) in (0, len(left)) or len(found) < PASS_USERS
        self._done = what if is_over else None
        self._again_s = time.monotonic() + AGAIN_S

    def _look_through(
        self, version: str, owned: frozenset[int]
    ) -> tuple[dict[int, Counter[str]], Found | None]:
        """Count rows by model, and return the most active that follow another; None if ended."""
        counts = {partition: Counter[str]() for partition in owned}
        found = Found()
        for page in _pages(self._users(owned), _PAGE):
            if self._is_over(version):
                return counts, None
            others = Found()
            for user, (model, time_ms) in read_models(self._client, page).items():
                counts[partition_of(user)][model] += 1
                if model != version and user not in self._short[version]:
                    others.append((time_ms, user))
            found = heapq.nlargest(PASS_USERS, [*found, *others]) if others else found
        return counts, found

    def _users(self, owned: frozenset[int]) -> Iterator[str]:
        end = PROJECT.encode()
        with translated():
            for key in self._client.scan_iter(match=b"*" + end, count=1000):
                user = key[-32 - len(end) : -len(end)]
                if user[:2] == b"{p" and user[5:6] == b"}" and int(user[2:5]) in owned:
                    yield user.decode()

    def _restore(self, version: str, counts: dict[int, Counter[str]], found: Found) -> Found:
        """Put back states that a rollback finds again; return what has to be folded."""
        users: dict[int, list[str]] = defaultdict(list)
        for _, user in found:
            users[partition_of(user)].append(user)
        done = set[str]()
        for partition, some in users.items():
            keep_s = self._settings.keep_states_s
            done.update(restore(self._client, partition, some, version, keep_s))
        if done:
            counts.update(self._look_through(version, frozenset(counts))[0])
            self._write(version, counts)
        return [each for each in found if each[1] not in done]

    def _fold(self, step: Any, counts: dict[int, Counter[str]], found: Found) -> Found:
        """Fold histories in the order given, so many a second; return what is left."""
        transition, left = Transition(step), Found(found)
        before = {user: model for page in _pages([u for _, u in found], _PAGE)
                  for user, (model, _) in read_models(self._client, page).items()}  # fmt: skip
        for start in range(0, len(found), GROUP_USERS):
            group = found[start : start + GROUP_USERS]
            began_s = time.monotonic()
            by_partition: dict[int, list[str]] = defaultdict(list)
            for _, user in group:
                by_partition[partition_of(user)].append(user)
            for partition, users in by_partition.items():
                if self._is_over(step.version):
                    return left
                if partition not in self._partitions():
                    continue
                work = self._encode(transition, partition, users)
                self._short[step.version].update(work.short)
                for user in work.done:
                    counts[partition][before.get(user, "")] -= 1
                    counts[partition][step.version] += 1
                self._write(step.version, {partition: counts[partition]})
                gone = {*work.done, *work.short}
                left = [each for each in left if each[1] not in gone]
            spare_s = len(group) / self._settings.reencode_per_s - (time.monotonic() - began_s)
            self._stopping.wait(max(0.0, spare_s))
        return left

    def _encode(self, transition: Transition, partition: int, users: Sequence[str]) -> Refolding:
        keep_s = self._settings.keep_states_s
        work = Refolding(self._client, self._archive, transition, partition, keep_s)
        work.begin(users)
        work.settle(ATTEMPTS)  # a row that moves again and again waits for the next pass
        return work

    def _is_over(self, version: str) -> bool:
        step = self._target()
        return self._stopping.is_set() or step is None or step.version != version

    def _write(self, version: str, counts: dict[int, Counter[str]]) -> None:
        for partition, models in counts.items():
            there = {model: rows for model, rows in models.items() if rows > 0}
            short = sum(partition_of(user) == partition for user in self._short[version])
            told = RowCounts(version, there, short, now_ms())
            row_counts.write(self._client, partition, told)


def _pages(users: Iterator[str] | Sequence[str], size: int) -> Iterator[list[str]]:
    remaining = iter(users)
    while page := list(islice(remaining, size)):
        yield page
