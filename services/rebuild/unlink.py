"""A wrong link undone: an anonymous id and a user who are two people have a profile each again.

Belongs here: the order of the steps. Each may be repeated: a note in the store stands from the
first change to the last, and who is killed in between is begun again with the same ids. The events
that came under the anonymous id after the link go back to it (`moved_events`), the archive's rows
name it no more (`feature_repo.erasure.unlinked_rows`), and rows are folded anew (`parted_rows`).
Not here: whether there is a link that can be undone (`wrong_link`).
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.erasure.unlinked_rows import Link, unlink_archive
from feature_repo.errors import ConflictError, StoreUnavailableError
from feature_repo.events.pseudonyms import partition_of
from feature_repo.events.schema import EventRecord
from feature_repo.online.connection import connect as connect_store
from feature_repo.online.connection import translated
from feature_repo.online.lua import Script
from services.erasure.streams import is_drained, mark_end
from services.event_log.keys import cursor_key, log_key, owners_key
from services.history.unjoined import remove_unjoined
from services.history.unlinking import add_unlinking, remove_unlinking
from services.history.users import PartitionHistory
from services.hosting.embedded import connect
from services.rebuild.history_lock import lock_history
from services.rebuild.jobs import TIMEOUT_S
from services.rebuild.moved_events import LinkedAgainError, find_heir, give_back
from services.rebuild.parted_rows import fold_parted
from services.settings import Settings

Progress = Callable[[int, int, str], None]

ATTEMPTS: Final = 3
_PAUSE_S: Final = 0.2
_LOOK_S: Final = 0.05
_SILENT_S: Final = 60.0
"""After so long without anything applied or archived, beyond the archiver's turn, nobody does."""
_UNOWN: Final = Script((Path(__file__).parent / "unown.lua").read_text())


@dataclass(frozen=True, slots=True)
class UndoneLink:
    """What became of a link.

    Attributes
    ----------
    moved
        Events that went back to the anonymous id.
    named
        Events of the user that named it and do no more.
    again
        Whether an event that came meanwhile has linked both anew.
    """

    moved: int
    named: int
    again: bool


def unlink(settings: Settings, link: Link, progress: Progress | None = None) -> UndoneLink:
    """Undo a link, beside the running service; see `wrong_link.find_link`.

    Parameters
    ----------
    progress
        Called with what is done, of how much, and which step it is.

    Raises
    ------
    ConflictError
        If a rebuild, an import or another of these runs, or events go on naming both ids.
    StoreUnavailableError
        If the store does not answer, or nobody applies events: run it again.
    """
    with (
        lock_history(settings.home, alone=True),
        connect(settings) as url,
        closing(connect_store(url, timeout_s=TIMEOUT_S)) as client,
    ):
        return _Unlinking(settings, client, link, progress or (lambda *_: None)).run()


class _Unlinking:
    def __init__(self, settings: Settings, client: Any, link: Link, tell: Progress) -> None:
        self._settings, self._client, self._link, self._tell = settings, client, link, tell
        self._partition = partition_of(link.user)
        self._archive = Archive(settings.home / "archive" / "events")
        self._moved = self._named = 0

    def run(self) -> UndoneLink:
        add_unlinking(self._client, *self._link)
        for _ in range(ATTEMPTS):
            self._await_applied(self._partition)
            mark = self._part()
            self._tell(0, 0, "waiting until both logs are in the archive")
            self._drain({self._partition: mark, **self._mark_heir()})
            if not self._strays(mark):
                break
        self._tell(0, 0, "archive")
        self._rewrite(mark)
        remove_unjoined(self._client, self._link.user, [self._link.anonymous])
        while True:
            self._tell(0, 0, "profiles")
            heir = find_heir(self._client, self._link)
            heir = self._link.anonymous if heir == self._link.user else heir
            fold_parted(self._settings, self._client, self._archive, self._link, heir)
            self._tell(0, 0, "check")
            if not self._rewrite(mark):  # an archiver that was held up may have added some
                break
        remove_unlinking(self._client, *self._link)
        again = find_heir(self._client, self._link) == self._link.user
        return UndoneLink(self._moved, self._named, again)

    def _part(self) -> bytes:
        """Give the anonymous id its log again, and its events; return the end of the user's."""
        for _ in range(ATTEMPTS):
            self._tell(0, 0, "owner")
            self._unown()
            mark = mark_end(self._client, self._partition)
            # While the note does not name the user, no event behind the mark is of this link.
            if not self._unown():
                try:
                    self._give_back(mark)
                except LinkedAgainError:
                    pass
                else:
                    return mark
            time.sleep(_PAUSE_S)
        raise ConflictError(
            "events go on naming both ids: log the user out where the anonymous id is sent along, "
            "then run it again"
        )

    def _unown(self) -> bool:
        key = owners_key(partition_of(self._link.anonymous))
        with translated():
            args = [self._link.anonymous, self._link.user]
            return bool(_UNOWN(self._client, [key], args))

    def _give_back(self, mark: bytes) -> None:
        naming = self._read_naming(LogPosition.parse(mark))
        moved = [event for event in naming if event.anonymous]
        self._moved, self._named = len(moved), len(naming) - len(moved)
        self._tell(0, len(moved), "giving events back")
        give_back(
            self._client, self._archive, self._link, moved,
            profiled=self._settings.standing["profiling"], wait=self._await_applied,
        )  # fmt: skip

    def _read_naming(self, until: LogPosition) -> Sequence[EventRecord]:
        """Return the user's events that name the anonymous id, those moved from it included."""
        user = self._link.user
        history = PartitionHistory(self._client, self._archive, self._partition).all([user])
        return [
            event for position, event in history.get(user, [])
            if event.linked == self._link.anonymous and position <= until
        ]  # fmt: skip

    def _mark_heir(self) -> dict[int, bytes]:
        partition = partition_of(find_heir(self._client, self._link))
        return {partition: mark_end(self._client, partition)}

    def _strays(self, mark: bytes) -> bool:
        """Say whether events were still moved to the user behind the mark, as a cluster may."""
        if find_heir(self._client, self._link) == self._link.user:
            return False
        behind = self._read_naming(LogPosition(2**63, 0))[self._count(mark) :]
        return any(event.anonymous for event in behind)

    def _count(self, mark: bytes) -> int:
        return len(self._read_naming(LogPosition.parse(mark)))

    def _rewrite(self, mark: bytes) -> int:
        """Take the link out of the archive as far as the mark; return how many rows had it."""
        done = unlink_archive(
            self._settings.home, self._link, LogPosition.parse(mark),
            lambda parts, total: self._tell(parts, total, "archive"),
        )  # fmt: skip
        if done.removed < done.found:
            raise StoreUnavailableError("others go on adding parts to the archive: run it again")
        return done.removed

    def _await_applied(self, partition: int) -> None:
        """Wait until what a partition's log holds now is applied."""
        self._tell(0, 0, "waiting until both logs are applied")
        with translated():
            newest = self._client.xrevrange(log_key(partition), count=1)
        end = LogPosition.parse(newest[0][0]) if newest else LogPosition(0, 0)
        self._wait({partition}, lambda: self._read_cursor(partition) >= end)

    def _read_cursor(self, partition: int) -> LogPosition:
        with translated():
            found = self._client.hget(cursor_key(partition), "cursor")
        return LogPosition.parse(found or b"0-0")

    def _drain(self, marks: dict[int, bytes]) -> None:
        """Wait until what stands before the marks is applied, archived and gone from the logs."""
        self._wait(
            set(marks), lambda: all(is_drained(self._client, *each) for each in marks.items())
        )

    def _wait(self, partitions: set[int], is_done: Callable[[], bool]) -> None:
        silent_s, last = _SILENT_S + self._settings.archive_every_s, list[Any]()
        until_s = time.monotonic() + silent_s
        while not is_done():
            with translated():
                now = [
                    self._client.hmget(cursor_key(each), "cursor", "archived")
                    for each in sorted(partitions)
                ]
            if now != last:
                last, until_s = now, time.monotonic() + silent_s
            if time.monotonic() > until_s:
                raise StoreUnavailableError(
                    "nobody applies or archives events: is `portrait serve` running? Run it again "
                    "then, with the same ids"
                )
            time.sleep(_LOOK_S)
