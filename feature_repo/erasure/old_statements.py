"""Remains of old events: what they say about consent, and who an anonymous id became.

An event that is too old goes; a denial that it states still holds, and the shop has to be able to
prove a grant. Kept is the bare statement (`user_profile.consent.only_statements`), and of each
anonymous id the first event that names its user: a denial reaches both.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final

import duckdb
import pyarrow as pa

from feature_repo.archive.event_archive import Archive
from feature_repo.archive.event_table import SCHEMA, to_table
from feature_repo.archive.log_span import LogPosition
from feature_repo.events.schema import EventRecord
from feature_repo.events.types import find_types
from feature_repo.user_profile.consent import only_statements

TYPE: Final = "consent_updated"
"""Type of a bare statement."""
COLUMNS: Final = ("log_ms", "log_seq", "event_id", "record")
_STATING: Final = find_types("consent")

Position = tuple[int, int, str]
"""``(log_ms, log_seq, event_id)`` of an event."""


def read_first_links(archive: Archive, before_ms: int) -> frozenset[Position]:
    """Return the first events before a moment that name an anonymous id beside a user.

    Of those that a key of scope ``write`` claimed, and of those that are vouched for: the latter
    correct the former.
    """
    parts = [str(part) for part in archive.parts()]
    if not parts:
        return frozenset()
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2; SET enable_progress_bar = false; SET TimeZone = 'UTC'")
        connection.register("nothing", SCHEMA.empty_table())  # older parts lack newer columns
        rows = connection.execute(
            "SELECT min((log_ms, log_seq, event_id)) "
            "FROM (FROM read_parquet(?, union_by_name = true) UNION ALL BY NAME FROM nothing) "
            'WHERE linked IS NOT NULL AND time < ? GROUP BY "user", linked, '
            "anonymous OR coalesce(starts_with(key, 'write:'), false)",
            [parts, datetime.fromtimestamp(before_ms / 1000, UTC)],
        ).fetchall()
    return frozenset((ms, seq, name) for ((ms, seq, name),) in rows)


def reduce(table: pa.Table, links: Collection[Position]) -> pa.Table:
    """Return what stays of old events, with the columns of ``table``."""
    kept = list[tuple[LogPosition, EventRecord]]()
    for ms, seq, name, data in _rows(table):
        linking = (ms, seq, name) in links
        record = EventRecord.decode(data)
        if linking or record.consent is not None or record.type in _STATING:
            bare = only_statements(record, linking=linking)
            if bare is not None:
                kept.append((LogPosition(ms, seq), bare))
    return to_table(kept).select(table.column_names).cast(table.schema)


def count_bare(table: pa.Table, links: Collection[Position]) -> int:
    """Return how many old events are already what is to stay of them."""
    bare = 0
    for ms, seq, name, data in _rows(table):
        record, linking = EventRecord.decode(data), (ms, seq, name) in links
        stays = only_statements(record, linking=linking)
        bare += stays is not None and stays.encode() == data
    return bare


def _rows(table: pa.Table) -> Any:
    return zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)
