"""Consent statements as rows that the index asks: by user, purpose and time.

They come to what the live profile holds (`feature_repo.user_profile.consent`), links included
(`user_profile.merged_history`), now and as of a moment. Not here: which of them holds (`tables`).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import Any, Final

import msgspec
import orjson
import pyarrow as pa

from feature_repo.archive.event_archive import LogPosition
from feature_repo.events.schema import EventRecord
from feature_repo.user_profile.consent import (
    MAX_PURPOSES,
    NAMED,
    count_own,
    counted_ms,
    expiry_of,
    parse_statements,
    read_statements,
    spellings,
)
from feature_repo.user_profile.merged_history import Placed, find_overruled, order_events

SCHEMA: Final = pa.schema(
    [("u", pa.int32()), ("purpose", pa.string()), ("granted", pa.bool_()), ("at_s", pa.int64()),
     ("from_ms", pa.int64()), ("until_ms", pa.int64()), ("ends_s", pa.int64())]
)  # fmt: skip
"""``at_s`` is when it counts from, ``from_ms`` since when it is known of this user, ``until_ms``
the link that took it away, null for none, ``ends_s`` when a grant expires, 0 for never."""
Row = tuple[int, str, bool, int, int, int | None, int]

_STATING: Final = (
    "(consent IS NOT NULL OR type = 'message_unsubscribed' "
    "OR (type = 'consent_updated' AND properties IS NOT NULL))"
)
_ALL: Final = f"""
SELECT u, type, consent, properties, channel,
    least(epoch_ms(time), coalesce(nullif(epoch_ms(received), 0), epoch_ms(time)))
FROM archive_events JOIN users ON entity = "user" WHERE {_STATING}
ORDER BY log_ms, log_seq, event_id
"""
_LINKS: Final = f"""
SELECT linked, arg_min("user", (log_ms, log_seq, event_id)) FROM archive_events
WHERE linked IN (SELECT "user" FROM archive_events WHERE anonymous AND {_STATING}) GROUP BY linked
"""
"""Anonymous ids that said something, and whose they became."""
_RECORDS: Final = f"""
SELECT u, "user", log_ms, log_seq, record FROM archive_events JOIN users ON entity = "user"
WHERE "user" IN (SELECT unnest(?)) AND (linked IS NOT NULL OR {_STATING})
ORDER BY log_ms, log_seq, event_id
"""


def statements(connection: Any) -> list[Row]:
    """Return every statement of every user in ``archive_events``; see `SCHEMA`."""
    owners = dict(connection.execute(_LINKS).fetchall())
    linked = list(_of_linked(connection, owners))
    known = {row[0] for row in linked}
    own = _of_others(connection, known)
    return [*_bound_rows(own), *_bound_rows(linked)]


def _of_others(connection: Any, known: Collection[int]) -> Iterator[Row]:
    """Yield the statements of those who are not ``known``."""
    for u, type_, consent, text, channel, at_ms in connection.execute(_ALL).fetchall():
        if u in known:
            continue
        properties = _json(text)
        told = parse_statements(type_, _json(consent), properties, channel)
        for purpose, granted in told.items():
            if isinstance(granted, bool):
                ends_s = expiry_of(properties, purpose) if granted else 0
                yield u, purpose, granted, at_ms // 1000, at_ms, None, ends_s


def _of_linked(connection: Any, owners: dict[str, str]) -> Iterator[Row]:
    """Yield the statements of users to whom anonymous ids came that had said something."""
    histories: dict[str, list[Placed]] = defaultdict(list)
    numbers = dict[str, int]()
    wanted = sorted({*owners, *owners.values()})
    for u, user, ms, seq, record in connection.execute(_RECORDS, [wanted]).fetchall():
        numbers[user] = u
        with suppress(msgspec.DecodeError):  # an older archive's: it stops no answer
            histories[user].append((LogPosition(ms, seq), EventRecord.decode(record)))
    for owner in sorted(set(owners.values())):
        named = {event.linked for _, event in histories[owner]}
        theirs = {a: histories[a] for a, user in owners.items() if user == owner and a in named}
        both = order_events(histories[owner], theirs)
        links = dict[str, int]()
        for _, event in both:
            if event.linked is not None:
                links.setdefault(event.linked, counted_ms(event))
        lost = find_overruled(both)
        for index, (anonymous, event) in enumerate(both):
            at_ms = counted_ms(event)
            since_ms = at_ms if anonymous is None else max(at_ms, links[anonymous])
            for purpose, granted in read_statements(event).items():
                link = lost.get(index, {}).get(spellings(purpose)[0]) if granted else None
                until_ms = None if link is None else counted_ms(both[link][1])
                ends_s = expiry_of(event.properties, purpose) if granted else 0
                yield numbers[owner], purpose, granted, at_ms // 1000, since_ms, until_ms, ends_s


def _bound_rows(rows: Iterable[Row]) -> Iterator[Row]:
    """Leave out what a profile has no room for."""
    known: dict[int, set[str]] = defaultdict(set)
    for row in rows:
        u, purpose, granted, at_s, from_ms, until_ms, ends_s = row
        purposes = known[u]
        if purpose in NAMED or purpose in purposes or count_own(purposes) < MAX_PURPOSES:
            if until_ms is None:
                purposes.add(purpose)
            yield row
        elif not granted:
            for name in purposes.intersection(spellings(purpose)):
                yield u, name, granted, at_s, from_ms, until_ms, ends_s


def _json(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)
