"""The bench `offline`: the point-in-time join through Feast, against polars' as-of join.

A hundred thousand entities, each asked about at one moment, and five million events in
Parquet parts ordered by time. Both read the parts and end with an Arrow table in the order of
the question; polars is told that the events are sorted, as they are.
"""

import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import InvalidInputError
from feature_repo.feast_stores import store

Tell = Callable[[int, int, str], None]

START: Final = datetime(2024, 1, 1, tzinfo=UTC)
DAYS: Final = 90
TTL: Final = timedelta(days=30)
REALS: Final = tuple(f"real_{n}" for n in range(4))
WHOLES: Final = tuple(f"whole_{n}" for n in range(4))
COLUMNS: Final = (*REALS, *WHOLES)
_MOMENT: Final = pa.timestamp("us", "UTC")
_LETTERS: Final = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz234567", np.uint8)


@dataclass(frozen=True)
class OfflineLoad:
    """How much is joined: entities, events, parts of them, and how often."""

    entities: int = 100_000
    events: int = 5_000_000
    parts: int = 10
    rounds: int = 5


def measure_offline(*, tell: Tell, load: OfflineLoad | None = None) -> dict[str, Any]:
    """Measure both joins in turns and return their figures; nothing is left behind.

    Returns
    -------
    dict
        ``seconds`` and ``polars_asof_seconds`` (medians), ``ratio``, ``rows_in``,
        ``rows_out``, and ``details``: spreads, and one run of Feast's own DuckDB store.

    Raises
    ------
    InvalidInputError
        If polars is not installed.
    RuntimeError
        If the joins give different values.
    """
    load = load or OfflineLoad()
    try:
        import polars as pl  # noqa: F401
    except ImportError:
        raise InvalidInputError("polars is needed to compare with: run `make setup`") from None
    with tempfile.TemporaryDirectory(prefix="portrait-bench-") as name:
        folder = Path(name)
        tell(0, 0, "writing events")
        moments = write(folder / "events", load)
        ours = _open_store(folder, "feature_repo.feast_stores.offline.PortraitOfflineStore")
        mine, theirs = list[float](), list[float]()
        for done in range(load.rounds):
            tell(done, load.rounds, "joining")
            made, seconds = _time_call(lambda: by_feast(ours, moments))
            mine.append(seconds)
            expected, seconds = _time_call(lambda: by_polars(folder / "events", moments))
            theirs.append(seconds)
            _check(made, expected)
        tell(load.rounds, load.rounds, "Feast's DuckDB store")
        stock = _open_store(folder, "duckdb")
        try:
            _, stock_s = _time_call(lambda: by_feast(stock, moments))
        finally:
            store.close_offline()
    return {
        "seconds": round(median(mine), 3),
        "polars_asof_seconds": round(median(theirs), 3),
        "ratio": round(median(mine) / median(theirs), 3),
        "rows_in": len(moments),
        "rows_out": len(made),
        "details": {
            "events": load.events,
            "features": len(COLUMNS),
            "ttl_days": TTL.days,
            "spread": {
                "seconds": [round(min(mine), 3), round(max(mine), 3)],
                "polars_asof_seconds": [round(min(theirs), 3), round(max(theirs), 3)],
            },
            "feast_duckdb_seconds": round(stock_s, 3),
        },
    }


def write(folder: Path, load: OfflineLoad) -> pd.DataFrame:
    """Write the events' parts, and return the entities and moments that are asked about."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(7)
    letters = _LETTERS[random.integers(0, 32, (load.entities, 26))]
    users = np.array(
        [f"{{p{n % 16:03d}}}{text.tobytes().decode()}" for n, text in enumerate(letters)]
    )
    span_us = DAYS * 86_400_000_000
    moments = np.sort(random.integers(0, span_us, load.events))
    bounds = np.linspace(0, load.events, load.parts + 1).astype(int)
    for part, (first, last) in enumerate(itertools.pairwise(bounds)):
        count = int(last - first)
        times = _times(moments[first:last])
        table = {
            "user": users[random.integers(0, load.entities, count)],
            "event_timestamp": times,
            "created": times,
        }
        table |= {name: random.random(count) for name in REALS}
        table |= {name: random.integers(0, 1_000, count) for name in WHOLES}
        # Row groups as large as a part: both read them faster so, polars most of all.
        pq.write_table(pa.table(table), folder / f"{part:03d}.parquet", compression="zstd")
    questions = pa.table(
        {
            "user": users[random.permutation(load.entities)],
            "event_timestamp": _times(random.integers(0, span_us, load.entities)),
        }
    )
    frame: pd.DataFrame = questions.to_pandas()
    return frame


def by_feast(opened: Any, moments: pd.DataFrame) -> pa.Table:
    """Join by Feast's ``get_historical_features``."""
    with store.quiet():
        return opened.get_historical_features(
            entity_df=moments, features=[f"events:{name}" for name in COLUMNS]
        ).to_arrow()


def by_polars(folder: Path, moments: pd.DataFrame) -> pa.Table:
    """Join by polars' ``join_asof``."""
    import polars as pl

    left = pl.from_pandas(moments).with_row_index("row").sort("event_timestamp").lazy()
    right = pl.scan_parquet(folder / "*.parquet").select(
        "user", pl.col("event_timestamp").alias("moment"), *COLUMNS
    )
    joined = left.join_asof(
        right, left_on="event_timestamp", right_on="moment", by="user", strategy="backward",
        tolerance=TTL, check_sortedness=False,
    )  # fmt: skip
    return joined.sort("row").drop("row", "moment", strict=False).collect().to_arrow()


def _open_store(folder: Path, store_type: str) -> Any:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.data_format import ParquetFormat
    from feast.types import Float64, Int64, String

    user = Entity(name="user", join_keys=["user"], value_type=ValueType.STRING)
    source = FileSource(
        name="parts", path=str(folder / "events"), file_format=ParquetFormat(),
        timestamp_field="event_timestamp", created_timestamp_column="created",
    )  # fmt: skip
    schema = [Field(name="user", dtype=String)]
    schema += [Field(name=name, dtype=Float64) for name in REALS]
    schema += [Field(name=name, dtype=Int64) for name in WHOLES]
    view = FeatureView(name="events", entities=[user], schema=schema, source=source, ttl=TTL)
    with store.quiet():
        opened = FeatureStore(
            config=RepoConfig(
                project="portraitbench", provider="local", offline_store={"type": store_type},
                registry=str(folder / f"{store_type.rpartition('.')[2]}.db"), online_store=None,
                entity_key_serialization_version=3,
            )
        )  # fmt: skip
        opened.apply([user, view])
    return opened


def _check(made: pa.Table, expected: pa.Table) -> None:
    for name in COLUMNS:
        one, other = made[name].combine_chunks(), expected[name].combine_chunks()
        if not one.cast(pa.float64()).equals(other.cast(pa.float64())):
            raise RuntimeError(f"the two joins gave different values of {name}")


def _time_call(work: Callable[[], pa.Table]) -> tuple[pa.Table, float]:
    started_s = time.perf_counter()
    return work(), time.perf_counter() - started_s


def _times(micros: Any) -> pa.Array:
    start_us = int(START.timestamp()) * 1_000_000
    return pa.array(micros + start_us).cast(_MOMENT)
