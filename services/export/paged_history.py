"""Everything that one log holds of a user, oldest first, a page at a time: memory stays bounded.

An event stands in its partition's log until it is archived, for a while in both. The position up
to which the log is archived is read in one step with each page of the log: what lies before it is
read from the archive, what lies after it from that page. So an event that moves meanwhile is
neither missed nor seen twice. Belongs here: that order. What becomes of the events is `events`'.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from feature_repo.archive.event_archive import Archive, LogPosition, Span
from feature_repo.archive.query_bounds import run_until_deadline
from feature_repo.events.pseudonyms import partition_of
from feature_repo.events.types import find_types
from feature_repo.online.connection import translated
from services.context.context import Context
from services.event_log.entries import LogEntry, decode
from services.event_log.keys import cursor_key, log_key, voided_key
from services.event_log.unprofiled import may_state
from services.export.pool import EXPORTING
from services.history.recent_events import Position
from services.history.users import database

PAGE_EVENTS: Final = 1_000
"""Rows of the archive that are read at once, up to 32 KB each."""
_PAGE_ENTRIES: Final = 250
_PARTS_A_READ: Final = 16
_BEGIN: Final[Position] = (-1, 0, "")
_LIVE_MS: Final = 1  # imported history stands before it
_IMPORTED: Final = LogPosition(0, 2**62)
_LAST: Final = "\U0010ffff"

Only = Literal["all", "stating"]
"""Which events: all, or those that may say something about consent."""


class PlacedBytes(NamedTuple):
    """An event as it is kept, and where it stands.

    Attributes
    ----------
    position
        (log ms, log seq, event id).
    record
        `feature_repo.events.schema.EventRecord` in its MessagePack form.
    void
        Whether it counts in no profile: its dead letter lies there, was retried or dropped.
    """

    position: Position
    record: bytes
    void: bool


class PagedHistory:
    """What one pseudonym's log and archive hold.

    Parameters
    ----------
    pseudonym
        Of a user or of an anonymous id; what was moved to another's log is not here.
    dead
        Entries of the log whose dead letters lie there: they count in no profile.
    page
        Rows that are read at once.
    """

    def __init__(
        self,
        context: Context,
        pseudonym: str,
        *,
        only: Only = "all",
        dead: Collection[str] = (),
        page: int = PAGE_EVENTS,
    ) -> None:
        self._context = context
        self._pseudonym = pseudonym
        self._partition = partition_of(pseudonym)
        self._archive = Archive(context.settings.home / "archive" / "events")
        self._only: Only = only
        self._dead = frozenset(dead)
        self._page = page

    async def pages(self) -> AsyncIterator[list[PlacedBytes]]:
        """Yield the events in fold order, up to the end of the log as it is now.

        Raises
        ------
        StoreUnavailableError
            If the store does not answer.
        TooCostlyError
            If the archive takes too long.
        """
        position, until = _BEGIN, await self._end()
        archived = await self._read_archived()
        while True:
            async for page in self._from_archive(position, archived):
                yield await self._mark(page)
            position = max(position, (archived.ms, archived.seq, _LAST))
            archived, entries = await self._from_log(position)
            if (archived.ms, archived.seq) > position[:2]:
                continue  # what was next may have left the log
            if not entries:
                break
            end = LogPosition.parse(entries[-1][0])
            found = await EXPORTING.run(_select, entries, self._pseudonym, self._only)
            ahead = [row async for some in self._from_archive(position, end) for row in some]
            page = sorted({(r.position): r for r in (*ahead, *found)}.values())
            if page:
                yield await self._mark(page)
            position = (end.ms, end.seq, _LAST)
            if end >= until:
                break
        # Of a store that lost its last writes: its archive goes further than its log.
        async for page in self._from_archive(position, None):
            yield await self._mark(page)

    async def _end(self) -> LogPosition:
        with translated():
            last = await self._context.store.xrevrange(log_key(self._partition), count=1)
        return LogPosition.parse(last[0][0]) if last else LogPosition(0, 0)

    async def _read_archived(self) -> LogPosition:
        with translated():
            found = await self._context.store.hget(cursor_key(self._partition), "archived")
        return max(_IMPORTED, LogPosition.parse(found or b"0-0"))

    async def _from_log(self, position: Position) -> tuple[LogPosition, list[LogEntry]]:
        after = f"({max(position[0], 0)}-{position[1]}"
        with translated():
            async with self._context.store.pipeline(transaction=True) as pipe:
                pipe.hget(cursor_key(self._partition), "archived")
                pipe.xrange(log_key(self._partition), after, "+", count=_PAGE_ENTRIES)
                archived, entries = await pipe.execute()
        return max(_IMPORTED, LogPosition.parse(archived or b"0-0")), entries

    async def _from_archive(
        self, position: Position, until: LogPosition | None
    ) -> AsyncIterator[list[PlacedBytes]]:
        """Yield what the archive holds after ``position``, up to and with ``until``."""
        while True:
            rows, done = await EXPORTING.run(
                _read_page, self._archive, self._pseudonym, self._only, position, until, self._page
            )
            if rows:
                yield rows
            if done is None:
                return
            position = done

    async def _mark(self, page: list[PlacedBytes]) -> list[PlacedBytes]:
        """Say which events of a page are void; imported ones never are."""
        names = [f"{each.position[0]}-{each.position[1]}" for each in page]
        with translated():
            void = await self._context.store.smismember(voided_key(self._partition), names)
        return [
            each._replace(void=bool(gone) or name in self._dead)
            for each, name, gone in zip(page, names, void, strict=True)
        ]


def _select(entries: Sequence[LogEntry], pseudonym: str, only: Only) -> list[PlacedBytes]:
    needle = pseudonym.encode()
    some = [entry for entry in entries if needle in entry[1].get(b"e", b"")]
    return [
        PlacedBytes((position.ms, position.seq, record.id), record.encode(), False)
        for position, record in decode(some)
        if record.user == pseudonym and (only == "all" or may_state(record))
    ]


def _read_page(
    archive: Archive,
    pseudonym: str,
    only: Only,
    after: Position,
    until: LogPosition | None,
    limit: int,
) -> tuple[list[PlacedBytes], Position | None]:
    """Return the next events of the archive, and the position to go on from; None: no more."""
    if until is not None and (until.ms, until.seq, _LAST) <= after:
        return [], None
    parts, bound = _next_parts(archive.parts_of(partition_of(pseudonym)), after, until)
    if not parts:
        return [], None
    most = min(filter(None, (until, bound)), default=None)
    found = _query(parts, pseudonym, only, after, most, limit)
    rows = [PlacedBytes((ms, seq, name), record, False) for ms, seq, name, record in found]
    if len(rows) == limit:
        return rows, rows[-1].position
    return rows, None if most is None or most == until else (most.ms, most.seq, _LAST)


def _next_parts(
    parts: Sequence[Path], after: Position, until: LogPosition | None
) -> tuple[list[Path], LogPosition | None]:
    """Return the parts to read, and up to which position they hold all; None: to the end."""
    imported = [part for part in parts if Span.of(part) is None]
    if after[0] < _LIVE_MS and imported:
        return imported, LogPosition(_LIVE_MS, 0)
    spans = sorted(
        (span.after, span.until, part)
        for part in parts
        if (span := Span.of(part)) and (span.until.ms, span.until.seq) > after[:2]
        and (until is None or span.after < until)
    )  # fmt: skip
    some, rest = spans[:_PARTS_A_READ], spans[_PARTS_A_READ:]
    return [part for _, _, part in some], rest[0][0] if rest else None


def _query(
    parts: Sequence[Path],
    pseudonym: str,
    only: Only,
    after: Position,
    until: LogPosition | None,
    limit: int,
) -> list[tuple[int, int, str, bytes]]:
    # The plain bounds let DuckDB pass over row groups: parts are sorted by user and position.
    where = ['"user" = ?', "log_ms >= ?", "(log_ms, log_seq, event_id) > (?, ?, ?)"]
    values: list[Any] = [[str(part) for part in parts], pseudonym, after[0], *after]
    if after[0] == 0:
        where.append("(log_ms > 0 OR log_seq >= ?)")
        values.append(after[1])
    if until is not None:
        where.append("(log_ms, log_seq) <= (?, ?)")
        values += [until.ms, until.seq]
    if only == "stating":
        where.append("(consent IS NOT NULL OR linked IS NOT NULL OR type IN (SELECT unnest(?)))")
        values.append(sorted(find_types("consent")))
    with database().cursor() as cursor, run_until_deadline(cursor):
        found: list[tuple[int, int, str, bytes]] = cursor.execute(
            "SELECT log_ms, log_seq, event_id, record "  # noqa: S608 - conditions of our own
            "FROM read_parquet(?, union_by_name = true) "
            f"WHERE {' AND '.join(where)} ORDER BY log_ms, log_seq, event_id LIMIT ?",
            [*values, limit],
        ).fetchall()
    return found
