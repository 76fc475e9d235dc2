"""Arrow tables into the online store, in Feast's layout: what `portrait materialize` does.

`ArrowEngine` is the batch engine that ``feature_store.yaml`` names: it takes the newest rows
of a view from the offline store as Arrow columns and hands them to the online store as ready
bytes, where Feast's local engine makes a protobuf message of every value. Views that it has
no encoding for go Feast's way. The bytes of a value are `value_encoding`'s.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.infra.common.materialization_job import MaterializationJobStatus
from feast.infra.compute_engines.local.compute import LocalComputeEngine, LocalComputeEngineConfig
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.protos.feast.types.Value_pb2 import ValueType
from feast.value_type import ValueType as FeastType

from feature_repo.feast_stores.value_encoding import Bytes, join_parts, timestamps, values
from feature_repo.online.live_row import field_key

_CHUNK_ROWS: Final = 5_000
"""Rows encoded at a time."""

_ARROW: Final = {
    FeastType.INT64: pa.int64(),
    FeastType.DOUBLE: pa.float64(),
    FeastType.STRING: pa.string(),
    FeastType.BYTES: pa.binary(),
    FeastType.DOUBLE_LIST: pa.list_(pa.float64()),
    FeastType.STRING_LIST: pa.list_(pa.string()),
}


class ArrowEngineConfig(LocalComputeEngineConfig):  # type: ignore[misc]
    """Configuration in ``feature_store.yaml``."""

    type: Literal["feature_repo.feast_stores.materialize_engine.ArrowEngine"] = (
        "feature_repo.feast_stores.materialize_engine.ArrowEngine"
    )


class ArrowEngine(LocalComputeEngine):  # type: ignore[misc]
    """Feast's local engine, with columns in place of messages where it can."""

    def _materialize_one(self, registry: Any, task: Any, **kwargs: Any) -> Any:
        view = task.feature_view
        if not (hasattr(self.online_store, "write_table") and encodable(view)):
            return super()._materialize_one(registry, task, **kwargs)
        status, failure = MaterializationJobStatus.SUCCEEDED, None
        try:
            self.online_store.write_table(self.repo_config, view, self._newest(task))
        except Exception as error:  # noqa: BLE001 - a job carries it; Feast raises it
            status, failure = MaterializationJobStatus.ERROR, error
        name = f"{view.name}-{task.start_time}-{task.end_time}"
        return LocalMaterializationJob(job_id=name, status=status, error=failure)

    def _newest(self, task: Any) -> pa.Table:
        view = task.feature_view
        source = view.batch_source
        job = self.offline_store.pull_latest_from_table_or_query(
            config=self.repo_config,
            data_source=source,
            join_key_columns=[view.entity_columns[0].name],
            feature_name_columns=[feature.name for feature in view.features],
            timestamp_field=source.timestamp_field,
            created_timestamp_column=source.created_timestamp_column,
            start_date=task.start_time,
            end_date=task.end_time,
        )
        return job.to_arrow()


def encodable(view: Any) -> bool:
    """Say whether `rows` can encode a feature view: one string key, types of ours, as they are."""
    changed = (
        getattr(view, "feature_transformation", None),
        getattr(view, "aggregations", None),
        getattr(view, "filter", None),
        getattr(view, "enable_validation", False),
        view.batch_source is None or view.batch_source.field_mapping,
    )
    keys = view.entity_columns
    return (
        not any(changed)
        and len(keys) == 1
        and keys[0].dtype.to_value_type() == FeastType.STRING
        and all(feature.dtype.to_value_type() in _ARROW for feature in view.features)
    )


def names(view: str, features: Sequence[str]) -> list[bytes]:
    """Return the hash fields of a row of a view: its time, then its features."""
    return [f"_ts:{view}".encode(), *(field_key(view, feature) for feature in features)]


def rows(view: Any, project: str, table: pa.Table) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Encode a table, some thousand rows at a time.

    Parameters
    ----------
    view
        Feature view for which `encodable` is true.
    table
        Columns: the view's join key, features and event time.

    Yields
    ------
    tuple
        Redis keys, and for each the MessagePack array that `batch_rows.write` takes, of the
        fields that `names` gives.

    Raises
    ------
    pyarrow.ArrowInvalid
        If a column cannot be read as what the view says it is.
    """
    key, time = view.entity_columns[0].name, view.batch_source.timestamp_field
    types = {f.name: _ARROW[f.dtype.to_value_type()] for f in view.features}
    wanted = table.select([key, time, *types]).combine_chunks()
    for start in range(0, len(wanted), _CHUNK_ROWS):
        part = wanted.slice(start, _CHUNK_ROWS)
        columns = [timestamps(_array(part, time))]
        columns += [
            values(_array(part, name).cast(arrow_type)) for name, arrow_type in types.items()
        ]
        keys = _keys(_array(part, key).cast(pa.large_binary()), key, project)
        yield keys.to_pylist(), _message_pack(columns).to_pylist()


def _array(table: pa.Table, name: str) -> pa.Array:
    return table.column(name).combine_chunks()


def _keys(entities: Bytes, join_key: str, project: str) -> Bytes:
    """Return Redis keys: Feast's serialized entity key (version 3) and the project."""
    text, name = struct.pack("<I", ValueType.STRING), join_key.encode()
    head = struct.pack("<I", 1) + text + struct.pack("<I", len(name)) + name + text
    sizes = _to_fixed(pc.binary_length(entities).to_numpy().astype("<u4"))
    return join_parts(head, sizes, entities, project.encode())


def _message_pack(columns: Sequence[Bytes]) -> Bytes:
    """Return each row of some columns as one MessagePack array of byte strings."""
    parts: list[Any] = [b"\xdc" + struct.pack(">H", len(columns))]
    for column in columns:
        sizes = pc.binary_length(column).to_numpy()
        most = int(sizes.max(initial=0))
        if most < 32:  # fixstr
            parts.append(_to_fixed((sizes | 0xA0).astype("u1")))
        elif most < 1 << 16:  # str 16
            parts += [b"\xda", _to_fixed(sizes.astype(">u2"))]
        else:  # str 32
            parts += [b"\xdb", _to_fixed(sizes.astype(">u4"))]
        parts.append(column)
    return join_parts(*parts)


def _to_fixed(numbers: np.ndarray[Any, Any]) -> Bytes:
    arrow_type = pa.binary(numbers.dtype.itemsize)
    made = pa.Array.from_buffers(arrow_type, len(numbers), [None, pa.py_buffer(numbers)])
    return made.cast(pa.large_binary())
