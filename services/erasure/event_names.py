"""Ids of the events of people who are erased, as log and archive have them.

What is in the log when the tombstones are put comes into no archive.
"""

from collections import defaultdict
from collections.abc import Collection
from typing import Any, Final

import duckdb

from feature_repo.archive.event_archive import Archive
from feature_repo.events.pseudonyms import partition_of
from feature_repo.events.schema import EventRecord
from feature_repo.online.connection import translated
from services.event_log.entries import decode, read_entries
from services.event_log.keys import SEEN_TTL_S, dedup_key, log_key

_PAGE: Final = 10_000


def find_names(
    archive: Archive, people: Collection[str], now_ms: int
) -> tuple[dict[int, list[str]], set[tuple[str, str]]]:
    """Return by partition what makes their last events known again, and source and id of those.

    What is older than the store remembers is left out.
    """
    names: dict[int, list[str]] = defaultdict(list)
    keys = set[tuple[str, str]]()
    partitions: dict[int, list[str]] = defaultdict(list)
    for one in sorted(people):
        partitions[partition_of(one)].append(one)
    for partition, some in partitions.items():
        parts = [str(part) for part in archive.parts_of(partition)]
        if not parts:
            continue
        with duckdb.connect() as connection:
            connection.execute("SET threads = 1; SET enable_progress_bar = false")
            found = connection.execute(
                "SELECT record FROM read_parquet(?, union_by_name = true) "
                'WHERE "user" IN (SELECT unnest(?::VARCHAR[])) AND log_ms >= ?',
                [parts, some, now_ms - SEEN_TTL_S * 1000],
            )
            while rows := found.fetchmany(_PAGE):
                for (record,) in rows:
                    event = EventRecord.decode(record)
                    names[partition].append(dedup_key(event))
                    keys.add((event.source, event.id))
    return names, keys


def find_logged(
    client: Any, people: Collection[str]
) -> tuple[dict[int, list[str]], set[tuple[str, str]], dict[str, str]]:
    """Do what `find_names` does for the log; return the anonymous ids that users' events name too.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer.
    """
    names: dict[int, list[str]] = defaultdict(list)
    keys, linked = set[tuple[str, str]](), dict[str, str]()
    with translated():
        for partition in sorted({partition_of(one) for one in people}):
            for _, event in decode(read_entries(client, log_key(partition))):
                if event.user in people:
                    names[partition].append(dedup_key(event))
                    keys.add((event.source, event.id))
                    if event.linked is not None:
                        linked[event.linked] = event.user
    return names, keys, linked
