"""One user's events, newest first, from the log's tail and the archive, each event once."""

import asyncio
from typing import TYPE_CHECKING, Any

import duckdb

from feature_repo.archive import Archive
from feature_repo.connection import translated
from feature_repo.entity import partition_of
from feature_repo.events import EventRecord
from services.archiver import decoded
from services.log import cursor_key, log_key

if TYPE_CHECKING:
    from services.state import GatewayState

Position = tuple[int, int, str]
"""(log ms, log seq, event id): the order of the fold."""

_PAGE = 1000


async def read_events(
    state: "GatewayState", entity: str, before: Position | None, type_: str | None, limit: int
) -> list[tuple[Position, EventRecord]]:
    """Return up to ``limit`` events that stand before ``before`` in the log, newest first.

    Parameters
    ----------
    entity
        Entity id of the user.
    before
        Position to go on from; None starts with the newest.
    type_
        Only events of this type.
    """
    # The tail first: an event that moves to the archive in between is then seen twice and
    # counted once; the other way round it would be missed.
    tail = await _tail(state.store, entity)
    archive = Archive(state.settings.home / "archive" / "events")
    if not archive.empty():
        tail |= await asyncio.to_thread(_archived, archive.glob(), entity, before, type_, limit)
    found = [
        (position, record)
        for position, record in tail.items()
        if (before is None or position < before) and (type_ is None or record.type == type_)
    ]
    found.sort(key=lambda pair: pair[0], reverse=True)
    return found[:limit]


async def _tail(client: Any, entity: str) -> dict[Position, EventRecord]:
    partition, needle = partition_of(entity), entity.encode()
    found = dict[Position, EventRecord]()
    with translated():
        archived = await client.hget(cursor_key(partition), "archived") or b"0-0"
        start = b"(" + archived
        while True:
            page = await client.xrange(log_key(partition), start, "+", count=_PAGE)
            mine = [entry for entry in page if needle in entry[1].get(b"e", b"")]
            for position, record in decoded(mine):
                if record.user == entity:
                    found[position.ms, position.seq, record.id] = record
            if len(page) < _PAGE:
                return found
            start = b"(" + page[-1][0]


def _archived(
    glob: str, entity: str, before: Position | None, type_: str | None, limit: int
) -> dict[Position, EventRecord]:
    where, values = ['"user" = ?'], [entity]
    if type_ is not None:
        where.append("type = ?")
        values.append(type_)
    parameters: list[Any] = [glob, *values]
    if before is not None:
        where.append("(log_ms, log_seq, event_id) < (?, ?, ?)")
        parameters += before
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        rows = connection.execute(
            "SELECT log_ms, log_seq, event_id, record FROM read_parquet(?) "  # noqa: S608
            f"WHERE {' AND '.join(where)} "
            "ORDER BY log_ms DESC, log_seq DESC, event_id DESC LIMIT ?",
            [*parameters, limit],
        ).fetchall()
    return {(ms, seq, name): EventRecord.decode(record) for ms, seq, name, record in rows}
