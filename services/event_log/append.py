"""Append: events go into the log, each at most once, many requests in one write.

Belongs here: everything that writes to a partition's stream before it is applied. Not here:
who may apply it (`update.lease`), what it does to a profile (`update.updater`).
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis
import structlog
from redis.exceptions import RedisClusterException

from feature_repo.errors import StoreUnavailableError
from feature_repo.events.schema import EventRecord
from feature_repo.events.types import find_types
from feature_repo.online.connection import in_our_words
from services.event_log.keys import dedup_key
from services.event_log.links import is_claimed, move_event
from services.event_log.receipt import Appended, stream_id
from services.event_log.unprofiled import keep
from services.event_log.writer import Entry, LogWriter
from services.runtime import workers

LAG_LIMIT: Final = 100_000
CALL_EVENTS: Final = 250
"""Events a script call takes: keeps the server's longest pause under a few ms."""
_YIELD_EVERY: Final = 50  # events written anew between which others get their turn
GROUP_EVENTS: Final = 2_000
GROUP_BYTES: Final = 8_000_000
"""What one group commit takes at most; a single request may be larger."""
WAITING_EVENTS: Final = 50_000
WAITING_BYTES: Final = 64_000_000
"""What may wait for the next group commits; more is refused at once."""
_STATEMENTS: Final = find_types("consent")
_Outcome = Appended | StoreUnavailableError

_log = structlog.get_logger(__name__)


class LogFullError(StoreUnavailableError):
    """A partition's log holds as many entries as it may: the updaters or the archive lag."""


class _Request:
    """Events that one caller waits for."""

    __slots__ = ("entries", "future", "size")

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.size = sum(len(entry[3]) for entry in self.entries)
        self.future: asyncio.Future[list[Appended]] = asyncio.get_running_loop().create_future()

    def settle(self, outcomes: Sequence[_Outcome]) -> None:
        """Tell the caller; one event that was not confirmed fails the whole request."""
        failed = next((one for one in outcomes if isinstance(one, Exception)), None)
        if self.future.done():
            return
        if failed is None:
            self.future.set_result([one for one in outcomes if isinstance(one, Appended)])
        else:
            self.future.set_exception(failed)
            self.future.exception()  # the caller may be gone: then nobody else looks


class Appender:
    """Appends events; calls that arrive while a write is under way share the next one.

    Parameters
    ----------
    client
        From `feature_repo.online.connection.connect_async`. A repeated append is harmless: the ids
        are known.
    lag_limit
        Entries that a partition's log may hold before new events are refused.
    wait_replicas
        Replicas that must hold a group of events before it is confirmed.
    profiled
        Whether users who said nothing about it may be profiled.
    check_room
        Raises `StoreUnavailableError` when the store has no room for more. What people say about
        consent is taken all the same, as long as the store itself takes it.

    Notes
    -----
    Deduplication is by (source, id) within a partition, so a repeated id is recognised for
    the same user, which is what a retry sends.
    """

    def __init__(
        self,
        client: Any,
        *,
        lag_limit: int = LAG_LIMIT,
        wait_replicas: int = 0,
        profiled: bool = True,
        check_room: Callable[[], None] = lambda: None,
    ) -> None:
        self._lag_limit = lag_limit
        self._check_room = check_room
        self._writer = LogWriter(
            client, lag_limit=lag_limit, wait_replicas=wait_replicas, profiled=profiled
        )
        self._waiting = deque[_Request]()
        self._events = 0
        self._bytes = 0
        self._flusher: asyncio.Task[None] | None = None

    async def append(self, records: Sequence[EventRecord]) -> list[Appended]:
        """Append ``records`` in order and return what became of each.

        The write goes on when the caller is cancelled. Events of one user keep their order.

        Raises
        ------
        LogFullError
            If a partition's log is full. Nothing is lost and nothing doubled when the whole
            request is repeated later.
        StoreUnavailableError
            If the log did not confirm, or too much waits for it already; some events may
            stand in it, so repeat with the same ids.
        """
        if not records:
            return []
        if not all(record.type in _STATEMENTS for record in records):
            self._check_room()
        request = _Request(await workers.READING.run_many(_entries, records))
        if self._waiting and (
            self._events + len(request.entries) > WAITING_EVENTS
            or self._bytes + request.size > WAITING_BYTES
        ):
            raise StoreUnavailableError(
                f"{self._events} events wait to be written, at most {WAITING_EVENTS} may: "
                "repeat the request in a moment"
            )
        self._waiting.append(request)
        self._events += len(request.entries)
        self._bytes += request.size
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return await asyncio.shield(request.future)

    async def _flush(self) -> None:
        while self._waiting:
            group = self._take(GROUP_EVENTS, GROUP_BYTES)
            entries = [entry for request in group for entry in request.entries]
            try:
                outcomes = await self._write(entries)
            except Exception as error:  # noqa: BLE001 - whatever it is, the callers must hear of it
                outcomes = [_to_unconfirmed_error(error)] * len(entries)
            failed = [o for o in outcomes if isinstance(o, Exception)]
            if failed:
                _log.warning("append_failed", events=len(failed), of=len(entries))
            if len(failed) == len(entries) and not any(isinstance(o, LogFullError) for o in failed):
                # The store is away: whoever waits already need not wait for that a second time.
                late = self._take(WAITING_EVENTS, WAITING_BYTES)
                group += late
                outcomes += [failed[0]] * sum(len(request.entries) for request in late)
            start = 0
            for request in group:
                end = start + len(request.entries)
                request.settle(outcomes[start:end])
                start = end

    def _take(self, events: int, size: int) -> list[_Request]:
        taken = list[_Request]()
        while self._waiting and (
            not taken or (len(self._waiting[0].entries) <= events and self._waiting[0].size <= size)
        ):
            request = self._waiting.popleft()
            events -= len(request.entries)
            size -= request.size
            self._events -= len(request.entries)
            self._bytes -= request.size
            taken.append(request)
        return taken

    async def _write(self, entries: list[Entry]) -> list[_Outcome]:
        outcomes: list[_Outcome | None] = [None] * len(entries)
        made = await self._link(entries, outcomes)
        # Anonymous ids first: what is to be written for the user that one belongs to is known
        # then, and keeps its place among the user's own events.
        anonymous = [n for n, e in enumerate(entries) if e[5] and outcomes[n] is None]
        owners = await self._in_order(anonymous, entries, outcomes)
        for n, (index, owner) in enumerate(owners.items()):
            if n % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
            entries[index] = _move(entries[index], owner)
        rest = [index for index, outcome in enumerate(outcomes) if outcome is None]
        await self._in_order(rest, entries, outcomes)
        if made:
            await self._take_back(made, entries, outcomes)
        return [one for one in outcomes if one is not None]

    async def _take_back(
        self, made: set[tuple[str, str]], entries: list[Entry], outcomes: list[_Outcome | None]
    ) -> None:
        """Take back the links that were made for erased users: nothing of them is kept."""
        vain = {
            (str(entry[4]), entry[2])
            for entry, one in zip(entries, outcomes, strict=True)
            if isinstance(one, Appended) and one.status == "erased"
        }
        if vain & made:
            await self._writer.unlink(sorted(vain & made))

    async def _link(
        self, entries: list[Entry], outcomes: list[_Outcome | None]
    ) -> set[tuple[str, str]]:
        """Link what events name together; an id that is another user's is left out of them.

        Returns the anonymous ids and users that were linked by it.
        """
        linking = [index for index, entry in enumerate(entries) if entry[4] is not None]
        pairs = list(
            dict.fromkeys((str(entries[n][4]), entries[n][2], entries[n][6]) for n in linking)
        )
        if not pairs:
            return set()
        owners = dict(zip(pairs, await self._writer.link(pairs), strict=True))
        made = set[tuple[str, str]]()
        for n, index in enumerate(linking):
            if n % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
            entry = entries[index]
            owner = owners[str(entry[4]), entry[2], entry[6]]
            if isinstance(owner, Exception):
                outcomes[index] = _to_unconfirmed_error(owner)
            elif owner is None:
                outcomes[index] = Appended(entry[0], (0, 0), "erased")
            elif owner[0] != entry[2]:
                entries[index] = _unlink(entry)
            elif owner[1]:
                if (pair := (str(entry[4]), entry[2])) in made:
                    continue
                made.add(pair)
                entries[index] = *entry[:7], *keep(EventRecord.decode(entry[3]), linking=True)
        return made

    async def _in_order(
        self, indices: Sequence[int], entries: list[Entry], outcomes: list[_Outcome | None]
    ) -> dict[int, str]:
        """Write entries and note what became of them; return the owners of those not taken."""
        queues: dict[int, deque[int]] = defaultdict(deque)
        for index in indices:
            queues[entries[index][0]].append(index)
        owners = dict[int, str]()
        # One call a partition at a time: were a later one done and an earlier one not, a
        # repeat would put a user's events into another order.
        while queues:
            waves = [
                (partition, [queue.popleft() for _ in range(min(CALL_EVENTS, len(queue)))])
                for partition, queue in queues.items()
            ]
            answers = await self._writer.write(
                [(partition, [entries[i] for i in some]) for partition, some in waves]
            )
            for (partition, some), answer in zip(waves, answers, strict=True):
                failure: _Outcome | None = None
                if isinstance(answer, Exception):
                    failure = _to_unconfirmed_error(answer)
                    for index in some:
                        outcomes[index] = failure
                else:
                    for index, text in zip(some, answer, strict=True):
                        if text[:1] == b">":
                            owners[index] = text[1:].decode()
                            continue
                        outcomes[index] = one = self._outcome(partition, text)
                        failure = failure or (one if isinstance(one, Exception) else None)
                if failure is not None:
                    for index in queues[partition]:
                        outcomes[index] = failure
                if failure is not None or not queues[partition]:
                    del queues[partition]
        return owners

    def _outcome(self, partition: int, answer: bytes) -> _Outcome:
        sign = answer[:1]
        if sign == b"+":
            return Appended(partition, stream_id(answer[1:]), "accepted")
        if sign == b"-":
            return Appended(partition, stream_id(answer[1:]), "accepted", kept=False)
        if sign == b"=":
            return Appended(partition, stream_id(answer[1:]), "duplicate")
        if sign == b"x":
            return Appended(partition, (0, 0), "erased")
        if sign == b"?":
            return StoreUnavailableError(
                "the store lost whose an anonymous id is, while an event of it was written: "
                "repeat the request with the same event ids"
            )
        return LogFullError(
            f"the log of partition {partition} holds {int(answer[1:])} entries, at most "
            f"{self._lag_limit} may wait there: repeat the request with the same event ids "
            "in a few seconds"
        )


def _entries(records: Sequence[EventRecord]) -> list[Entry]:
    return [
        (
            int(r.user[2:5]),
            dedup_key(r),
            r.user,
            r.encode(),
            r.linked,
            r.user if r.anonymous else "",
            is_claimed(r),
            *keep(r),
        )
        for r in records
    ]


def _move(entry: Entry, owner: str) -> Entry:
    """Return an anonymous id's event as the event of the user to whom the id belongs."""
    _, name, anonymous, payload, _, _, claim, *_ = entry
    record = move_event(EventRecord.decode(payload), owner)
    whole = record.encode()
    return int(owner[2:5]), name, owner, whole, anonymous, anonymous, claim, *keep(record)


def _unlink(entry: Entry) -> Entry:
    partition, name, user, payload, _, anonymous, claim, *_ = entry
    record = EventRecord.decode(payload)
    record.linked = None
    return partition, name, user, record.encode(), None, anonymous, claim, *keep(record)


def _to_unconfirmed_error(error: Exception) -> StoreUnavailableError:
    if isinstance(error, StoreUnavailableError):
        return error
    if not isinstance(error, redis.RedisError | RedisClusterException | OSError):
        _log.error("append_broke", exc_info=error)
    elif isinstance(error, redis.ResponseError):
        words = in_our_words(error)
        if words is not None:
            return words
        _log.error("append_refused", error=type(error).__name__)
    return StoreUnavailableError(
        f"the event log did not confirm the write ({type(error).__name__}): "
        "repeat the request with the same event ids"
    )
