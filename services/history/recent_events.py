"""One user's events, newest first, from the log's tail and the archive, each event once."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from feature_repo.archive.event_archive import Archive, LogPosition, Span
from feature_repo.archive.query_bounds import run_until_deadline
from feature_repo.events.pseudonyms import partition_of
from feature_repo.events.schema import EventRecord
from feature_repo.online.connection import translated
from services.context import users
from services.context.context import Context
from services.event_log.entries import decode, read_entries_async
from services.event_log.keys import cursor_key, log_key
from services.history.users import database
from services.runtime import workers

Position = tuple[int, int, str]
"""(log ms, log seq, event id): the order of the fold."""

PARTS_A_READ: Final = 16
"""Parts of the archive that are read at once, the newest first, until there are enough events."""
_IMPORTED: Final = LogPosition(1, 0)  # imported history stands before it, the log after it


async def read_all(
    context: Context,
    pseudonym: str,
    linked: Sequence[str],
    before: Position | None,
    type_: str | None,
    limit: int,
) -> list[tuple[Position, EventRecord]]:
    """Do what `read_events` does, with the events of the anonymous ids that became the user's.

    Parameters
    ----------
    linked
        Pseudonyms of those; what is another's, or nobody's, is left out.
    """
    found = await read_events(context, pseudonym, before, type_, limit)
    for anonymous in linked:
        if await users.first_owner(context, anonymous) == pseudonym:
            found += await read_events(context, anonymous, before, type_, limit)
    return await workers.HISTORY.run(_newest, found, limit) if linked else found[:limit]


def _newest(
    found: list[tuple[Position, EventRecord]], limit: int
) -> list[tuple[Position, EventRecord]]:
    found.sort(key=lambda pair: pair[0], reverse=True)
    del found[limit:]  # here, not on the event loop
    return found


async def read_events(
    context: Context, pseudonym: str, before: Position | None, type_: str | None, limit: int
) -> list[tuple[Position, EventRecord]]:
    """Return up to ``limit`` events that stand before ``before`` in the log, newest first.

    Parameters
    ----------
    pseudonym
        Pseudonym of the user.
    before
        Position to go on from; None starts with the newest.
    type_
        Only events of this type.
    """
    # The tail first: an event that moves to the archive in between is then seen twice and
    # counted once; the other way round it would be missed.
    tail = await _tail(context.store, pseudonym)
    archive = Archive(context.settings.home / "archive" / "events")
    return await workers.HISTORY.run(_merge, archive, tail, pseudonym, before, type_, limit)


def _merge(
    archive: Archive,
    tail: Sequence[Any],
    pseudonym: str,
    before: Position | None,
    type_: str | None,
    limit: int,
) -> list[tuple[Position, EventRecord]]:
    found = {
        position: record
        for position, record in _decode(tail, pseudonym).items()
        if (before is None or position < before) and (type_ is None or record.type == type_)
    }
    found |= _read_archive(archive, pseudonym, before, type_, limit)
    return sorted(found.items(), key=lambda pair: pair[0], reverse=True)[:limit]


async def last_tz(context: Context, pseudonym: str) -> str | None:
    """Return the time zone that the user's latest event with one names; None if none does."""
    tail = await _tail(context.store, pseudonym)
    archive = Archive(context.settings.home / "archive" / "events")
    return await workers.HISTORY.run(_last_tz, archive, tail, pseudonym)


def _last_tz(archive: Archive, tail: Sequence[Any], pseudonym: str) -> str | None:
    found = _decode(tail, pseudonym).items()
    named = [(position, record.tz) for position, record in found if record.tz is not None]
    if named:
        return max(named)[1]
    parts = [str(part) for part in archive.parts_of(partition_of(pseudonym))]
    if not parts:
        return None
    with database().cursor() as cursor, run_until_deadline(cursor):
        row = cursor.execute(
            'SELECT tz FROM read_parquet(?) WHERE "user" = ? AND tz IS NOT NULL '
            "ORDER BY log_ms DESC, log_seq DESC, event_id DESC LIMIT 1",
            [parts, pseudonym],
        ).fetchone()
    return None if row is None else str(row[0])


async def _tail(client: Any, pseudonym: str) -> list[Any]:
    """Return the log's entries that may be the user's."""
    partition, needle = partition_of(pseudonym), pseudonym.encode()
    with translated():
        archived = await client.hget(cursor_key(partition), "archived") or b"0-0"
        entries = read_entries_async(client, log_key(partition), b"(" + archived)
        return [entry async for entry in entries if needle in entry[1].get(b"e", b"")]


def _decode(tail: Sequence[Any], pseudonym: str) -> dict[Position, EventRecord]:
    return {
        (position.ms, position.seq, record.id): record
        for position, record in decode(tail)
        if record.user == pseudonym
    }


def _read_archive(
    archive: Archive, pseudonym: str, before: Position | None, type_: str | None, limit: int
) -> dict[Position, EventRecord]:
    """Return the newest ``limit`` archived events that are asked for, and maybe some more."""
    found = dict[Position, EventRecord]()
    for parts, newest in _groups(archive.parts_of(partition_of(pseudonym)), before):
        if len(found) >= limit and sorted(found)[-limit][:2] >= (newest.ms, newest.seq):
            break
        found |= _rows(parts, pseudonym, before, type_, limit)
    return found


def _groups(
    parts: Sequence[Path], before: Position | None
) -> Iterator[tuple[list[Path], LogPosition]]:
    """Yield parts, the newest first, each time with how new an event in them can be."""
    spans = sorted(((s.until, s.after, p) for p in parts if (s := Span.of(p))), reverse=True)
    if before is not None:
        spans = [span for span in spans if (span[1].ms, span[1].seq) < before[:2]]
    for start in range(0, len(spans), PARTS_A_READ):
        some = spans[start : start + PARTS_A_READ]
        yield [part for _, _, part in some], some[0][0]
    imported = [part for part in parts if Span.of(part) is None]
    if imported:
        yield imported, _IMPORTED


def _rows(
    parts: Sequence[Path], pseudonym: str, before: Position | None, type_: str | None, limit: int
) -> dict[Position, EventRecord]:
    # Parts are sorted by user, so most row groups are passed over unread.
    where, values = ['"user" = ?'], list[Any]([[str(part) for part in parts], pseudonym])
    if type_ is not None:
        where.append("type = ?")
        values.append(type_)
    if before is not None:
        where.append("(log_ms, log_seq, event_id) < (?, ?, ?)")
        values += before
    with database().cursor() as cursor, run_until_deadline(cursor):
        rows = cursor.execute(
            "SELECT log_ms, log_seq, event_id, record FROM read_parquet(?) "  # noqa: S608
            f"WHERE {' AND '.join(where)} "
            "ORDER BY log_ms DESC, log_seq DESC, event_id DESC LIMIT ?",
            [*values, limit],
        ).fetchall()
    return {(ms, seq, name): EventRecord.decode(record) for ms, seq, name, record in rows}
