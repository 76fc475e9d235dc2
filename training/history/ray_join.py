"""The point-in-time join on a Ray cluster, for what is too large for one machine.

Both sides are exchanged by their entity (Ray Data), and each part is joined where it lies by
`feature_repo.features.point_in_time`: the same join, so the same answer. On one machine that module
alone is quicker.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from feature_repo.features import point_in_time
from feature_repo.features.point_in_time import Parts

_BUCKET: Final = "_bucket"
_IS_MOMENT: Final = "_is_moment"
_ROW: Final = "_held."


def join(
    moments: Any,
    parts: Parts,
    columns: Sequence[str],
    *,
    keys: Sequence[str],
    time: str,
    buckets: int = 64,
) -> Any:
    """Return the rows of ``moments`` with the newest row that was valid at each.

    Parameters
    ----------
    moments
        ``ray.data.Dataset`` of entities and moments; other columns pass.
    parts
        Rows to choose from; files must be readable by every node (a shared folder or an
        object store's URL).
    columns
        Columns of them that are wanted; their names must not be those of ``moments``.
    keys, time
        Columns of ``moments``, in the order of ``parts.keys``.
    buckets
        Pieces that the entities are dealt into, each joined by one task; at least one for
        each core of the cluster, and so many that each fits into a worker's memory.

    Returns
    -------
    ray.data.Dataset
        In no order: give ``moments`` a column to sort by where it matters.

    Examples
    --------
    ::

        import ray
        from feature_repo.features.point_in_time import Parts
        from training.history import ray_join

        parts = Parts(("/shared/features/profile",), ("user",), "event_timestamp", "created")
        moments = ray.data.read_parquet("/shared/positions")
        joined = ray_join.join(
            moments, parts, ["rfm_recency_days"], keys=["user"], time="event_timestamp"
        )
        joined.write_parquet("/shared/training")
    """
    import ray

    wanted = list(dict.fromkeys([*parts.keys, parts.time, *columns]))
    if parts.created is not None and parts.created not in wanted:
        wanted.append(parts.created)
    row_schema = _schema(parts, wanted)
    moment_schema = moments.schema().base_schema
    schema = pa.schema(
        [(_BUCKET, pa.int64()), (_IS_MOMENT, pa.bool_()), *moment_schema, *row_schema]
    )

    def deal_moments(table: pa.Table) -> pa.Table:
        return _deal(table, keys, buckets, schema, is_moment=True)

    def deal_rows(table: pa.Table) -> pa.Table:
        named = table.select(wanted).rename_columns(row_schema.names)
        mine = [_ROW + name for name in parts.keys]
        return _deal(named, mine, buckets, schema, is_moment=False)

    def join_bucket(bucket: pa.Table) -> pa.Table:
        mine = bucket.filter(bucket[_IS_MOMENT]).select(moment_schema.names)
        rows = bucket.filter(pc.invert(bucket[_IS_MOMENT])).select(row_schema.names)
        here = Parts(rows.rename_columns(wanted), parts.keys, parts.time, parts.created, parts.ttl)
        found = point_in_time.join(mine, here, columns, keys=keys, time=time)
        for name in columns:
            mine = mine.append_column(name, found[name])
        return mine

    if isinstance(parts.rows, pa.Table):
        rows = ray.data.from_arrow(parts.rows)
    else:
        rows = ray.data.read_parquet(point_in_time.files(parts.rows)).select_columns(wanted)
    both = moments.map_batches(deal_moments, batch_format="pyarrow", zero_copy_batch=True).union(
        rows.map_batches(deal_rows, batch_format="pyarrow", zero_copy_batch=True)
    )
    return both.groupby(_BUCKET).map_groups(join_bucket, batch_format="pyarrow")


def _schema(parts: Parts, wanted: Sequence[str]) -> pa.Schema:
    if isinstance(parts.rows, pa.Table):
        found = parts.rows.schema
    else:
        found = pads.dataset(point_in_time.files(parts.rows)).schema
    return pa.schema([(_ROW + name, found.field(name).type) for name in wanted])


def _deal(
    table: pa.Table, keys: Sequence[str], buckets: int, schema: pa.Schema, *, is_moment: bool
) -> pa.Table:
    """Return a side's rows with their bucket, in the form that both sides share."""
    entities = table.select(list(keys)).to_pandas().set_axis(range(len(keys)), axis="columns")
    hashed = pd.util.hash_pandas_object(entities, index=False).to_numpy() % np.uint64(buckets)
    own: dict[str, Any] = {name: table[name] for name in table.column_names}
    own[_BUCKET] = pa.array(hashed.astype(np.int64))
    own[_IS_MOMENT] = pa.array(np.full(len(table), is_moment))
    columns = [
        own[field.name] if field.name in own else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
