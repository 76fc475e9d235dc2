"""Dead letters: events that could not be applied, listed, tried again or dropped.

A letter lies in the stream ``{pNNN}dead``, put there by the commit that passed its entry. Its
entry stays in log and archive; it has no effect on any row, now or in a rebuild (`read_voided`).
Retrying appends the record to the log as a new entry, in the step that removes the letter.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec

from feature_repo.errors import InvalidInputError
from feature_repo.events.pseudonyms import partition_of
from feature_repo.events.schema import EventRecord
from feature_repo.online.connection import translated
from feature_repo.online.lua import Script
from services.event_log.entries import read_entries, read_entries_async
from services.event_log.keys import (
    SEEN_TTL_S,
    dedup_key,
    erased_key,
    log_key,
    owners_key,
    seen_keys,
    today,
    voided_key,
)
from services.event_log.links import is_claimed, move_event
from services.event_log.receipt import Position, stream_id
from services.event_log.unprofiled import ALL
from services.event_log.writer import APPEND, append_call

_UNBOUNDED: Final = 2**53

_RETRY: Final = Script("""
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 0 then return 'gone' end
if ARGV[4] ~= '' and redis.call('SISMEMBER', KEYS[4], ARGV[4]) == 1 then
  redis.call('XDEL', KEYS[1], ARGV[1])
  redis.call('SADD', KEYS[2], ARGV[2])
  return 'erased'
end
local owner = ARGV[7] == '1' and redis.call('HGET', KEYS[6], ARGV[4])
if owner and owner ~= '' then
  return '>' .. (string.match(owner, '>(.+)') or string.sub(owner, 1, #ARGV[4]))
end
local id = redis.call('XADD', KEYS[3], '*', 'e', ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[1])
redis.call('SADD', KEYS[2], ARGV[2])
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[5], ARGV[5], id)
  redis.call('EXPIRE', KEYS[5], ARGV[6])
end
return 'retried'
""")
"""KEYS: dead, voided, log, erased, seen today, owners. ARGV: letter, its entry, record, user, dedup
key, seconds for which ids are kept, '1' if the user is an anonymous id: one that has become a
user's is answered by '>' and that user. A client that sends the event again gets the new
receipt."""

_DROP: Final = Script("""
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then return 'gone' end
redis.call('SADD', KEYS[2], ARGV[2])
return 'dropped'
""")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that could not be applied.

    Attributes
    ----------
    id
        ``p012-<stream id>``: its name for `retry` and `drop`.
    entry
        Stream id of its entry in the log.
    reason
        Why it could not be applied.
    record
        The entry's payload.
    event
        The payload as an event; None if it does not decode.
    """

    id: str
    entry: str
    reason: str
    record: bytes
    event: EventRecord | None

    @property
    def partition(self) -> int:
        """Partition in whose log the entry stands."""
        return _parse(self.id)[0]


def letters(client: Any, partitions: Iterable[int], limit: int = 100) -> list[DeadLetter]:
    """Return up to ``limit`` letters, oldest first within a partition.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer.
    """
    all_there_are = (
        _letter(partition, *entry)
        for partition in partitions
        for entry in read_entries(client, _dead(partition))
    )
    with translated():
        return list(islice(all_there_are, limit))


async def find_letters(
    client: Any, partition: int, pseudonyms: Collection[str]
) -> AsyncIterator[DeadLetter]:
    """Yield a partition's letters that name one of some people, with an asyncio client.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer.
    """
    needles = [pseudonym.encode() for pseudonym in pseudonyms]
    with translated():
        async for name, fields in read_entries_async(client, _dead(partition), b"-"):
            if any(needle in fields[b"e"] for needle in needles):
                yield _letter(partition, name, fields)


def retry(client: Any, partitions: range, ids: Sequence[str] | None = None) -> dict[str, str]:
    """Append letters to the log again, each with its removal in one step.

    Killed midway and repeated, it never appends a letter twice. An event that was sent again
    by its client meanwhile is not doubled either: the log still knew its id.

    Parameters
    ----------
    partitions
        All there are; those looked at when ``ids`` is None.
    ids
        Letters by `DeadLetter.id`; None for all there are now.

    Returns
    -------
    dict
        For each letter ``retried``, ``erased`` (its user is: the letter is removed), ``gone``
        (there is no such letter), or ``unfit`` (no event of this partition: it would only die
        again, so it is left for `drop`).

    Raises
    ------
    InvalidInputError
        If an id is none of a letter.
    StoreUnavailableError
        If the store does not answer or refuses; the letters not yet named are untouched.
    """

    def one(letter: DeadLetter) -> str:
        event, partition = letter.event, letter.partition
        if event is None or partition_of(event.user) != partition:
            return "unfit"
        if event.linked is not None and client.sismember(
            erased_key(partition_of(event.linked)), event.linked
        ):
            return _drop(client, letter).replace("dropped", "erased")
        keys = [
            _dead(partition), voided_key(partition), log_key(partition), erased_key(partition),
            seen_keys(partition, today())[0], owners_key(partition),
        ]  # fmt: skip
        args = [
            _parse(letter.id)[1], letter.entry, letter.record, event.user, dedup_key(event),
            SEEN_TTL_S, "1" if event.anonymous else "",
        ]  # fmt: skip
        answer = str(_RETRY(client, keys, args).decode())
        return _move(client, letter, event, answer[1:]) if answer.startswith(">") else answer

    return _each(client, partitions, ids, one)


def drop(client: Any, partitions: range, ids: Sequence[str] | None = None) -> dict[str, str]:
    """Remove letters for good; see `retry`. Returns ``dropped`` or ``gone`` for each."""
    return _each(client, partitions, ids, lambda letter: _drop(client, letter))


def read_voided(client: Any, partition: int) -> set[Position]:
    """Return the entries of a partition's log and archive that have no effect on any row.

    Whoever folds history leaves them out: those whose letters lie dead, and those whose
    letters were retried (the event stands in the log again, further on) or dropped.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer.
    """
    with translated():
        # The letters first: one that is retried in between is then found in the set.
        dead = {stream_id(letter.entry) for letter in letters(client, [partition], limit=2**31)}
        return dead | {stream_id(entry) for entry in client.smembers(voided_key(partition))}


def _each(
    client: Any,
    partitions: range,
    ids: Sequence[str] | None,
    one: Callable[[DeadLetter], str],
) -> dict[str, str]:
    done = dict[str, str]()
    with translated():
        if ids is None:
            for partition in partitions:
                for letter in letters(client, [partition], limit=2**31):
                    done[letter.id] = one(letter)
            return done
        parsed = {name: _parse(name) for name in ids}
        for name, (partition, _) in parsed.items():
            if partition not in partitions:
                raise InvalidInputError(
                    f"{name} is of partition {partition}: there are {len(partitions)}, from 0"
                )
        for name, (partition, at) in parsed.items():
            found = client.xrange(_dead(partition), at, at)
            done[name] = one(_letter(partition, *found[0])) if found else "gone"
    return done


def _drop(client: Any, letter: DeadLetter) -> str:
    keys = [_dead(letter.partition), voided_key(letter.partition)]
    return str(_DROP(client, keys, [_parse(letter.id)[1], letter.entry]).decode())


def _move(client: Any, letter: DeadLetter, event: EventRecord, owner: str) -> str:
    """Append an anonymous id's event for the user to whom the id belongs, then drop the letter.

    Killed in between and repeated, the event is known already.
    """
    record, partition = move_event(event, owner), partition_of(owner)
    name, linked = dedup_key(record), record.linked
    entry = (partition, name, owner, record.encode(), linked, "", is_claimed(record), ALL, "")
    call = append_call(partition, [entry], lag_limit=_UNBOUNDED, replicas=0, cluster=False)
    answer = APPEND(client, *call)[0]
    dropped = _drop(client, letter)
    return dropped if dropped == "gone" else "erased" if answer == b"x" else "retried"


def _dead(partition: int) -> bytes:
    return b"{p%03d}dead" % partition


def _letter(partition: int, name: bytes, fields: dict[bytes, bytes]) -> DeadLetter:
    body = msgspec.msgpack.decode(fields[b"e"])
    try:
        event = EventRecord.decode(body["record"])
    except (msgspec.DecodeError, UnicodeDecodeError):
        event = None
    shown = f"p{partition:03d}-{name.decode()}"
    return DeadLetter(shown, body["entry"], body["reason"], body["record"], event)


def _parse(name: str) -> tuple[int, str]:
    head, _, at = name.partition("-")
    ms, dash, seq = at.partition("-")
    digits = (head[1:], ms, seq)
    if head[:1] != "p" or not dash or not all(d.isascii() and d.isdigit() for d in digits):
        raise InvalidInputError(
            f"{name[:60]!r} is no dead letter: use an id such as p012-1732391111111-0, as listed"
        )
    return int(head[1:]), at
