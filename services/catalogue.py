"""The catalogue in service: the store's hash of items and each gateway's copy in memory.

Belongs here: keeping the two alike. Writes go to the store, are announced, and every
gateway takes the named items up; a version number tells one that missed an announcement.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
import redis
import structlog

from feature_repo.catalogue import Item, load_catalogue
from feature_repo.events import EventRecord, ItemRecord
from services.tasks import end

KEY: Final = "portrait:catalogue"
VERSION_KEY: Final = "portrait:catalogue:version"
CHANGED: Final = b"portrait:catalogue:changed"
_CHECK_S: Final = 5.0
_PAGE: Final = 2000

_log = structlog.get_logger(__name__)


class Entry(msgspec.Struct, gc=False):
    """What serving needs of an item; see `feature_repo.catalogue.Item`."""

    item_id: str
    title: str | None = None
    category: str | None = None
    brand: str | None = None
    price: float | None = None
    currency: str | None = None
    in_stock: bool = True
    available_from: int | None = None
    is_merchandise: bool = True

    def offered(self, now_ms: int) -> bool:
        """Say whether it may be recommended at ``now_ms``."""
        return (
            self.in_stock
            and self.is_merchandise
            and (self.available_from is None or self.available_from <= now_ms)
        )


_entry = msgspec.json.Decoder(Entry)


class Catalogue:
    """A gateway's copy of the catalogue.

    Parameters
    ----------
    client
        Asyncio client of the store.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._changed: asyncio.Queue[bytes] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._version = -1
        self.entries: dict[str, Entry] = {}
        self.changes = 0

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
        body = await self._client.hget(KEY, item_id)
        return None if body is None else Item.model_validate_json(body)

    async def put(self, items: Iterable[Item]) -> None:
        """Store items and announce them; this gateway knows them on return."""
        bodies = {i.item_id: orjson.dumps(i.model_dump(exclude_none=True)) for i in items}
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.hset(KEY, mapping=bodies)
            self._announce(pipe, list(bodies))
            await pipe.execute()
        for item_id, body in bodies.items():
            self.entries[item_id] = _entry.decode(body)
        self.changes += 1

    async def delete(self, item_id: str) -> bool:
        """Remove an item and say whether it was there."""
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.hdel(KEY, item_id)
            self._announce(pipe, [item_id])
            removed = (await pipe.execute())[0]
        self.entries.pop(item_id, None)
        self.changes += 1
        return bool(removed)

    def enrich(self, record: EventRecord) -> None:
        """Fill in what the event leaves open about its items, so that the log stands alone."""
        if record.items and self.entries:
            record.items = [self._filled(item) for item in record.items]

    def _filled(self, item: ItemRecord) -> ItemRecord:
        entry = self.entries.get(item.item_id)
        if entry is None or (item.category and item.brand and item.price is not None):
            return item
        return msgspec.structs.replace(
            item,
            category=item.category or entry.category,
            brand=item.brand or entry.brand,
            price=entry.price if item.price is None else item.price,
        )

    def _announce(self, pipe: Any, ids: list[str]) -> None:
        pipe.incr(VERSION_KEY)
        pipe.publish(CHANGED, orjson.dumps(ids))

    async def _follow(self) -> None:
        while True:
            try:
                await self._keep_up()
            except (redis.RedisError, OSError) as error:
                _log.warning("catalogue_unread", error=type(error).__name__)
                await asyncio.sleep(0.5)

    async def _keep_up(self) -> None:
        version = int(await self._client.get(VERSION_KEY) or 0)
        if version != self._version:
            await self._load()
            self._version = version
        try:
            ids = orjson.loads(await asyncio.wait_for(self._changed.get(), _CHECK_S))
        except TimeoutError:
            return
        if not ids:  # a bulk load: everything may have changed
            return
        for item_id, body in zip(ids, await self._client.hmget(KEY, ids), strict=True):
            if body is None:
                self.entries.pop(item_id, None)
            else:
                self.entries[item_id] = _entry.decode(body)
        self._version += 1
        self.changes += 1

    async def _load(self) -> None:
        entries, cursor = dict[str, Entry](), 0
        while True:
            cursor, page = await self._client.hscan(KEY, cursor, count=_PAGE)
            for item_id, body in page.items():
                entries[item_id.decode()] = _entry.decode(body)
            if cursor == 0:
                break
        self.entries = entries
        self.changes += 1


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
