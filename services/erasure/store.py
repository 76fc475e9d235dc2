"""The store without some people: every key that may name them, one small step each.

Belongs here: what is looked through and taken away, each step safe to repeat. Rows go with the
tombstones (`graves`), anonymous ids with `anonymous_ids`, and the server's files are `disk`'s.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import orjson

from feature_repo.erasure.removal import Removal
from feature_repo.events.pseudonyms import partition_of
from feature_repo.online.connection import translated
from services.audiences.definitions import KEY, VERSION
from services.audiences.watch import CHANGES
from services.campaigns.keys import CAMPAIGNS, decisions_key, sent_key
from services.erasure.seen_digests import SeenDigests
from services.erasure.streams import rewrite_stream
from services.event_log import dead_letters
from services.event_log.entries import read_entries
from services.event_log.keys import SEEN_TTL_S, profiling_key, seen_keys, today

_PSEUDONYM: Final = re.compile(rb"\{p\d{3}\}[a-z2-7]{26}")
_NOBODY: Final = "{p000}" + "a" * 26
"""In the place of the last one of a list, which must not be empty."""
_ID_CHARACTERS: Final = 6
_PAGE: Final = 1000

_REPLACE: Final = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
if ARGV[4] ~= '' then redis.call('HINCRBY', KEYS[1], ARGV[4], 1) end
return 1
"""
"""KEYS: hash. ARGV: field, its value as it was read, as it is to be, a field that counts."""


def remove_letters(client: Any, partitions: int, gone: Collection[str]) -> Removal:
    """Drop the dead letters that name them, in their bytes too."""
    dropped = 0
    for partition in range(partitions):
        found = [
            letter.id
            for letter in dead_letters.letters(client, [partition], limit=2**31)
            if _names(letter.record, gone)
        ]
        dead_letters.drop(client, range(partitions), found)
        dropped += len(found)
        key = b"{p%03d}dead" % partition
        with translated():
            there = client.exists(key)
        if there:  # also what was dropped by one who was killed then
            rewrite_stream(client, key, ())
    return Removal("dead_letters", dropped, dropped)


def remove_seen(client: Any, names: Mapping[int, Sequence[str]], digests: SeenDigests) -> Removal:
    """Forget the ids of events, by partition: an id often holds a user's."""
    removed = 0
    digests.add(name.encode() for some in names.values() for name in some)
    with translated():
        for partition, some in names.items():
            keys = {*seen_keys(partition, today()), *seen_keys(partition, today() - 2)}
            for start in range(0, len(some), _PAGE):
                for key in sorted(keys):
                    removed += int(client.hdel(key, *some[start : start + _PAGE]))
    return Removal("seen_events", removed, removed)


def remove_seen_ids(
    client: Any, partitions: Collection[int], ids: Collection[str], digests: SeenDigests,
    now_ms: int,
) -> Removal:  # fmt: skip
    """Forget the ids of events that hold a user's id; what holds none goes by itself.

    And those that an earlier run removed, of which a store that was restored knows again.

    An id counts as a word of its own, and from `_ID_CHARACTERS` on: a shorter one stands in events
    of others too, which would be taken twice.
    """
    until_ms = now_ms + SEEN_TTL_S * 1000
    words = "|".join(re.escape(one) for one in sorted(ids) if len(one) >= _ID_CHARACTERS)
    wanted = re.compile(rf"(?<![^\W_])(?:{words})(?![^\W_])".encode()) if words else None
    found = dict[bytes, list[bytes]]()
    if wanted is not None or digests.known:
        with translated():
            for partition in sorted(partitions):
                for key in {*seen_keys(partition, today()), *seen_keys(partition, today() - 2)}:
                    found[key] = [
                        name
                        for name, _ in client.hscan_iter(key, count=_PAGE)
                        if (wanted is not None and wanted.search(name)) or digests.holds(name)
                    ]
    digests.add(name for names in found.values() for name in names)
    with translated():
        removed = sum(int(client.hdel(key, *names)) for key, names in found.items() if names)
    note = "ids of events that hold no id of the user stay until then"
    return Removal("seen_events", removed, removed, until_ms, note)


def remove_decisions(client: Any, gone: Collection[str]) -> Removal:
    """Take away what campaigns decided about them and sent them."""
    removed = 0
    with translated():
        for pseudonym in gone:
            removed += int(client.delete(decisions_key(pseudonym), sent_key(pseudonym)))
    return Removal("decisions", removed, removed)


def remove_from_definitions(client: Any, gone: Collection[str]) -> Removal:
    """Take them out of the lists of users that audiences and campaigns are defined by."""
    changed = 0
    with translated():
        for key, counter in ((KEY, VERSION), (CAMPAIGNS, b"")):
            for field, body in client.hgetall(key).items():
                if _names(body, gone):
                    new = orjson.dumps(_without(orjson.loads(body), gone))
                    changed += int(client.eval(_REPLACE, 1, key, field, body, new, counter))
    return Removal("definitions", changed, changed)


def remove_changes(client: Any, gone: Collection[str]) -> Removal:
    """Take them out of the stream of who entered and left audiences."""
    with translated():
        entries = [
            entry
            for entry, fields in read_entries(client, CHANGES.encode())
            if fields.get(b"user", b"").decode() in gone
        ]
    if entries:
        rewrite_stream(client, CHANGES.encode(), frozenset(entries))
    return Removal("audience_changes", len(entries), len(entries))


def _names(data: bytes, gone: Collection[str]) -> bool:
    return any(found.decode() in gone for found in set(_PSEUDONYM.findall(data)))


def _without(value: Any, gone: Collection[str]) -> Any:
    if isinstance(value, list):
        return [_without(one, gone) for one in value if not (isinstance(one, str) and one in gone)]
    if isinstance(value, dict):
        kept = {name: _without(one, gone) for name, one in value.items()}
        return kept | {"entities": [_NOBODY]} if kept.get("entities") == [] else kept
    return value


def forget_statements(client: Any, gone: Collection[str]) -> int:
    """Take what the append script knows of their consent out of the store; return how much."""
    removed = 0
    with translated():
        for entity in sorted(gone):
            key = profiling_key(partition_of(entity))
            removed += int(client.hdel(key, entity, f"gpc:{entity}"))
    return removed
