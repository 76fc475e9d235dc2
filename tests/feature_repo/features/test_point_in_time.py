"""The point-in-time join against a naive oracle, and Feast's own store on the same data."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.data_format import ParquetFormat
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.types import Float64, Int64, String
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.archive.event_archive import write_part
from feature_repo.errors import InvalidInputError
from feature_repo.feast_stores.store import close_offline
from feature_repo.features import point_in_time
from feature_repo.features.point_in_time import Parts

START = datetime(2024, 1, 1, tzinfo=UTC)
MOMENT = pa.timestamp("us", "UTC")
KEYS = [("a", 1), ("a", 2), ("b", 1), ("é'", 0)]


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def oracle(
    moments: list[dict[str, Any]], rows: list[dict[str, Any]], ttl: timedelta, known: bool
) -> list[Any]:
    """Return the value of the row that holds at each moment, by looking at every row."""
    found = []
    for asked in moments:
        best: tuple[datetime, datetime] | None = None
        value = None
        for row in rows:
            age = asked["at"] - row["time"]
            if (row["shop"], row["user"]) != (asked["s"], asked["u"]) or age < timedelta(0):
                continue
            if (ttl and age > ttl) or (known and row["created"] > asked["at"]):
                continue
            if best is None or (row["time"], row["created"]) > best:
                best, value = (row["time"], row["created"]), row["value"]
        found.append(value)
    return found


hours = st.integers(0, 12)
rows_drawn = st.lists(st.tuples(st.sampled_from(KEYS), hours, hours), max_size=25, unique=True)
moments_drawn = st.lists(st.tuples(st.sampled_from([*KEYS, ("c", 9)]), hours), max_size=12)


@pytest.mark.parametrize("few", [0, 4], ids=["sorted", "paired"])
@given(
    drawn=rows_drawn, asked=moments_drawn, ttl=st.sampled_from([0, 3]), known=st.booleans(),
    cut=st.integers(0, 25),
)  # fmt: skip
@settings(settings.get_profile("one fixture for all"), max_examples=50)
def test_the_join_is_the_oracles(
    few: int, drawn: Any, asked: Any, ttl: int, known: bool, cut: int, monkeypatch: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    monkeypatch.setattr(point_in_time, "FEW_MOMENTS", few)
    rows = [
        {"shop": s, "user": u, "time": at(t), "created": at(c), "value": None if n % 7 == 6 else n}
        for n, ((s, u), t, c) in enumerate(drawn)
    ]
    moments = [{"n": n, "s": s, "u": u, "at": at(t)} for n, ((s, u), t) in enumerate(asked)]
    folder = tmp_path_factory.mktemp("parts")
    schema = pa.schema({"shop": pa.string(), "user": pa.int64(), "time": MOMENT,
                        "created": MOMENT, "value": pa.float64()})  # fmt: skip
    for name, part in (("a", rows[:cut]), ("b", rows[cut:])):
        write_part(folder / f"{name}.parquet", pa.Table.from_pylist(part, schema))
    table = pa.Table.from_pylist(
        moments,
        pa.schema({"n": pa.int64(), "s": pa.string(), "u": pa.int64(), "at": MOMENT}),
    )
    span = timedelta(hours=ttl)
    expected = oracle(moments, rows, span, known)
    for given_rows in ((str(folder),), pa.Table.from_pylist(rows, schema)):
        parts = Parts(given_rows, ("shop", "user"), "time", "created", span)
        found = point_in_time.join(table, parts, ["value"], keys=["s", "u"], time="at", known=known)
        assert found["value"].to_pylist() == expected


@given(drawn=rows_drawn, first=hours, last=hours)
@settings(max_examples=40)
def test_newest_rows_of_a_span_are_those_of_a_loop(drawn: Any, first: int, last: int) -> None:
    best: dict[Any, Any] = {}
    for n, (key, t, c) in enumerate(drawn):
        if first <= t <= last and (key not in best or (t, c) > best[key][0]):
            best[key] = ((t, c), n)
    table = pa.table(
        {
            "shop": pa.array([k[0] for k, _, _ in drawn], pa.string()),
            "user": pa.array([k[1] for k, _, _ in drawn], pa.int64()),
            "time": pa.array([at(t) for _, t, _ in drawn], MOMENT),
            "created": pa.array([at(c) for _, _, c in drawn], MOMENT),
            "value": pa.array(range(len(drawn)), pa.int64()),
        }
    )
    parts = Parts(table, ("shop", "user"), "time", "created")
    found = point_in_time.newest(parts, ["shop", "user", "value"], at(first), at(last)).to_pylist()
    assert {(row["shop"], row["user"]): row["value"] for row in found} == {
        key: n for key, (_, n) in best.items()
    }
    assert len(found) == len(best)


# --- through Feast


def opened(folder: Path, kind: str) -> Any:
    user = Entity(name="user", join_keys=["user"], value_type=ValueType.STRING)
    views = []
    for name, ttl in (("lasting", timedelta(0)), ("brief", timedelta(days=2))):
        source = FileSource(
            name=f"{name}_parts", path=str(folder / name), file_format=ParquetFormat(),
            timestamp_field="event_timestamp", created_timestamp_column="created",
        )  # fmt: skip
        schema = [
            Field(name="user", dtype=String), Field(name=f"{name}_real", dtype=Float64),
            Field(name=f"{name}_whole", dtype=Int64), Field(name=f"{name}_text", dtype=String),
        ]  # fmt: skip
        views.append(FeatureView(name=name, entities=[user], schema=schema, source=source, ttl=ttl))
    store = FeatureStore(
        config=RepoConfig(
            project="p", provider="local", registry=str(folder / f"{len(kind)}.db"),
            offline_store={"type": kind}, online_store=None, entity_key_serialization_version=3,
        )
    )  # fmt: skip
    store.apply([user, *views])
    return store


OURS = "feature_repo.feast_stores.offline.PortraitOfflineStore"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(3)
    for name in ("lasting", "brief"):
        for part in range(3):
            moments = [at(int(h)) for h in random.integers(0, 400, 200)]
            table = pa.table(
                {
                    "user": [f"u{n}" for n in random.integers(0, 30, 200)],
                    "event_timestamp": pa.array(moments, MOMENT),
                    "created": pa.array([at(1000 + 200 * part + n) for n in range(200)], MOMENT),
                    f"{name}_real": random.random(200),
                    f"{name}_whole": pa.array(random.integers(0, 9, 200), mask=np.arange(200) < 20),
                    f"{name}_text": [f"t{n}" for n in random.integers(0, 9, 200)],
                }
            )
            write_part(tmp_path / name / f"{part}.parquet", table)
    return tmp_path


FEATURES = [
    "lasting:lasting_real", "lasting:lasting_whole", "brief:brief_text", "brief:brief_real"
]  # fmt: skip


def asked(rows: int) -> pd.DataFrame:
    random = np.random.default_rng(4)
    return pd.DataFrame(
        {
            "user": [f"u{n}" for n in random.integers(0, 33, rows)],
            "event_timestamp": [at(float(h)) for h in random.integers(0, 420, rows)],
            "passed": range(rows),
        }
    )


@pytest.mark.parametrize(("rows", "full"), [(300, False), (20, True)])
def test_get_historical_features_gives_what_feasts_duckdb_store_gives(
    folder: Path, rows: int, full: bool
) -> None:
    frame = asked(rows)
    before = frame.copy()
    wanted = {"entity_df": frame, "features": FEATURES, "full_feature_names": full}
    made = opened(folder, OURS).get_historical_features(**wanted).to_df()
    theirs = opened(folder, "duckdb").get_historical_features(**wanted).to_df()
    close_offline()
    assert list(made.columns) == list(theirs.columns)
    assert made["passed"].tolist() == list(range(rows))  # in the order of the question
    expected = theirs.sort_values("passed", ignore_index=True)
    pd.testing.assert_frame_equal(made, expected, check_dtype=False)
    brief = "brief__brief_real" if full else "brief_real"
    assert 0 < made[brief].isna().sum() < rows  # ttl bites
    pd.testing.assert_frame_equal(frame, before)


def test_moments_without_a_zone_and_as_text_are_utc(folder: Path) -> None:
    store, frame = opened(folder, OURS), asked(40)
    expected = store.get_historical_features(entity_df=frame, features=FEATURES).to_df()
    for times in (frame["event_timestamp"].dt.tz_localize(None), frame["event_timestamp"].map(str)):
        other = frame.assign(event_timestamp=times)
        found = store.get_historical_features(entity_df=other, features=FEATURES).to_df()
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)


@pytest.mark.parametrize(
    "keys",
    [
        range(9),
        [1.5] * 9,
        ["u1", 2, *["u3"] * 7],
        [b"u1"] * 9,
        [True] * 9,
        pd.Categorical(range(9)),
    ],
)
def test_entities_that_are_no_text_are_refused_without_showing_any(folder: Path, keys: Any) -> None:
    store, frame = opened(folder, OURS), asked(9).assign(user=keys)
    with pytest.raises(
        InvalidInputError, match=r"the column user holds \w+.* values: send"
    ) as told:
        store.get_historical_features(entity_df=frame, features=FEATURES).to_df()
    assert not re.search(r"\bu\d", str(told.value))
    for fine in (["u1", None] + ["u2"] * 7, pd.Categorical(["u1"] * 9)):
        found = store.get_historical_features(
            entity_df=asked(9).assign(user=fine), features=FEATURES
        ).to_df()
        assert len(found) == 9


def test_a_joined_set_can_be_kept(folder: Path) -> None:
    job = opened(folder, OURS).get_historical_features(entity_df=asked(40), features=FEATURES)
    job.persist(SavedDatasetFileStorage(str(folder / "kept.parquet")))
    kept = pd.read_parquet(folder / "kept.parquet")
    pd.testing.assert_frame_equal(kept, job.to_df(), check_dtype=False)
    close_offline()


def test_an_empty_view_gives_nulls(tmp_path: Path, folder: Path) -> None:
    for part in (folder / "brief").glob("*.parquet"):
        table = pa.parquet.read_table(part)
        write_part(part, table.slice(0, 0))
    found = opened(folder, OURS).get_historical_features(entity_df=asked(9), features=FEATURES)
    assert found.to_df()["brief_real"].isna().all()


def test_a_file_replaced_between_finding_and_fetching_moves_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "base.parquet"
    rows = pa.table({"user": list("abc"), "time": [START] * 3, "value": [1, 2, 3]})
    write_part(path, rows)
    real = point_in_time._find

    def find_and_replace(*args: Any, **more: Any) -> None:
        real(*args, **more)
        if pq.read_metadata(path).num_rows == 3:
            write_part(path, rows.slice(1))

    monkeypatch.setattr(point_in_time, "_find", find_and_replace)
    parts = Parts((str(tmp_path),), ("user",), "time")
    asked = pa.table({"user": ["b", "c"], "time": [START] * 2})
    found = point_in_time.join(asked, parts, ["value"], keys=["user"], time="time")
    assert found["value"].to_pylist() == [2, 3]
