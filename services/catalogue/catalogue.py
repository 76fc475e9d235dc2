"""The catalogue in service: the store's hash of items and each gateway's copy in memory.

Belongs here: keeping the two alike. Writes go to the store, are announced, and every
gateway takes the named items up; a version number tells one that missed an announcement.
Beside the items the store keeps when an item was first put and which were deleted: a deleted
item may live on in a model's vocabulary, and must not be offered.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
import redis
import structlog

from feature_repo.archive.catalogue import Item, load_catalogue
from feature_repo.errors import ConflictError
from feature_repo.events.schema import EventRecord, ItemRecord
from services.catalogue import vectors
from services.runtime import workers
from services.runtime.tasks import end

KEY: Final = "portrait:catalogue"
VERSION_KEY: Final = "portrait:catalogue:version"
ADDED_KEY: Final = "portrait:catalogue:added"
"""Hash of item id to epoch milliseconds of its first PUT; imported items are not in it."""
REMOVED_KEY: Final = "portrait:catalogue:removed"
CHANGED: Final = b"portrait:catalogue:changed"
_CHECK_S: Final = 5.0
_PAGE: Final = 2000
_STEP: Final = 100
_SCANNED: Final = 500
_JOURNAL: Final = 10_000
_ATTEMPTS: Final = 50  # of one request: every round somebody's change is taken
_SWAP: Final = """
local moved = {}
for n = 1, #ARGV, 3 do
  if redis.call('HGET', KEYS[1], ARGV[n]) == ARGV[n + 1] then
    redis.call('HSET', KEYS[1], ARGV[n], ARGV[n + 2])
  else
    moved[#moved + 1] = ARGV[n]
  end
end
return moved
"""
"""KEYS: the items. ARGV: id, body that was read, new body. Answers with the ids of those that are
another by now, which stay as they are."""

Change = tuple[str, Callable[[Item], Item]]
Stored = tuple[bytes | None, bytes | None]
"""Body and vector of an item."""

_log = structlog.get_logger(__name__)


class Entry(msgspec.Struct, gc=False):
    """What serving needs of an `Item` beside its vector."""

    item_id: str
    title: str | None = None
    category: str | None = None
    brand: str | None = None
    price: float | None = None
    currency: str | None = None
    in_stock: bool = True
    available_from: int | None = None
    is_merchandise: bool = True


_entry = msgspec.json.Decoder(Entry)


class Catalogue:
    """A gateway's copy of the catalogue; the client is asyncio's."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._changed: asyncio.Queue[bytes] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._version = -1
        self._check_at_s = 0.0
        self._journal = deque[tuple[int, str]](maxlen=_JOURNAL)
        self._written = set[str]()
        self.entries: dict[str, Entry] = {}
        self.vectors = vectors.Vectors()
        self.removed = set[str]()
        self.added_ms: dict[str, int] = {}
        self.changes = 0
        self.loaded = False

    async def start(self) -> None:
        """Load the catalogue if the store answers, then follow it in the background."""
        with contextlib.suppress(redis.RedisError, OSError):
            version = int(await self._client.get(VERSION_KEY) or 0)
            await self._load()
            self._version = version
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Stop following."""
        await end(self._task)

    def announce(self, data: bytes) -> None:
        """Take note of changed ids (a JSON list), as published on `CHANGED`."""
        self._changed.put_nowait(data)

    def title(self, item_id: str) -> str:
        """Return the shown name of an item."""
        entry = self.entries.get(item_id)
        return (entry.title if entry is not None else None) or "Product " + item_id

    async def get(self, item_id: str) -> Item | None:
        """Return an item as it stands in the store."""
        return _to_item(*(await self._find([item_id]))[item_id])

    async def find_vector_length(self) -> int | None:
        """Return how many numbers the catalogue's vectors have, None if there are none."""
        return await vectors.find_length(self._client)

    async def _find(self, ids: list[str]) -> dict[str, Stored]:
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.hmget(KEY, ids)
            pipe.hmget(vectors.KEY, ids)
            return dict(zip(ids, zip(*await pipe.execute(), strict=True), strict=True))

    def since(self, changes: int) -> list[str] | None:
        """Return the ids changed since `changes` had this value; None if not all are known."""
        missing = self.changes - changes
        if missing > len(self._journal):
            return None
        found = [each for each in self._journal if each[0] > changes]
        return [item_id for _, item_id in found] if len(found) == missing else None

    async def put(self, items: Iterable[Item], now_ms: int) -> None:
        """Store items and announce them; this gateway knows them on return.

        Parameters
        ----------
        now_ms
            Kept as the time of the first put, epoch milliseconds.
        """
        given = list(items)
        if len(given) == 1:
            bodies = _all_dumped(given)
        else:
            bodies = await workers.READING.run(_all_dumped, given)
        found = {item.item_id: item.vector for item in given}
        names = list(bodies)
        for start in range(0, len(names), _STEP):  # between which others get their turn
            some = names[start : start + _STEP]
            await self._put({i: bodies[i] for i in some}, {i: found[i] for i in some}, now_ms)

    async def _put(
        self, bodies: dict[str, bytes], found: dict[str, bytes | None], now_ms: int
    ) -> None:
        if new := {item: vector for item, vector in found.items() if vector}:
            await vectors.store(self._client, new)
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.hset(KEY, mapping=bodies)
            if bare := found.keys() - new.keys():
                pipe.hdel(vectors.KEY, *bare)
            for item_id in bodies.keys() - self.entries.keys():
                pipe.hsetnx(ADDED_KEY, item_id, now_ms)
            pipe.srem(REMOVED_KEY, *bodies)
            self._announce(pipe, list(bodies))
            await pipe.execute()
        self._written |= bodies.keys()
        for item_id, body in bodies.items():
            if item_id not in self.entries:
                self.added_ms.setdefault(item_id, now_ms)
            self._take(item_id, body)
        self.vectors.take(found)

    async def patch(self, changes: Sequence[Change]) -> list[Item | None]:
        """Change items, each from what it is in the store at that moment; announce them.

        Parameters
        ----------
        changes
            Item ids, and what makes the new item of the present one; an exception of it ends
            everything with nothing changed that is not changed already.

        Returns
        -------
        list
            The new items; None where the catalogue has none of the id.

        Raises
        ------
        ConflictError
            If others kept changing the same items.
        InvalidInputError
            If a vector has another length than the catalogue's.
        """
        made: list[Item | None] = [None] * len(changes)
        left = list(range(len(changes)))
        for _ in range(_ATTEMPTS):
            left = await self._patch(changes, left, made)
            if not left:
                return made
        raise ConflictError(f"{changes[left[0]][0]} is being changed by others: try again")

    async def _patch(
        self, changes: Sequence[Change], which: Sequence[int], made: list[Item | None]
    ) -> list[int]:
        """Try some of the changes, and return those to be tried again."""
        ids = list(dict.fromkeys(changes[n][0] for n in which))
        found = await self._find(ids)
        some = [changes[n] for n in which]
        if len(some) == 1:
            items, wanted, changed = _change(some, found)
        else:
            items, wanted, changed = await workers.READING.run(_change, some, found)
        for n, item in zip(which, items, strict=True):
            made[n] = item
        if not wanted:
            return []
        pairs = [part for i, new in wanted.items() for part in (i, found[i][0], new)]
        if new := {i: vector for i, vector in changed.items() if vector}:
            await vectors.store(self._client, new)
        async with self._client.pipeline(transaction=False) as pipe:
            if bare := changed.keys() - new.keys():
                pipe.hdel(vectors.KEY, *bare)
            pipe.eval(_SWAP, 1, KEY, *pairs)
            self._announce(pipe, list(wanted))
            moved = {each.decode() for each in (await pipe.execute())[-3]}
        for item_id, body in wanted.items():
            if item_id not in moved:
                self._written.add(item_id)
                self._take(item_id, body)
        self.vectors.take(changed)
        return [n for n in which if changes[n][0] in moved]

    async def delete(self, item_id: str) -> bool:
        """Remove an item and say whether it was there."""
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.hdel(KEY, item_id)
            pipe.hdel(ADDED_KEY, item_id)
            pipe.hdel(vectors.KEY, item_id)
            pipe.sadd(REMOVED_KEY, item_id)
            self._announce(pipe, [item_id])
            removed = (await pipe.execute())[0]
        self._written.add(item_id)
        self._take(item_id, None)
        self.vectors.take({item_id: None})
        return bool(removed)

    def enrich(self, record: EventRecord) -> None:
        """Fill in what the event leaves open about its items, so that the log stands alone."""
        if record.items and self.entries:
            record.items = [self._fill(item) for item in record.items]

    def _fill(self, item: ItemRecord) -> ItemRecord:
        entry = self.entries.get(item.item_id)
        if entry is None or (item.category and item.brand and item.price is not None):
            return item
        return msgspec.structs.replace(
            item,
            category=item.category or entry.category,
            brand=item.brand or entry.brand,
            price=entry.price if item.price is None else item.price,
            currency=entry.currency if item.price is None and entry.price else item.currency,
        )

    def _announce(self, pipe: Any, ids: list[str]) -> None:
        pipe.incr(VERSION_KEY)
        pipe.execute_command("PUBLISH", CHANGED, orjson.dumps(ids))  # a cluster's refuses publish()

    async def _follow(self) -> None:
        while True:
            try:
                await self._keep_up()
            except (redis.RedisError, OSError) as error:
                _log.warning("catalogue_unread", error=type(error).__name__)
                await asyncio.sleep(0.5)

    async def _keep_up(self) -> None:
        # What is announced is counted one by one: only where nothing waits can it fall short.
        if self._changed.empty() and time.monotonic() >= self._check_at_s:
            version = int(await self._client.get(VERSION_KEY) or 0)
            self._check_at_s = time.monotonic() + _CHECK_S
            if version != self._version:
                await self._load()
                self._version = version
        try:
            ids = orjson.loads(await asyncio.wait_for(self._changed.get(), _CHECK_S))
        except TimeoutError:
            return
        if not ids:  # a bulk load: everything may have changed
            self._check_at_s = 0.0
            return
        self._written.clear()
        for start in range(0, len(ids), _STEP):  # between which others get their turn
            await self._read(ids[start : start + _STEP])
        self._version += 1

    async def _read(self, ids: list[str]) -> None:
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.hmget(KEY, ids)
            pipe.hmget(ADDED_KEY, ids)
            pipe.hmget(vectors.KEY, ids)
            bodies, added, found = await pipe.execute()
        read = dict[str, bytes | None]()
        for item_id, body, moment, vector in zip(ids, bodies, added, found, strict=True):
            if item_id in self._written:  # put or deleted here while the answer was on its way
                continue
            if moment is not None:
                self.added_ms[item_id] = int(moment)
            self._take(item_id, body)
            read[item_id] = vector
        self.vectors.take(read)

    def _take(self, item_id: str, body: bytes | None) -> None:
        """Make an item what the store holds of it; None: deleted."""
        if body is None:
            self.entries.pop(item_id, None)
            self.added_ms.pop(item_id, None)
            self.removed.add(item_id)
        else:
            self.entries[item_id] = _entry.decode(body)
            self.removed.discard(item_id)
        self.changes += 1
        self._journal.append((self.changes, item_id))

    async def _load(self) -> None:
        self._written.clear()
        entries, added, copy = dict[str, Entry](), dict[str, int](), vectors.Vectors()
        async for page in self._scan(KEY):
            entries |= {i: _entry.decode(body) for i, body in page.items()}
        async for page in self._scan(ADDED_KEY):
            added |= {i: int(moment) for i, moment in page.items()}
        async for page in self._scan(vectors.KEY, _STEP):
            copy.take(page)
        removed = {each.decode() for each in await self._client.smembers(REMOVED_KEY)}
        for item_id in self._written:  # what was written here since is newer than what was read
            entry = self.entries.get(item_id)
            if entry is None:
                entries.pop(item_id, None)
                removed.add(item_id)
            else:
                entries[item_id] = entry
                removed.discard(item_id)
                added.setdefault(item_id, self.added_ms.get(item_id, 0))
        copy.copy_from(self.vectors, self._written)
        self.entries, self.added_ms, self.removed = entries, added, removed - entries.keys()
        self.vectors = copy
        self.changes += 1  # without an entry in the journal: everything may have changed
        self.loaded = True

    async def _scan(self, key: str, count: int = _SCANNED) -> AsyncIterator[dict[str, bytes]]:
        cursor = 0
        while True:
            cursor, page = await self._client.hscan(key, cursor, count=count)
            yield {item_id.decode(): body for item_id, body in page.items()}
            if cursor == 0:
                return


def _dump(item: Item) -> bytes:
    return orjson.dumps(item.model_dump(exclude_none=True, exclude={"vector"}))


def _to_item(body: bytes | None, vector: bytes | None) -> Item | None:
    item = None if body is None else Item.model_validate_json(body)
    return item if item is None or vector is None else item.model_copy(update={"vector": vector})


def _change(
    changes: Sequence[Change], found: Mapping[str, Stored]
) -> tuple[list[Item | None], dict[str, bytes], dict[str, bytes | None]]:
    """Return the new items, and bodies and vectors of those that are others than ``found``."""
    made, new = list[Item | None](), dict[str, Item]()
    changed = dict[str, bytes | None]()
    for item_id, change in changes:
        was = new.get(item_id) or _to_item(*found[item_id])
        if was is None:
            made.append(None)
            continue
        item = change(was)
        made.append(item)
        if item.vector != was.vector:
            changed[item_id] = item.vector
        if item != was:
            new[item_id] = item
    return made, {i: _dump(item) for i, item in new.items()}, changed


def _all_dumped(items: Iterable[Item]) -> dict[str, bytes]:
    return {item.item_id: _dump(item) for item in items}


def load(client: Any, items: Mapping[str, bytes]) -> None:
    """Write many items (id to JSON of `Item`) in bulk and announce it once.

    Parameters
    ----------
    client
        Synchronous client.
    """
    ids = list(items)
    for start in range(0, len(ids), _PAGE):
        client.hset(KEY, mapping={i: items[i] for i in ids[start : start + _PAGE]})
    client.incr(VERSION_KEY)
    client.publish(CHANGED, b"[]")


def load_archive(client: Any, home: Path) -> int:
    """Load the imported catalogue into an empty hash and return the number of items."""
    if client.exists(KEY):
        return 0
    items = load_catalogue(home)
    load(client, {i: orjson.dumps(x.model_dump(exclude_none=True)) for i, x in items.items()})
    return len(items)
