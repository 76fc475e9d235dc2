"""The join on Ray Data gives what the join on one machine gives."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.archive.event_archive import write_part
from feature_repo.features import point_in_time
from feature_repo.features.point_in_time import Parts
from training.fit import local_ray
from training.history import ray_join

START = datetime(2024, 1, 1, tzinfo=UTC)
MOMENT = pa.timestamp("us", "UTC")


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    with local_ray.using(num_cpus=2):
        import ray

        ray.data.DataContext.get_current().enable_progress_bars = False
        yield


def moments_of(random: np.random.Generator, rows: int) -> pa.Array:
    hours = random.integers(0, 500, rows)
    return pa.array([START + timedelta(hours=int(h)) for h in hours], MOMENT)


def test_the_join_on_ray_is_the_join_on_one_machine(ray_cluster: None, tmp_path: Path) -> None:
    import ray

    random = np.random.default_rng(5)
    for part in range(3):
        table = pa.table(
            {
                "user": [f"u{n}" for n in random.integers(0, 40, 400)],
                "event_timestamp": moments_of(random, 400),
                "created": moments_of(random, 400),
                "real": random.random(400),
                "texts": [["x"] * int(n) for n in random.integers(0, 3, 400)],
            }
        )
        write_part(tmp_path / f"{part}.parquet", table)
    moments = pa.table(
        {
            "position": range(500),
            "shopper": [f"u{n}" for n in random.integers(0, 45, 500)],
            "at": moments_of(random, 500),
        }
    )
    parts = Parts((str(tmp_path),), ("user",), "event_timestamp", "created", timedelta(hours=40))
    columns = ["real", "texts"]
    expected = point_in_time.join(moments, parts, columns, keys=["shopper"], time="at")
    dataset = ray_join.join(
        ray.data.from_arrow([moments.slice(0, 100), moments.slice(100)]),
        parts, columns, keys=["shopper"], time="at", buckets=5,
    )  # fmt: skip
    found = pa.concat_tables(ray.get(dataset.to_arrow_refs())).sort_by("position")
    assert found.select(moments.column_names).equals(moments)
    assert found.select(columns).to_pylist() == expected.to_pylist()
    assert 0 < expected["real"].null_count < len(moments)
