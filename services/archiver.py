"""Copies applied log entries to the archive, then lets the log go.

A range is claimed in Redis before its part is written: whoever continues after a crash
writes the same range under the same name, which changes nothing if it was there. Only what
is applied is archived, so archive and log up to the cursor are exactly what the rows hold.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from feature_repo.archive import Archive, LogPosition
from feature_repo.events import EventRecord
from services.log import cursor_key, log_key, stream_id

MAX_ENTRIES: Final = 20_000

_CLAIM: Final = """
local archived = redis.call('HGET', KEYS[1], 'archived') or '0-0'
if archived ~= ARGV[1] then return false end
local claimed = redis.call('HGET', KEYS[1], 'archiving')
if claimed then return claimed end
redis.call('HSET', KEYS[1], 'archiving', ARGV[2])
return ARGV[2]
"""
_FINISH: Final = """
local archived = redis.call('HGET', KEYS[1], 'archived') or '0-0'
if archived ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'archived', ARGV[2])
redis.call('HDEL', KEYS[1], 'archiving')
return redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[2])
"""


class Archiver:
    """Moves entries from the log to the archive.

    Parameters
    ----------
    client
        Synchronous client.
    archive
        Where the parts go.
    """

    def __init__(self, client: Any, archive: Archive) -> None:
        self._client = client
        self._archive = archive
        self._claim = client.register_script(_CLAIM)
        self._finish = client.register_script(_FINISH)

    def run(self, partitions: Iterable[int]) -> int:
        """Archive what these partitions have applied and return the number of events."""
        return sum(self._partition(partition) for partition in partitions)

    def _partition(self, partition: int) -> int:
        key, log = cursor_key(partition), log_key(partition)
        cursor, archived = (
            (value or b"0-0").decode() for value in self._client.hmget(key, "cursor", "archived")
        )
        if stream_id(cursor) <= stream_id(archived):
            return 0
        entries = self._client.xrange(log, f"({archived}", cursor, count=MAX_ENTRIES)
        if not entries:
            return 0
        claimed = self._claim(keys=[key], args=[archived, entries[-1][0]])
        if claimed is None:
            return 0  # another archiver was faster
        end = claimed.decode()
        if end != entries[-1][0].decode():  # an earlier claim was not finished: do exactly that
            entries = self._client.xrange(log, f"({archived}", end)
        records = decoded(entries)
        if records:
            self._archive.append(f"p{partition:03d}-{archived}-{end}", records)
        self._finish(keys=[key, log], args=[archived, end])
        return len(records)


def decoded(
    entries: Iterable[tuple[bytes, dict[bytes, bytes]]],
) -> list[tuple[LogPosition, EventRecord]]:
    """Return log entries as records; what does not decode is in the dead letters already."""
    records = []
    for entry_id, fields in entries:
        try:
            record = EventRecord.decode(fields[b"e"])
        except (KeyError, msgspec.DecodeError):
            continue
        records.append((LogPosition(*stream_id(entry_id)), record))
    return records
