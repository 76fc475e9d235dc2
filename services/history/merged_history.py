"""Whole histories of users, those of the anonymous ids that became theirs included.

Belongs here: reading who owns an anonymous id and what it did, from store, log and archive.
Not here: in which order the events go (`feature_repo.user_profile.merged_history`), and when rows
are made of them (`update.linking` while events come in, `refolding` again).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import duckdb

from feature_repo.archive.event_archive import SCHEMA, Archive, LogPosition
from feature_repo.events.pseudonyms import partition_of
from feature_repo.online.connection import translated
from feature_repo.online.live_row import row_key
from feature_repo.online.lua import Script
from services.event_log.entries import decode, read_entries
from services.event_log.keys import erased_key, log_key, owners_key
from services.event_log.links import Placed, first_links, first_owner_of, is_claimed
from services.event_log.writer import LINK
from services.history.unlinking import read_unlinking
from services.history.users import PartitionHistory

_PAGE: Final = 1000
_OPEN: Final = Script("""
for n = 1, #ARGV do redis.call('HSETNX', KEYS[1], ARGV[n], '') end
""")
"""KEYS: owners. ARGV: anonymous ids that have events of their own."""


def owners_of(client: Any, anonymous: Collection[str]) -> dict[str, tuple[str, bool]]:
    """Return whose each anonymous id was first, and whether it had events of its own before.

    Those events stay with that user. Those that are nobody's are left out.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer.
    """
    by_partition: dict[int, list[str]] = defaultdict(list)
    for pseudonym in sorted(anonymous):
        by_partition[partition_of(pseudonym)].append(pseudonym)
    found = dict[str, tuple[str, bool]]()
    with translated(), client.pipeline(transaction=False) as pipe:
        for partition, pseudonyms in by_partition.items():
            pipe.hmget(owners_key(partition), pseudonyms)
        for pseudonyms, values in zip(by_partition.values(), pipe.execute(), strict=True):
            for pseudonym, value in zip(pseudonyms, values, strict=True):
                owner = first_owner_of(value)
                if owner is not None:
                    found[pseudonym] = owner
    return found


class LinkedHistory:
    """Joins the histories of users and of the anonymous ids that are theirs.

    Parameters
    ----------
    client
        Synchronous client.
    archive
        Where the parts lie.
    """

    def __init__(self, client: Any, archive: Archive) -> None:
        self._client = client
        self._archive = archive

    def theirs(
        self, histories: Mapping[str, Sequence[Placed]]
    ) -> dict[str, dict[str, list[Placed]]]:
        """Return by user the events of each anonymous id that the history names and is theirs.

        Parameters
        ----------
        histories
            The users' own events, in log order.

        Raises
        ------
        StoreUnavailableError
            If the store does not answer.
        PortraitError
            If a part of the archive cannot be read.
        """
        named = {user: first_links(events) for user, events in histories.items()}
        owners = owners_of(self._client, {a for links in named.values() for a in links})
        found = self._read({a for a, (_, had_events) in owners.items() if had_events})
        return {
            user: {a: found[a] for a in links if a in found and owners[a][0] == user}
            for user, links in named.items()
        }

    def _read(self, anonymous: Collection[str]) -> dict[str, list[Placed]]:
        by_partition: dict[int, list[str]] = defaultdict(list)
        for pseudonym in sorted(anonymous):
            by_partition[partition_of(pseudonym)].append(pseudonym)
        found = dict[str, list[Placed]]()
        for partition, pseudonyms in by_partition.items():
            with translated():
                gone = self._client.smismember(erased_key(partition), pseudonyms)
            kept = [
                pseudonym for pseudonym, erased in zip(pseudonyms, gone, strict=True) if not erased
            ]
            found |= PartitionHistory(self._client, self._archive, partition).all(kept)
        return found


def restore_owners(client: Any, archive: Archive, partitions: int) -> None:
    """Note in the store what log and archive say about anonymous ids, unless it knows already.

    What a store that was lost knew, and what history that was imported says. The earliest event
    that names a user beside an anonymous id decides, and the earliest that is vouched for
    corrects it.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer.
    """
    links = dict[tuple[str, bool], tuple[LogPosition, str]]()
    own, undoing = set[str](), read_unlinking(client, partitions)
    for position, user, anonymous, linked, claim in (
        *_read_log(client, partitions), *_read_archive(archive)
    ):  # fmt: skip
        if linked is not None:
            if (user, linked) in undoing:
                continue
            at = (position, user)
            links[linked, claim] = min(links.get((linked, claim), at), at)
        elif anonymous:
            own.add(user)
    marked: dict[int, list[str]] = defaultdict(list)
    for pseudonym in sorted(own):
        marked[partition_of(pseudonym)].append(pseudonym)
    with translated():
        for partition, pseudonyms in marked.items():
            for start in range(0, len(pseudonyms), _PAGE):
                _OPEN(client, [owners_key(partition)], pseudonyms[start : start + _PAGE])
        for (pseudonym, claim), (_, user) in sorted(links.items(), key=lambda link: link[1]):
            note_owner(client, pseudonym, user, claim=claim)


def note_owner(client: Any, anonymous: str, user: str, *, claim: bool) -> None:
    """Note in the store whose an anonymous id is, unless it knows already.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer.
    """
    partition = partition_of(anonymous)
    keys = [erased_key(partition), owners_key(partition), row_key(anonymous)]
    with translated():
        LINK(client, keys, [anonymous, user, "~" if claim else ""])


_Named = tuple[LogPosition, str, bool, str | None, bool]


def _read_log(client: Any, partitions: int) -> Iterable[_Named]:
    for partition in range(partitions):
        with translated():
            for position, record in decode(read_entries(client, log_key(partition))):
                if record.anonymous or record.linked is not None:
                    # One of the anonymous id's own, written for its user, vouches for nothing.
                    claim = record.anonymous or is_claimed(record)
                    yield position, record.user, record.anonymous, record.linked, claim


def _read_archive(archive: Archive) -> Iterable[_Named]:
    if archive.empty():
        return
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2; SET enable_progress_bar = false")
        connection.register("nothing", SCHEMA.empty_table())  # older parts lack newer columns
        rows = connection.execute(
            'SELECT min((log_ms, log_seq)), "user", bool_or(anonymous), linked, '
            "anonymous OR coalesce(starts_with(key, 'write:'), false) AS claim "
            "FROM (FROM read_parquet(?, union_by_name = true) UNION ALL BY NAME FROM nothing) "
            'WHERE anonymous OR linked IS NOT NULL GROUP BY "user", linked, claim',
            [archive.glob()],
        ).fetchall()
    for (ms, seq), user, anonymous, linked, claim in rows:
        yield LogPosition(ms, seq), user, bool(anonymous), linked, bool(claim)
