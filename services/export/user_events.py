"""A user's events and those of the anonymous ids that became theirs, in the order of the fold.

Belongs here: whose anonymous ids they are, merging their logs with the user's, and the form in
which an event is shown. Reading one log is `paged_history`'s; the order is that of
`feature_repo.user_profile.merged_history.order_events`.
"""

import heapq
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.archive.query_bounds import run_until_deadline
from feature_repo.events.pseudonyms import partition_of
from feature_repo.events.schema import EventRecord, iso, record_to_api
from feature_repo.online.connection import translated
from feature_repo.profile_views.consents import show
from feature_repo.user_profile.consent import make_consent, read_statements
from services.context.context import Context
from services.event_log.entries import LogEntry, decode
from services.event_log.keys import log_key, owners_key
from services.event_log.links import first_links, first_owner_of, owner_of
from services.export.paged_history import PAGE_EVENTS, Only, PagedHistory, PlacedBytes
from services.export.pool import EXPORTING
from services.export.schemas import ConsentStatement, ExportedEvent, LinkedId
from services.history.recent_events import Position
from services.history.users import database

_CHUNK: Final = 250
"""Events that are written at once."""
_PAGE_ENTRIES: Final = 250
_FEWEST: Final = 50


class MergedEvent(NamedTuple):
    """An event of a user's whole history; ``of`` is the anonymous id in whose log it stands."""

    of: str | None
    placed: PlacedBytes


@dataclass(frozen=True, slots=True)
class WholeUser:
    """A user with the anonymous ids that are theirs.

    Attributes
    ----------
    pseudonym
        The user's.
    links
        Anonymous ids whose earlier events are the user's, each with where it was linked.
    dead
        Entries of logs whose dead letters lie there.
    """

    pseudonym: str
    links: Mapping[str, LogPosition]
    dead: Collection[str] = ()

    @property
    def pseudonyms(self) -> list[str]:
        """The user's own and those of the anonymous ids."""
        return [self.pseudonym, *sorted(self.links)]


async def find_links(
    context: Context, pseudonym: str, row_names: Sequence[str]
) -> tuple[dict[str, LogPosition], list[LinkedId]]:
    """Return whose first events are a user's, and all anonymous ids that are or were theirs.

    Parameters
    ----------
    row_names
        Anonymous ids that the user's row names: the last few.
    """
    firsts = {name: LogPosition(0, 0) for name in row_names}
    in_log = await _find_logged(context, pseudonym)
    archive = Archive(context.settings.home / "archive" / "events")
    archived = await EXPORTING.run(_find_archived, archive, pseudonym)
    for name, position in (*in_log.items(), *archived.items()):
        known = firsts.get(name)
        firsts[name] = position if known in (None, LogPosition(0, 0)) else min(known, position)
    links, shown = dict[str, LogPosition](), list[LinkedId]()
    for name in sorted(firsts):
        with translated():
            note = await context.store.hget(owners_key(partition_of(name)), name)
        first, now = first_owner_of(note), owner_of(note)
        if first is None:
            continue
        if first[0] == pseudonym:
            links[name] = firsts[name]
        if pseudonym in (first[0], now):
            shown.append({
                "pseudonym": name, "earlier_events": first[0] == pseudonym and first[1],
                "present": now == pseudonym, "claimed": note.endswith(b"~"),
            })  # fmt: skip
    return links, shown


async def _find_logged(context: Context, pseudonym: str) -> dict[str, LogPosition]:
    found, start = dict[str, LogPosition](), b"-"
    while True:
        with translated():
            page = await context.store.xrange(
                log_key(partition_of(pseudonym)), start, "+", count=_PAGE_ENTRIES
            )
        named = await EXPORTING.run(_read_links, page, pseudonym)
        found = named | found
        if len(page) < _PAGE_ENTRIES:
            return found
        start = b"(" + page[-1][0]


def _read_links(page: Sequence[LogEntry], pseudonym: str) -> dict[str, LogPosition]:
    some = [entry for entry in page if pseudonym.encode() in entry[1].get(b"e", b"")]
    return first_links([(at, record) for at, record in decode(some) if record.user == pseudonym])


def _find_archived(archive: Archive, pseudonym: str) -> dict[str, LogPosition]:
    parts = [str(part) for part in archive.parts_of(partition_of(pseudonym))]
    if not parts:
        return {}
    with database().cursor() as cursor, run_until_deadline(cursor):
        rows = cursor.execute(
            "SELECT linked, min((log_ms, log_seq)) FROM read_parquet(?, union_by_name = true) "
            'WHERE "user" = ? AND linked IS NOT NULL GROUP BY linked',
            [parts, pseudonym],
        ).fetchall()
    return {name: LogPosition(*at) for name, at in rows}


async def merge_events(
    context: Context, user: WholeUser, *, only: Only = "all"
) -> AsyncIterator[list[MergedEvent]]:
    """Yield the user's whole history, some events at a time.

    Raises
    ------
    StoreUnavailableError, TooCostlyError
        See `PagedHistory.pages`.
    """
    page = max(_FEWEST, PAGE_EVENTS // (1 + len(user.links)))
    streams = [_flow(context, user, None, only, page)]
    streams += [_flow(context, user, name, only, page) for name in sorted(user.links)]
    heads = list[tuple[Any, int, MergedEvent]]()
    try:
        for number, stream in enumerate(streams):
            async for key, event in stream:
                heapq.heappush(heads, (key, number, event))
                break
        some = list[MergedEvent]()
        while heads:
            _, number, event = heads[0]
            some.append(event)
            following = await anext(streams[number], None)
            if following is None:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, (following[0], number, following[1]))
            if len(some) >= _CHUNK:
                yield some
                some = []
        if some:
            yield some
    finally:
        for stream in streams:
            await stream.aclose()


_Key = tuple[LogPosition, int, LogPosition, str]


async def _flow(context: Context, user: WholeUser, name: str | None, only: Only, page: int) -> Any:
    """Yield one log's events, each with its place among all of them."""
    link = None if name is None else user.links[name]
    log = PagedHistory(context, name or user.pseudonym, only=only, dead=user.dead, page=page)
    async for some in log.pages():
        for placed in some:
            yield _key_of(placed.position, link), MergedEvent(name, placed)


def _key_of(position: Position, link: LogPosition | None) -> _Key:
    at = LogPosition(*position[:2])
    if link is None:
        return at, 1, at, position[2]
    return min(at, link) if link.ms else at, 0, at, position[2]


def show_event(event: MergedEvent) -> ExportedEvent:
    """Return an event as an export shows it."""
    record = EventRecord.decode(event.placed.record)
    ms, seq, _ = event.placed.position
    shown = record_to_api(record)
    shown |= {"received_at": iso(record.received_ms), "position": f"{ms}-{seq}"}
    if event.of is not None:
        shown["of"] = event.of
    if record.linked is not None:
        shown["linked"] = record.linked
    if event.placed.void:
        shown["applied"] = False
    return cast("ExportedEvent", shown)


def list_statements(event: MergedEvent) -> Iterator[ConsentStatement]:
    """Yield what an event says about consent, a purpose at a time."""
    record = EventRecord.decode(event.placed.record)
    for purpose, granted in read_statements(record).items():
        shown = show(make_consent(record, purpose, granted=granted))
        said = cast("ConsentStatement", {"purpose": purpose, **shown, "event_id": record.id})
        if event.of is not None:
            said["of"] = event.of
        if event.placed.void:
            said["applied"] = False
        yield said
