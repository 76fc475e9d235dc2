"""Anonymous ids of the people who are erased: found, and their notes taken away.

A row lists the last few only, so the notes of all partitions are read, and for what a store that
was restored does not know, the archive.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any, Final

import duckdb

from feature_repo.archive.event_archive import Archive
from feature_repo.events.pseudonyms import partition_of
from feature_repo.online.connection import translated
from feature_repo.online.lua import Script
from services.event_log.keys import owners_key, unjoined_key, unlinking_key
from services.event_log.links import first_owner_of, owner_of

_CHANGE: Final = Script("""
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
if ARGV[3] == '-' then redis.call('HDEL', KEYS[1], ARGV[1])
else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return 1
""")
"""KEYS: owners. ARGV: anonymous id, its note as it was read, as it is to be; ``-``: none."""


def find_noted(client: Any, partitions: int, users: Collection[str]) -> dict[str, str]:
    """Return the anonymous ids that belong to ``users`` by the store's notes, with their owners.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer.
    """
    found = dict[str, str]()
    for partition in range(partitions):
        for anonymous, note in _notes(client, partition):
            owner, first = owner_of(note), first_owner_of(note)
            if owner in users:
                found[anonymous] = str(owner)
            elif owner is None and first is not None and first[0] in users:
                found[anonymous] = first[0]
    return found


def find_archived(archive: Archive, users: Collection[str]) -> dict[str, str]:
    """Return the anonymous ids that events of ``users`` in the archive name, with those users."""
    found = dict[str, str]()
    partitions: dict[int, list[str]] = defaultdict(list)
    for user in sorted(users):
        partitions[partition_of(user)].append(user)
    for partition, some in partitions.items():
        parts = [str(part) for part in archive.parts_of(partition)]
        if parts:
            with duckdb.connect() as connection:
                connection.execute("SET threads = 1; SET enable_progress_bar = false")
                rows = connection.execute(
                    'SELECT DISTINCT linked, "user" FROM read_parquet(?, union_by_name = true) '
                    'WHERE linked IS NOT NULL AND "user" IN (SELECT unnest(?::VARCHAR[]))',
                    [parts, some],
                ).fetchall()
            found |= dict(rows)
    return found


def forget_notes(client: Any, partitions: int, gone: Collection[str]) -> int:
    """Take away what the store notes of ``gone``, users and anonymous ids; return how much.

    What an anonymous id did before a link that was corrected since is the first user's, and whose
    it is now another's: the note keeps the one who stays.
    """
    changed = 0
    with translated():
        for partition in range(partitions):
            key = owners_key(partition)
            for anonymous, note in _notes(client, partition):
                kept = _without(anonymous, note, gone)
                if kept != note:
                    to_be = b"-" if kept is None else kept
                    changed += int(_CHANGE(client, [key], [anonymous, note, to_be]))
            for key in (unjoined_key(partition), unlinking_key(partition)):
                links = [
                    name
                    for name in client.smembers(key)
                    if any(one in gone for one in name.decode().split(" "))
                ]
                if links:
                    changed += int(client.srem(key, *links))
    return changed


def _without(anonymous: str, note: bytes, gone: Collection[str]) -> bytes | None:
    """Return a note without ``gone``, None if nothing is left of it."""
    owner, first = owner_of(note), first_owner_of(note)
    stays = owner is not None and owner not in gone
    if first is not None and first[0] in gone:
        return owner.encode() if stays and owner is not None else None
    if first is not None and not stays:  # the one who claimed it has what it did before
        return (first[0] + "+" * first[1]).encode()
    return None if anonymous in gone else note


def _notes(client: Any, partition: int) -> Iterator[tuple[str, bytes]]:
    with translated():
        for anonymous, note in client.hscan_iter(owners_key(partition), count=1000):
            yield anonymous.decode(), note
