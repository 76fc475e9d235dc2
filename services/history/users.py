"""Histories of users up to a moment: their events from log and archive, each once.

An event stands in its partition's log until it is archived, for a while in both. So the log
is read first and the archive afterwards: what moves in between is seen twice, and counted
once by its position and id; the other way round it would be missed.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import duckdb

from feature_repo.archive.event_archive import Archive, LogPosition, Span
from feature_repo.errors import PortraitError
from feature_repo.events.schema import EventRecord
from feature_repo.online.connection import translated
from services.event_log.dead_letters import read_voided
from services.event_log.entries import decode, read_entries
from services.event_log.keys import cursor_key, log_key
from services.event_log.links import Placed

Found = dict[tuple[LogPosition, str], EventRecord]
Histories = dict[str, list[Placed]]
"""Users' events with their positions, in fold order."""

_FEW: Final = 16  # users for whom entries are looked through before they are decoded


class PartitionHistory:
    """The history of one partition's users.

    Parameters
    ----------
    client
        Synchronous client.
    archive
        Where the parts lie.
    partition
        Number of the partition.
    """

    def __init__(self, client: Any, archive: Archive, partition: int) -> None:
        self._client = client
        self._archive = archive
        self._partition = partition

    def whole(
        self, users: Sequence[str], look: Callable[[], LogPosition]
    ) -> tuple[LogPosition, Histories]:
        """Return all that had happened to ``users`` at a moment, in fold order.

        Parameters
        ----------
        users
            Pseudonyms of the partition.
        look
            Reads the rows at the moment in question and returns the cursor they stand at.

        Returns
        -------
        tuple
            That cursor; and by user all imported history, and every event of the log up to
            the cursor that is not void (`dead_letters`). Users of whom nothing is known are
            left out.

        Raises
        ------
        StoreUnavailableError
            If the store does not answer.
        PortraitError
            If a part of the archive cannot be read.
        """
        parts = self._archive.parts_of(self._partition)
        with translated():
            applied = LogPosition.parse(
                self._client.hget(cursor_key(self._partition), "cursor") or b"0-0"
            )
        # Only what is applied is archived. Parts that go further were written for a store
        # that has been lost since: their events happened, unless they are still to be applied.
        ahead = [part for part in parts if (span := Span.of(part)) and span.until > applied]
        pending = self._read_log(users, LogPosition(0, 0), None) if ahead else {}
        cursor = look()
        found = self._between(users, None, cursor)
        for key, record in self._read_archive(ahead, users, None, None).items():
            if key not in pending:
                found[key] = record
        return cursor, self._order(found, users)

    def since(self, users: Sequence[str], after: LogPosition, until: LogPosition) -> Histories:
        """Return what happened to ``users`` with ``after < position <= until``; see `whole`."""
        return self._order(self._between(users, after, until), users)

    def all(self, users: Sequence[str]) -> Histories:
        """Return all there is of ``users`` in log and archive, applied or not; see `whole`."""
        found = self._read_log(users, LogPosition(0, 0), None)
        found |= self._read_archive(self._archive.parts_of(self._partition), users, None, None)
        return self._order(found, users)

    def _between(
        self, users: Sequence[str], after: LogPosition | None, until: LogPosition
    ) -> Found:
        found = self._read_log(users, after or LogPosition(0, 0), until)
        parts = self._archive.parts_of(self._partition, after)
        return found | self._read_archive(parts, users, after, until)

    def _read_log(
        self, users: Sequence[str], after: LogPosition, until: LogPosition | None
    ) -> Found:
        """Return the log's events, at least those of ``users``."""
        needles = [user.encode() for user in users] if len(users) <= _FEW else [b""]
        end = "+" if until is None else str(until)
        entries = read_entries(self._client, log_key(self._partition), f"({after}", end)
        some = (e for e in entries if any(name in e[1].get(b"e", b"") for name in needles))
        with translated():
            return {(position, record.id): record for position, record in decode(some)}

    def _read_archive(
        self,
        parts: Sequence[Path],
        users: Sequence[str],
        after: LogPosition | None,
        until: LogPosition | None,
    ) -> Found:
        if not parts or not users:
            return {}
        rows = _rows(parts, users)
        return {
            (position, name): EventRecord.decode(record)
            for ms, seq, name, record in rows
            if (position := LogPosition(ms, seq))
            and (after is None or position > after)
            and (until is None or position <= until or ms == 0)  # imported: before all of the log
        }

    def _order(self, found: Found, users: Sequence[str]) -> Histories:
        void, wanted = read_voided(self._client, self._partition), set(users)
        histories: Histories = defaultdict(list)
        for (position, _), record in sorted(found.items(), key=lambda item: item[0]):
            if record.user in wanted and (position.ms, position.seq) not in void:
                histories[record.user].append((position, record))
        return dict(histories)


def _rows(parts: Sequence[Path], users: Sequence[str]) -> list[tuple[int, int, str, bytes]]:
    """Return position, event id and record of all events of ``users`` in ``parts``."""
    with database().cursor() as connection:
        try:
            # The bounds let DuckDB pass over row groups: parts are sorted by user.
            found: list[tuple[int, int, str, bytes]] = connection.execute(
                "SELECT log_ms, log_seq, event_id, record FROM read_parquet(?) "
                'WHERE "user" BETWEEN ? AND ? AND "user" IN (SELECT unnest(?))',
                [[str(part) for part in parts], min(users), max(users), list(users)],
            ).fetchall()
        except duckdb.Error as error:
            raise PortraitError(
                f"the archive cannot be read ({type(error).__name__}): check the parts in "
                f"{parts[0].parent}"
            ) from error
    return found


@lru_cache(maxsize=1)
def database() -> Any:
    """Return this process's DuckDB; opening one for each read costs more than the query."""
    return duckdb.connect(config={"threads": 1, "memory_limit": "1GB", "temp_directory": ""})
