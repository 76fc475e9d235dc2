"""Entries of a stream of the store, read page by page, and what they say.

Belongs here: the one loop over a stream. Following one that grows is `reader`'s.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Final

import msgspec

from feature_repo.archive.event_archive import LogPosition
from feature_repo.events.schema import EventRecord

LogEntry = tuple[bytes, dict[bytes, bytes]]
_PAGE: Final = 1000
_PAGE_OF_A_LOOP: Final = 250  # of up to 32 KB each, on an event loop


def read_entries(
    client: Any, key: bytes, start: str | bytes = "-", end: str | bytes = "+"
) -> Iterator[LogEntry]:
    """Yield a stream's entries from ``start`` to ``end``; ``(`` before an id leaves it out."""
    while page := client.xrange(key, start, end, count=_PAGE):
        yield from page
        if len(page) < _PAGE:
            return
        start = b"(" + page[-1][0]


async def read_entries_async(client: Any, key: bytes, start: bytes) -> AsyncIterator[LogEntry]:
    """Yield a stream's entries from ``start`` on, with an asyncio client."""
    while page := await client.xrange(key, start, "+", count=_PAGE_OF_A_LOOP):
        for entry in page:
            yield entry
        if len(page) < _PAGE_OF_A_LOOP:
            return
        start = b"(" + page[-1][0]


def decode(entries: Iterable[LogEntry]) -> Iterator[tuple[LogPosition, EventRecord]]:
    """Yield log entries as records, model switches left out.

    What does not decode is in the dead letters already.
    """
    for entry_id, fields in entries:
        try:
            record = EventRecord.decode(fields[b"e"])
        except (KeyError, msgspec.DecodeError):
            continue
        yield LogPosition.parse(entry_id), record
