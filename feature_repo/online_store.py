"""Feast's online store on Redis, and the one way in which live rows are written.

`PortraitOnlineStore` is what ``feature_store.yaml`` names: Feast's Redis layout, but from a
URL, failing fast, and closed to plain writes of the live view. `commit` is the updater's
atomic step. The bytes of a row are `feature_repo.live_row`'s, connections are
`feature_repo.connection`'s.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import redis
from feast.infra.online_stores.helpers import _redis_key
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.utils import make_tzaware
from google.protobuf.timestamp_pb2 import Timestamp

from feature_repo.connection import connect, connect_async, translated
from feature_repo.errors import FencedError, LiveStateWriteError
from feature_repo.live_row import (
    FIELDS,
    LIVE_VIEW,
    PROJECT,
    LiveState,
    field_key,
    live_fields,
    live_values,
    parse_live,
    row_key,
)

__all__ = [
    "LIVE_VIEW", "PROJECT", "LiveState", "PortraitOnlineStore", "PortraitOnlineStoreConfig",
    "commit", "commit_async", "connect", "connect_async", "live_fields", "load_live",
    "read_live", "read_live_async", "row_key", "translated",
]  # fmt: skip

_LOAD_CHUNK = 500

rows_written: ContextVar[Callable[[int], None] | None] = ContextVar("rows_written", default=None)
"""Told the number of rows after every batch written in this context; for progress."""


class PortraitOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc]
    """Configuration in ``feature_store.yaml``; ``connection_string`` is a URL."""

    type: Literal["feature_repo.online_store.PortraitOnlineStore"] = (
        "feature_repo.online_store.PortraitOnlineStore"
    )
    full_scan_for_deletion: bool | None = False


class PortraitOnlineStore(RedisOnlineStore):  # type: ignore[misc]
    """Feast's Redis store: same keys and fields, bounded waits, live view read-only."""

    def _get_client(self, online_store_config: RedisOnlineStoreConfig) -> Any:
        if not self._client:
            self._client = connect(online_store_config.connection_string)
        return self._client

    async def _get_client_async(self, online_store_config: RedisOnlineStoreConfig) -> Any:
        if not self._client_async:
            self._client_async = connect_async(online_store_config.connection_string)
        return self._client_async

    def online_write_batch(
        self,
        config: Any,
        table: Any,
        data: list[Any],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows of a batch view; a row older than the stored one is left out.

        Unlike Feast's own, a row of **equal** time replaces the stored one: that is how a
        snapshot that was computed again, because events came late, arrives.

        Raises
        ------
        LiveStateWriteError
            If the view is tagged ``live``: only the updater's commit may change it.
        StoreUnavailableError
            If the store does not answer in time.
        """
        _refuse_live(table)
        client = self._get_client(config.online_store)
        newest: dict[bytes, tuple[datetime, dict[str, Any]]] = {}
        for key, values, time, _ in data:
            row = _redis_key(config.project, key, config.entity_key_serialization_version)
            moment = make_tzaware(time)
            if row not in newest or newest[row][0] <= moment:
                newest[row] = (moment, values)
        with translated():
            _write_newer(client, table.name, newest)
        done = rows_written.get()
        if done is not None:
            done(len(newest))
        if progress is not None:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: Any,
        table: Any,
        data: list[Any],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows of a batch view, off the event loop; see `online_write_batch`."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def _read_hash_fields(self, config: Any, commands: list[Any]) -> Any:
        with translated():
            return super()._read_hash_fields(config, commands)

    async def online_read_async(self, *args: Any, **kwargs: Any) -> Any:
        """Read rows of one view without blocking the event loop."""
        with translated():
            return await super().online_read_async(*args, **kwargs)

    async def _read_features_per_fv_async(self, *args: Any, **kwargs: Any) -> None:
        with translated():
            await super()._read_features_per_fv_async(*args, **kwargs)

    def delete_entity_values(self, config: Any, join_keys: list[str]) -> None:
        """Delete this project's rows of an entity, and no other project's.

        Feast matches keys by their ending, so that a project ``rec`` would delete the rows
        of ``shoprec`` too; here the whole key must parse.
        """
        from feast.infra.key_encoding_utils import serialize_entity_key_prefix

        client = self._get_client(config.online_store)
        prefix, project = serialize_entity_key_prefix(join_keys), config.project.encode()
        with translated():
            for key in client.scan_iter(b"".join([_escape(prefix), b"*", _escape(project)])):
                if _is_row(key, prefix, project, len(join_keys)):
                    client.delete(key)


def _write_newer(
    client: Any, view: str, rows: Mapping[bytes, tuple[datetime, dict[str, Any]]]
) -> None:
    stamp = f"_ts:{view}".encode()
    with client.pipeline(transaction=False) as pipe:
        for row in rows:
            pipe.hget(row, stamp)
        stored = pipe.execute()
        for (row, (moment, values)), old in zip(rows.items(), stored, strict=True):
            time = Timestamp()
            time.FromDatetime(moment)
            if old is not None:
                before = Timestamp.FromString(old)
                if (before.seconds, before.nanos) > (time.seconds, time.nanos):
                    continue
            fields = {field_key(view, name): v.SerializeToString() for name, v in values.items()}
            pipe.hset(row, mapping={stamp: time.SerializeToString(), **fields})
        pipe.execute()


def read_live(client: Any, entity_ids: Sequence[str]) -> list[LiveState | None]:
    """Read live rows in one round trip; None for a user who has none.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer in time.
    """
    with translated(), client.pipeline(transaction=False) as pipe:
        for entity_id in entity_ids:
            pipe.hmget(row_key(entity_id), FIELDS)
        return [parse_live(values) for values in pipe.execute()]


async def read_live_async(client: Any, entity_id: str) -> LiveState | None:
    """Read one live row without blocking the event loop; see `read_live`."""
    with translated():
        return parse_live(await client.hmget(row_key(entity_id), FIELDS))


def load_live(client: Any, rows: Mapping[str, LiveState]) -> None:
    """Write many live rows with no guard: for a rebuild, while no updater runs."""
    ids = list(rows)
    with translated():
        for start in range(0, len(ids), _LOAD_CHUNK):
            with client.pipeline(transaction=False) as pipe:
                for entity_id in ids[start : start + _LOAD_CHUNK]:
                    values = live_values(rows[entity_id])
                    pipe.hset(row_key(entity_id), mapping=dict(zip(FIELDS, values, strict=True)))
                pipe.execute()


def commit(
    client: Any,
    partition: int,
    *,
    epoch: int,
    expected_cursor: str,
    new_cursor: str,
    rows: Mapping[str, LiveState],
    dead: Sequence[bytes] = (),
) -> None:
    """Write rows, dead letters and cursor of one partition in one atomic step.

    The step is refused as a whole unless the lease still has ``epoch``, the cursor stands
    at ``expected_cursor`` and the log still holds the entry ``new_cursor`` (a server that
    lost its last writes may have rolled it back). A commit repeated after its answer was
    lost changes nothing.

    Parameters
    ----------
    client
        From `connect`.
    partition
        Number of the partition; every user in ``rows`` must belong to it.
    epoch
        Epoch of the caller's lease.
    expected_cursor, new_cursor
        Stream ids ``ms-seq``: the last entry applied before, and with this commit.
    rows
        Entity id to its new state.
    dead
        Encoded events that could not be applied; they go to the dead-letter stream.

    Raises
    ------
    FencedError
        If a guard refuses; nothing was changed.
    StoreUnavailableError
        If the store does not answer in time; whether it was applied is then unknown, and
        the same call may be repeated.
    """
    keys, args = _commit_call(partition, epoch, expected_cursor, new_cursor, rows, dead)
    with translated():
        try:
            reply = client.evalsha(_script()[1], len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            reply = client.eval(_script()[0], len(keys), *keys, *args)
    _check_reply(reply, partition, epoch, expected_cursor)


async def commit_async(
    client: Any,
    partition: int,
    *,
    epoch: int,
    expected_cursor: str,
    new_cursor: str,
    rows: Mapping[str, LiveState],
    dead: Sequence[bytes] = (),
) -> None:
    """Do what `commit` does, with a client from `connect_async`."""
    keys, args = _commit_call(partition, epoch, expected_cursor, new_cursor, rows, dead)
    with translated():
        try:
            reply = await client.evalsha(_script()[1], len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            reply = await client.eval(_script()[0], len(keys), *keys, *args)
    _check_reply(reply, partition, epoch, expected_cursor)


@lru_cache(maxsize=1)
def _script() -> tuple[str, str]:
    text = (Path(__file__).parent / "commit.lua").read_text()
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _commit_call(
    partition: int,
    epoch: int,
    expected_cursor: str,
    new_cursor: str,
    rows: Mapping[str, LiveState],
    dead: Sequence[bytes],
) -> tuple[list[Any], list[Any]]:
    tag = f"{{p{partition:03d}}}"
    strangers = [entity_id for entity_id in rows if not entity_id.startswith(tag)]
    if strangers:
        raise ValueError(f"{strangers[0]} is not in partition {tag}: commit it with its own")
    keys = [f"{tag}log", f"{tag}cursor", f"{tag}lease", f"{tag}dead", *map(row_key, rows)]
    args: list[Any] = [
        epoch, expected_cursor, new_cursor, f"{tag}applied", len(dead), len(FIELDS),
        *dead, *FIELDS,
    ]  # fmt: skip
    for state in rows.values():
        args.extend(live_values(state))
    return keys, args


def _check_reply(reply: list[bytes], partition: int, epoch: int, expected_cursor: str) -> None:
    if reply[0] != b"refused":
        return
    guard, found = reply[1].decode(), reply[2].decode()
    wanted = {
        "epoch": f"the lease has epoch {found}, the caller {epoch}",
        "cursor": f"the cursor is {found}, the caller expects {expected_cursor}",
        "entry": f"the log no longer holds entry {found}",
    }[guard]
    raise FencedError(f"partition {partition}: {wanted}; give up the batch and read again")


def _refuse_live(table: Any) -> None:
    if (table.tags or {}).get("live") == "true":
        raise LiveStateWriteError(
            f"feature view {table.name} is written by the updater only: send events instead"
        )


def _escape(text: bytes) -> bytes:
    for sign in b"\\*?[]":
        text = text.replace(bytes([sign]), b"\\" + bytes([sign]))
    return text


def _is_row(key: bytes, prefix: bytes, project: bytes, values: int) -> bool:
    at = len(prefix)
    for _ in range(values):
        at += 8 + int.from_bytes(key[at + 4 : at + 8], "little")
    return key.startswith(prefix) and key[at:] == project
