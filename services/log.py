"""The event log: append with deduplication, receipts, and the names of its keys.

Belongs here: everything that writes to a partition's stream before it is applied. Not here:
who may apply it (`lease`), what it does to a profile (`updater`).
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
import redis.asyncio

from feature_repo.entity import partition_of
from feature_repo.errors import InvalidInputError, StoreUnavailableError
from feature_repo.events import DEDUP_WINDOW_MS, EventRecord

DAY_MS: Final = 86_400_000
_DAYS_BACK: Final = DEDUP_WINDOW_MS // DAY_MS
_SEEN_TTL_S: Final = (_DAYS_BACK + 2) * 86_400
_CHUNK: Final = 250  # events a script call: keeps the server's longest pause under a few ms

APPEND: Final = """
local answer = {}
for i = 2, #ARGV, 2 do
  local known = false
  for k = 2, #KEYS do
    known = redis.call('HGET', KEYS[k], ARGV[i])
    if known then break end
  end
  if known then
    answer[#answer + 1] = '=' .. known
  else
    local id = redis.call('XADD', KEYS[1], '*', 'e', ARGV[i + 1])
    redis.call('HSET', KEYS[2], ARGV[i], id)
    answer[#answer + 1] = '+' .. id
  end
end
redis.call('EXPIRE', KEYS[2], ARGV[1])
return answer
"""
"""KEYS: log, seen today, seen on the days before and (clocks differ) tomorrow. ARGV: ttl, then
pairs of dedup key and payload. Answers ``+id`` for a new entry, ``=id`` for a known one."""


def log_key(partition: int) -> bytes:
    """Return the stream of a partition."""
    return b"{p%03d}log" % partition


def cursor_key(partition: int) -> bytes:
    """Return the hash with ``cursor`` (applied) and ``archived``, both stream ids."""
    return b"{p%03d}cursor" % partition


def applied_channel(partition: int) -> bytes:
    """Return the channel on which every commit announces its cursor."""
    return b"{p%03d}applied" % partition


def _seen_keys(partition: int, day: int) -> list[bytes]:
    days = [day, *(day - back for back in range(1, _DAYS_BACK + 1)), day + 1]
    return [b"{p%03d}seen:%d" % (partition, each) for each in days]


def stream_id(text: str | bytes) -> tuple[int, int]:
    """Return a stream id as a pair that compares like the id.

    Examples
    --------
    >>> stream_id("1700000000000-3") < stream_id(b"1700000000000-12")
    True
    """
    ms, seq = (text.decode() if isinstance(text, bytes) else text).split("-")
    return int(ms), int(seq)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A consistency token: for each partition named, the last entry a reader must see.

    Examples
    --------
    >>> Receipt.parse("p012-1732391111111-0").positions
    {12: (1732391111111, 0)}
    >>> str(Receipt({3: (5, 0), 1: (7, 1)}))
    'p001-7-1,p003-5-0'
    """

    positions: dict[int, tuple[int, int]]

    @classmethod
    def parse(cls, text: str) -> "Receipt":
        """Read the text form.

        Raises
        ------
        InvalidInputError
            If ``text`` is no receipt.
        """
        positions = dict[int, tuple[int, int]]()
        for part in text.split(","):
            fields = part.split("-")
            if (
                len(fields) != 3
                or len(part) > 48
                or fields[0][:1] != "p"
                or not all(f.isascii() and f.isdigit() for f in (fields[0][1:], *fields[1:]))
            ):
                raise InvalidInputError(
                    f"{text[:60]!r} is not a receipt: pass the one that an accepted event returned"
                )
            positions[int(fields[0][1:])] = (int(fields[1]), int(fields[2]))
        return cls(positions)

    def __str__(self) -> str:
        return ",".join(f"p{p:03d}-{m}-{s}" for p, (m, s) in sorted(self.positions.items()))


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an event stands in the log; ``duplicate`` if it stood there before."""

    partition: int
    position: tuple[int, int]
    duplicate: bool

    @property
    def receipt(self) -> Receipt:
        """Receipt of this one event."""
        return Receipt({self.partition: self.position})


def merged(appended: Iterable[Appended]) -> Receipt:
    """Return one receipt for several events: the last entry of each partition."""
    positions = dict[int, tuple[int, int]]()
    for one in appended:
        positions[one.partition] = max(one.position, positions.get(one.partition, (0, 0)))
    return Receipt(positions)


class Appender:
    """Appends events; calls that arrive while a write is under way share the next one.

    Parameters
    ----------
    client
        Must not retry by itself: a repeated append is harmless (the ids are known) but slow.

    Notes
    -----
    Deduplication is by (source, id) within a partition, so a repeated id is recognised for
    the same user, which is what a retry sends.
    """

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        self._client = client
        self._script = client.register_script(APPEND)
        self._waiting: list[tuple[Sequence[EventRecord], asyncio.Future[list[Appended]]]] = []
        self._flusher: asyncio.Task[None] | None = None

    async def append(self, records: Sequence[EventRecord]) -> list[Appended]:
        """Append ``records`` in order and return where each stands.

        The write goes on when the caller is cancelled. Events of one user keep their order.

        Raises
        ------
        StoreUnavailableError
            If the log did not confirm; some events may stand in it, so repeat with the same ids.
        """
        future: asyncio.Future[list[Appended]] = asyncio.get_running_loop().create_future()
        self._waiting.append((records, future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return await asyncio.shield(future)

    async def _flush(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                placed = await self._write([r for records, _ in group for r in records])
            except (redis.RedisError, OSError) as error:
                for _, future in group:
                    if not future.done():
                        future.set_exception(_unavailable(error))
                        future.exception()  # the caller may be gone: then nobody else looks
                continue
            start = 0
            for records, future in group:
                if not future.done():
                    future.set_result(placed[start : start + len(records)])
                start += len(records)

    async def _write(self, records: list[EventRecord]) -> list[Appended]:
        by_partition: dict[int, list[int]] = defaultdict(list)
        for index, record in enumerate(records):
            by_partition[partition_of(record.user)].append(index)
        day = time.time_ns() // 1_000_000 // DAY_MS
        calls = [
            (partition, indices[start : start + _CHUNK])
            for partition, indices in by_partition.items()
            for start in range(0, len(indices), _CHUNK)
        ]
        answers = await self._call(day, calls, records)
        placed: list[Appended | None] = [None] * len(records)
        for (partition, indices), answer in zip(calls, answers, strict=True):
            for index, entry in zip(indices, answer, strict=True):
                placed[index] = Appended(partition, stream_id(entry[1:]), entry[:1] == b"=")
        return [one for one in placed if one is not None]

    async def _call(
        self, day: int, calls: list[tuple[int, list[int]]], records: list[EventRecord]
    ) -> list[list[bytes]]:
        prepared = [
            (
                [log_key(partition), *_seen_keys(partition, day)],
                [_SEEN_TTL_S, *_pairs(records[index] for index in indices)],
            )
            for partition, indices in calls
        ]
        if len(prepared) == 1:
            keys, arguments = prepared[0]
            only: list[bytes] = await self._script(keys=keys, args=arguments)
            return [only]
        async with self._client.pipeline(transaction=False) as pipe:
            for keys, arguments in prepared:
                await self._script(keys=keys, args=arguments, client=pipe)
            answers: list[list[bytes]] = await pipe.execute()
        return answers


def _pairs(records: Iterable[EventRecord]) -> list[Any]:
    pairs = list[Any]()
    for record in records:
        pairs += (f"{record.source}\x1f{record.id}", record.encode())
    return pairs


def _unavailable(error: Exception) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"the event log did not confirm the write ({type(error).__name__}): "
        "repeat the request with the same event ids"
    )
