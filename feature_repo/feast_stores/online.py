"""Feast's online store on Redis, closed to plain writes of live rows.

`PortraitOnlineStore` is what ``feature_store.yaml`` names: Feast's Redis layout, but from a
URL, failing fast, and closed to plain writes of the live view. Reading and committing live
rows is `feature_repo.online.live_rows`'s, connections are `feature_repo.online.connection`'s.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final, Literal

from feast.infra.online_stores.helpers import _redis_key
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.utils import make_tzaware
from google.protobuf.timestamp_pb2 import Timestamp

from feature_repo.errors import LiveStateWriteError
from feature_repo.feast_stores import materialize_engine
from feature_repo.online import batch_rows
from feature_repo.online.connection import connect, connect_async, translated

_BULK_TIMEOUT_S: Final = 10.0
"""Longest wait for one answer while a table is written: a disk that is written to may hold the
server for a second or two, and nobody waits for a table's rows but its writer."""

Written = Callable[[int, int], None]
rows_written: ContextVar[Written | None] = ContextVar("rows_written", default=None)
"""Told, after every batch written in this context, its rows and those there are in all (0: not
known); for progress."""


class PortraitOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc]
    """Configuration in ``feature_store.yaml``; ``connection_string`` is a URL."""

    type: Literal["feature_repo.feast_stores.online.PortraitOnlineStore"] = (
        "feature_repo.feast_stores.online.PortraitOnlineStore"
    )
    full_scan_for_deletion: bool | None = False


class PortraitOnlineStore(RedisOnlineStore):  # type: ignore[misc]
    """Feast's Redis store: same keys and fields, bounded waits, live view read-only."""

    _client: Any = None
    _client_async: Any = None

    def _get_client(self, online_store_config: RedisOnlineStoreConfig) -> Any:
        if not self._client:
            self._client = connect(online_store_config.connection_string)
        return self._client

    async def _get_client_async(self, online_store_config: RedisOnlineStoreConfig) -> Any:
        if not self._client_async:
            self._client_async = connect_async(online_store_config.connection_string)
        return self._client_async

    async def close(self) -> None:
        """Close the asyncio client, in the event loop that used it."""
        if self._client_async:
            await self._client_async.aclose()
            self._client_async = None

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
            done(len(newest), 0)
        if progress is not None:
            progress(len(data))

    def write_table(self, config: Any, table: Any, rows: Any) -> None:
        """Write rows of a batch view from Arrow columns; see `online_write_batch`.

        Each row is written whole or not at all. After a failure the same call does the rest.

        Parameters
        ----------
        table
            A feature view for which `feast_stores.materialize_engine.encodable` is true.
        rows
            ``pyarrow.Table`` with the view's join key, event time and features.

        Raises
        ------
        LiveStateWriteError
            If the view is tagged ``live``: only the updater's commit may change it.
        StoreUnavailableError
            If the store does not answer in time.
        """
        _refuse_live(table)
        names = materialize_engine.names(table.name, [feature.name for feature in table.features])
        made, done = materialize_engine.rows(table, config.project, rows), rows_written.get()
        client = connect(config.online_store.connection_string, timeout_s=_BULK_TIMEOUT_S)
        try:
            for count in batch_rows.write_all(client, names, made):
                if done is not None:
                    done(count, len(rows))
        finally:
            client.close()

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
    alike = defaultdict[tuple[str, ...], list[bytes]](list)  # rows that have the same features
    for row, (_, values) in rows.items():
        alike[tuple(values)].append(row)
    for features, keys in alike.items():
        encoded = [_encode_row(*rows[key]) for key in keys]
        batch_rows.write(client, materialize_engine.names(view, features), keys, encoded)


def _encode_row(moment: datetime, values: Mapping[str, Any]) -> bytes:
    time = Timestamp()
    time.FromDatetime(moment)
    made = (value.SerializeToString() for value in values.values())
    return batch_rows.pack_values([time.SerializeToString(), *made])


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
