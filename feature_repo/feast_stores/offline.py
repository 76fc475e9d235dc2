"""Feast's offline store on Parquet parts, with a point-in-time join of our own.

`PortraitOfflineStore` is what ``feature_store.yaml`` names: Feast's DuckDB store, but where
the sources are plain Parquet files, joins and newest rows come from
`features.point_in_time`. Other sources, on-demand views written in substrait and frames
given as SQL go Feast's way.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import ibis
import pandas as pd
import pyarrow as pa
from feast import FileSource, OnDemandFeatureView
from feast.data_format import ParquetFormat
from feast.infra.offline_stores import offline_utils
from feast.infra.offline_stores.duckdb import (
    DuckDBOfflineStore,
    DuckDBOfflineStoreConfig,
    _write_data_source,
)
from feast.infra.offline_stores.ibis import IbisRetrievalJob
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.types import String

from feature_repo.errors import InvalidInputError
from feature_repo.features import point_in_time
from feature_repo.features.point_in_time import Parts


class PortraitOfflineStoreConfig(DuckDBOfflineStoreConfig):  # type: ignore[misc]
    """Configuration in ``feature_store.yaml``."""

    type: Literal["feature_repo.feast_stores.offline.PortraitOfflineStore"] = (
        "feature_repo.feast_stores.offline.PortraitOfflineStore"
    )


class PortraitOfflineStore(DuckDBOfflineStore):  # type: ignore[misc]
    """Feast's DuckDB store with a quicker point-in-time join on Parquet files."""

    @staticmethod
    def get_historical_features(
        config: Any,
        feature_views: list[Any],
        feature_refs: list[str],
        entity_df: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> Any:
        """Return a job that joins each row of ``entity_df`` with what was known at its time."""
        views = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        ours = isinstance(entity_df, pd.DataFrame) and not any(v.mode == "substrait" for v in views)
        if not ours or not all(_plain(view.batch_source) for view in feature_views):
            return DuckDBOfflineStore.get_historical_features(
                config, feature_views, feature_refs, entity_df, registry, project,
                full_feature_names, filter_by_created_timestamp,
            )  # fmt: skip
        frame, time = _in_utc(entity_df)
        _check_keys(frame, feature_views)
        requests = [
            _FeatureRequest(view, feature_refs, full_feature_names) for view in feature_views
        ]

        def run() -> pa.Table:
            made = pa.Table.from_pandas(frame, preserve_index=False)
            joined = made
            for one in requests:
                for name, column in one.join(made, time, filter_by_created_timestamp):
                    joined = joined.append_column(name, column)
            return joined

        metadata = RetrievalMetadata(
            features=feature_refs,
            keys=[name for name in frame.columns if name != time],
            min_event_timestamp=frame[time].min().to_pydatetime(),
            max_event_timestamp=frame[time].max().to_pydatetime(),
        )
        return _job(config, run, views, full_feature_names, metadata)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> Any:
        """Return a job that finds the newest row of every entity in a span of time."""
        if not _plain(data_source) or not join_key_columns:
            return DuckDBOfflineStore.pull_latest_from_table_or_query(
                config, data_source, join_key_columns, feature_name_columns, timestamp_field,
                created_timestamp_column, start_date, end_date,
            )  # fmt: skip
        parts = Parts(
            (data_source.path,), tuple(join_key_columns), timestamp_field, created_timestamp_column
        )
        columns = [*join_key_columns, *feature_name_columns, timestamp_field]
        if created_timestamp_column:
            columns.append(created_timestamp_column)

        def run() -> pa.Table:
            return point_in_time.newest(parts, columns, start_date, end_date)

        return _job(config, run, [], full_feature_names=False, metadata=None)


class _FeatureRequest:
    """What is wanted of one feature view."""

    def __init__(self, view: Any, feature_refs: Sequence[str], full_names: bool) -> None:
        source, projection = view.batch_source, view.projection
        mine = f"{projection.name_to_use()}:"
        self._features = [ref.split(":")[1] for ref in feature_refs if ref.startswith(mine)]
        prefix = f"{projection.name_alias or view.name}__" if full_names else ""
        self._names = [prefix + feature for feature in self._features]
        columns = [column.name for column in view.entity_columns]
        self._keys = [projection.join_key_map.get(name, name) for name in columns]
        self._parts = Parts(
            (source.path,),
            tuple(columns),
            source.timestamp_field,
            source.created_timestamp_column or None,
            view.ttl or timedelta(),
        )

    def join(self, moments: pa.Table, time: str, known: bool) -> list[tuple[str, Any]]:
        """Return the columns that are wanted, by name, row by row for ``moments``."""
        found = point_in_time.join(
            moments, self._parts, self._features, keys=self._keys, time=time, known=known
        )
        return list(zip(self._names, found.columns, strict=True))


class _Job(IbisRetrievalJob):  # type: ignore[misc]
    """A join that runs when its result is asked for, once."""

    def __init__(self, run: Callable[[], pa.Table], **given: Any) -> None:
        super().__init__(table=None, **given)
        self._run = run
        self._made: pa.Table | None = None

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        if self._made is None:
            self._made = self._run()
        return self._made

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    def persist(
        self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None
    ) -> None:
        self.table = ibis.memtable(self._to_arrow_internal(timeout))
        super().persist(storage, allow_overwrite, timeout)

    def to_remote_storage(self) -> list[str]:
        self.table = ibis.memtable(self._to_arrow_internal())
        stored: list[str] = super().to_remote_storage()
        return stored


def _job(
    config: Any,
    run: Callable[[], pa.Table],
    views: list[Any],
    full_feature_names: bool,
    metadata: Any,
) -> _Job:
    store = config.offline_store
    return _Job(
        run,
        on_demand_feature_views=views,
        full_feature_names=full_feature_names,
        metadata=metadata,
        data_source_writer=_write_data_source,
        staging_location=store.staging_location,
        staging_location_endpoint_override=store.staging_location_endpoint_override,
        repo_path=str(config.repo_path),
    )


def _plain(source: Any) -> bool:
    """Say whether a source is Parquet files on this machine, with columns named as they are."""
    if not isinstance(source, FileSource) or source.field_mapping:
        return False
    parquet = isinstance(source.file_format, ParquetFormat) or source.path.endswith(".parquet")
    return parquet and "://" not in source.path


def _check_keys(frame: pd.DataFrame, views: Sequence[Any]) -> None:
    """Refuse entities that are no text, before a database compares them and shows others'.

    Raises
    ------
    InvalidInputError
        Naming the column.
    """
    for view in views:
        for column in view.entity_columns:
            name = view.projection.join_key_map.get(column.name, column.name)
            if name not in frame:
                raise InvalidInputError(f"the entities lack the column {name}: {_FORM}")
            values = frame[name]
            if isinstance(values.dtype, pd.CategoricalDtype):
                values = values.cat.categories.to_series()
            inferred = pd.api.types.infer_dtype(values, skipna=True)
            if column.dtype == String and inferred not in ("string", "empty"):
                raise InvalidInputError(f"the column {name} holds {inferred} values: {_FORM}")


_FORM: Final = (
    "send item ids as text, and users as pseudonyms: '{p007}' and 26 letters and digits "
    "(feature_repo.events.pseudonyms.Pseudonyms.of_user makes one of a user id)"
)


def _in_utc(entity_df: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return a copy of the frame and the name of its time, which is made UTC."""
    schema = dict(zip(entity_df.columns, entity_df.dtypes, strict=True))
    time = offline_utils.infer_event_timestamp_from_entity_df(schema)
    return entity_df.assign(**{time: pd.to_datetime(entity_df[time], utc=True)}), time
