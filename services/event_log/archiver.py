"""Copies applied log entries to the archive, then lets the log go.

A span is claimed in Redis before it is written: whoever continues after a crash archives the
same span, of which the archive takes what it lacks. Only what is applied is archived, so
archive and log up to the cursor are exactly what the rows hold.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import structlog

from feature_repo.archive.compaction import compact
from feature_repo.archive.event_archive import Archive, LogPosition, Span
from feature_repo.erasure import tombstones
from feature_repo.events.schema import EventRecord
from feature_repo.online.lua import Script
from services.event_log.entries import LogEntry, decode, read_entries
from services.event_log.keys import cursor_key, log_key

MAX_ENTRIES: Final = 20_000
MAX_BYTES: Final = 16 * 1024 * 1024
"""Bounds of one part."""
COMPACT_EVERY_S: Final = 60.0
SETTLE_MS: Final = 3_000
"""More than a store with ``appendfsync everysec`` loses on power loss."""

_BEFORE: Final = """
local function before(a, b)  -- a < b, exactly: the numbers may be longer than a double holds
  local ams, aseq = a:match('(%d+)-(%d+)')
  local bms, bseq = b:match('(%d+)-(%d+)')
  if ams ~= bms then aseq, bseq = ams, bms end
  if #aseq ~= #bseq then return #aseq < #bseq end
  return aseq < bseq
end
"""
_LOOK: Final = Script("""
local time = redis.call('TIME')
return {redis.call('HGET', KEYS[1], 'cursor') or '0-0', time[1], time[2]}
""")
"""KEYS: cursor. Answers the cursor and the server's time, in seconds and microseconds."""
_CLAIM: Final = Script(
    _BEFORE
    + """
local held = redis.call('HMGET', KEYS[1], 'cursor', 'archived', 'archiving')
if (held[2] or '0-0') ~= ARGV[1] then return 0 end
if held[3] then return held[3] == ARGV[2] and 1 or 0 end
if before(held[1] or '0-0', ARGV[2]) then return 0 end
if #redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'archiving', ARGV[2])
return 1
"""
)
"""KEYS: cursor, log. ARGV: archived, end of the span. Answers 1 if the span is claimed. That the
log still holds its end says that it holds all of it: a server that lost writes lost the last."""
_FINISH: Final = Script(
    _BEFORE
    + """
local held = redis.call('HMGET', KEYS[1], 'cursor', 'archived', 'archiving')
if (held[2] or '0-0') ~= ARGV[1] or held[3] ~= ARGV[2] then return 0 end
if before(held[1] or '0-0', ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'archived', ARGV[2])
redis.call('HDEL', KEYS[1], 'archiving')
redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[2])
return 1
"""
)
"""KEYS: cursor, log. ARGV: archived before, and now. Trims what is archived; never what is not
applied. Answers 0, with nothing changed, if the span is no longer the claimed one."""

_log = structlog.get_logger(__name__)


class Archiver:
    """Moves entries from the log to the archive.

    Parameters
    ----------
    client
        Synchronous client.
    archive
        Where the parts go.
    settle_ms
        Entries younger than this stay in the log only: a store that may lose its last
        seconds on power loss (``appendfsync everysec``) then never lacks what is archived.
    """

    def __init__(self, client: Any, archive: Archive, *, settle_ms: int = 0) -> None:
        self._client = client
        self._archive = archive
        self._settle_ms = settle_ms
        self._next_compaction_s = 0.0
        self._archived = dict[int, LogPosition]()

    def run(self, partitions: Iterable[int]) -> int:
        """Archive what these partitions have applied and return the number of events."""
        events = 0
        for partition in partitions:
            # What is applied from now on is for the next run: else a busy log would be
            # archived in ever smaller parts.
            until = self._find_applied(partition)
            while (added := self._step(partition, until)) is not None:
                events += added
            found = self._client.hget(cursor_key(partition), "archived")
            self._archived[partition] = LogPosition.parse(found or b"0-0")
        self._compact()
        return events

    def _find_applied(self, partition: int) -> LogPosition:
        cursor, seconds, micros = _LOOK(self._client, [cursor_key(partition)], [])
        settled_ms = int(seconds) * 1000 + int(micros) // 1000 - self._settle_ms
        return min(LogPosition.parse(cursor), LogPosition(settled_ms, 2**64 - 1))

    def _step(self, partition: int, until: LogPosition) -> int | None:
        """Archive one span; None if nothing is left or another archiver was faster."""
        keys = [cursor_key(partition), log_key(partition)]
        found, claim = self._client.hmget(keys[0], "archived", "archiving")
        start = (found or b"0-0").decode()
        if claim is not None:  # an earlier archiver did not finish: do exactly that
            end = claim.decode()
            entries = self._read(partition, start, end, bounded=False)
        else:
            if until <= LogPosition.parse(start):
                return None
            entries = self._read(partition, start, str(until), bounded=True)
            if not entries:
                return None
            end = entries[-1][0].decode()
            if not _CLAIM(self._client, keys, [start, end]):
                return None

        span = Span(partition, LogPosition.parse(start), LogPosition.parse(end))
        with tombstones.publishing(self._archive.root.parent.parent) as erased:
            kept = list(_leave_out(decode(entries), erased))
            added = self._archive.extend(span, kept)
        return added if _FINISH(self._client, keys, [start, end]) else None

    def _read(self, partition: int, start: str, end: str, *, bounded: bool) -> list[LogEntry]:
        entries, size = list[LogEntry](), 0
        for entry in read_entries(self._client, log_key(partition), f"({start}", end):
            entries.append(entry)
            size += sum(map(len, entry[1].values()))
            if bounded and (len(entries) >= MAX_ENTRIES or size > MAX_BYTES):
                break
        return entries

    def _compact(self) -> None:
        if time.monotonic() < self._next_compaction_s:
            return
        self._next_compaction_s = time.monotonic() + COMPACT_EVERY_S
        try:
            replaced = compact(self._archive, self._archived)
        except Exception as error:  # noqa: BLE001 - many small parts are a nuisance, no danger
            _log.warning("compaction_failed", error=type(error).__name__)
            return
        if replaced:
            _log.info("compacted", parts=replaced)


def _leave_out(
    entries: Iterable[tuple[LogPosition, EventRecord]], erased: frozenset[str]
) -> Iterator[tuple[LogPosition, EventRecord]]:
    """Yield the entries of nobody erased; an erased anonymous id beside a user is not named."""
    for position, record in entries:
        if record.linked in erased:
            record.linked = None
        if record.user not in erased:
            yield position, record
