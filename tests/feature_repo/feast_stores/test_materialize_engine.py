"""What the loader writes: Feast's bytes, whole rows, never an older one over a newer one."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
import redis
from feast import (
    Entity,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RepoConfig,
    ValueType,
)
from feast.data_format import ParquetFormat
from feast.type_map import python_values_to_proto_values
from feast.types import Array, Bytes, Float64, Int32, Int64, String
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.archive.event_archive import write_part
from feature_repo.errors import LiveStateWriteError, StoreUnavailableError
from feature_repo.feast_stores import materialize_engine, value_encoding
from feature_repo.feast_stores.online import PortraitOnlineStore
from feature_repo.feast_stores.store import close_offline
from feature_repo.features.catalogue import VIEWS
from feature_repo.online import batch_rows
from feature_repo.online.connection import connect
from tests.conftest import free_port, start_server, stop_server

START = datetime(2024, 1, 1, tzinfo=UTC)
USERS = ["{p000}" + "a" * 26, "{p001}" + "b" * 26, "é", "x"]
TYPES = {
    "whole": (Int64, pa.int64()),
    "real": (Float64, pa.float64()),
    "text": (String, pa.string()),
    "blob": (Bytes, pa.binary()),
    "reals": (Array(Float64), pa.list_(pa.float64())),
    "texts": (Array(String), pa.list_(pa.string())),
}
MADE = {
    "whole": st.integers(-(2**63), 2**63 - 1),
    "real": st.floats(),
    "text": st.text(st.characters(codec="utf-8"), max_size=40),
    "blob": st.binary(max_size=200),
    "reals": st.lists(st.floats(allow_nan=False), max_size=40),
    "texts": st.lists(st.text(st.characters(codec="utf-8"), max_size=9), max_size=9),
}


@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
@settings(max_examples=60)
def test_a_column_is_encoded_as_feast_does_value_by_value(name: str, data: Any) -> None:
    feast, arrow = TYPES[name]
    column = data.draw(st.lists(st.none() | MADE[name], max_size=12))
    skipped = data.draw(st.integers(0, len(column)))
    # One by one: a column of nothing but empty texts is a column of nulls to Feast.
    kind = feast.to_value_type()
    expected = [
        b"\x12\x00" if value == "" else b"\x0a\x00" if value == b"" else
        python_values_to_proto_values([value], kind)[0].SerializeToString()
        for value in column[skipped:]
    ]  # fmt: skip
    made = value_encoding.values(pa.array(column, arrow)[skipped:])
    assert made.to_pylist() == expected


@given(st.lists(st.integers(-(2**61), 2**61), min_size=1, max_size=5))
def test_times_are_protobuf_timestamps(nanos: list[int]) -> None:
    expected = []
    for value in nanos:
        time = Timestamp()
        time.FromNanoseconds(value)
        expected.append(time.SerializeToString())
    for column in (pa.array(nanos, pa.timestamp("ns")), pa.array(nanos, pa.timestamp("ns", "UTC"))):
        assert value_encoding.timestamps(column).to_pylist() == expected


def test_what_has_no_encoding_is_refused() -> None:
    with pytest.raises(TypeError, match="int16"):
        value_encoding.values(pa.array([1], pa.int16()))


# --- whole views, against Feast's own engine and store


def view_of(folder: Path, **types: Any) -> tuple[Entity, FeatureView]:
    user = Entity(name="user", join_keys=["user"], value_type=ValueType.STRING)
    source = FileSource(
        name="parts", path=str(folder), file_format=ParquetFormat(),
        timestamp_field="event_timestamp", created_timestamp_column="created",
    )  # fmt: skip
    schema = [Field(name="user", dtype=String)]
    schema += [Field(name=name, dtype=kind) for name, kind in types.items()]
    return user, FeatureView(name="every", entities=[user], schema=schema, source=source)


def opened(folder: Path, objects: list[Any], *, online: dict[str, Any], engine: str) -> Any:
    store = FeatureStore(
        config=RepoConfig(
            project="portrait", provider="local", registry=str(folder / f"{engine[:3]}.db"),
            offline_store={"type": "duckdb"}, online_store=online, batch_engine={"type": engine},
            materialization={"pull_latest_features": True, "online_write_batch_size": 1_000},
            entity_key_serialization_version=3,
        )
    )  # fmt: skip
    store.apply(objects)
    return store


@pytest.fixture
def both(tmp_path: Path, redis_url: str, store_client: redis.Redis) -> Iterator[Any]:
    """Return a function that opens a view with Feast's engine and store, and with ours."""
    host = urlsplit(redis_url).netloc
    ours = {
        "type": "feature_repo.feast_stores.online.PortraitOnlineStore",
        "connection_string": redis_url,
    }  # fmt: skip

    def make(objects: tuple[Entity, FeatureView]) -> tuple[Any, Any]:
        feast = opened(
            tmp_path, [*objects], online={"type": "redis", "connection_string": host},
            engine="local",
        )  # fmt: skip
        engine = "feature_repo.feast_stores.materialize_engine.ArrowEngine"
        return feast, opened(tmp_path, [*objects], online=ours, engine=engine)

    yield make
    close_offline()


def rows_of(columns: dict[str, list[Any]], kinds: dict[str, pa.DataType]) -> pa.Table:
    times = pa.array([START + timedelta(seconds=n / 8) for n in range(len(USERS))])
    made = {name: pa.array(values, kinds[name]) for name, values in columns.items()}
    return pa.table({"user": USERS, "event_timestamp": times, "created": times, **made})


EVERY = {
    "whole": [0, -1, 300, None],
    "real": [0.0, -0.5, None, float("nan")],
    "text": ["", "é" * 300, None, "x"],
    "blob": [b"", b"\x00\xff" * 40_000, None, b"x"],
    "reals": [[], [1.5, -2.0], None, [0.25, None] * 100],
    "texts": [[], ["", "é"], None, ["x" * 200, None] * 20],
}


def everything(client: redis.Redis) -> dict[bytes, Any]:
    return {key: client.hgetall(key) for key in client.scan_iter()}


def test_a_view_of_every_type_leaves_the_bytes_that_feasts_own_engine_leaves(
    tmp_path: Path, both: Any, store_client: redis.Redis
) -> None:
    table = rows_of(EVERY, {name: arrow for name, (_, arrow) in TYPES.items()})
    write_part(tmp_path / "parts" / "a.parquet", table)
    view = view_of(tmp_path / "parts", **{name: kind for name, (kind, _) in TYPES.items()})
    feast, ours = both(view)
    feast.materialize(START, START + timedelta(days=1))
    expected, names = everything(store_client), [f"every:{name}" for name in TYPES]
    wanted = {"features": names, "entity_rows": [{"user": user} for user in USERS]}
    read = feast.get_online_features(**wanted).to_dict()
    store_client.flushall()
    ours.materialize(START, START + timedelta(days=1))
    assert len(expected) == len(USERS)
    assert everything(store_client) == expected
    assert repr(feast.get_online_features(**wanted).to_dict()) == repr(read)
    assert repr(ours.get_online_features(**wanted).to_dict()) == repr(read)


def test_a_view_without_an_encoding_goes_feasts_way(
    tmp_path: Path, both: Any, store_client: redis.Redis
) -> None:
    table = rows_of({"small": [1, 2, 3, 4]}, {"small": pa.int32()})
    write_part(tmp_path / "parts" / "a.parquet", table)
    objects = view_of(tmp_path / "parts", small=Int32)
    assert not materialize_engine.encodable(objects[1])
    _, ours = both(objects)
    ours.materialize(START, START + timedelta(days=1))
    rows = [{"user": user} for user in USERS]
    answer = ours.get_online_features(features=["every:small"], entity_rows=rows).to_dict()
    assert answer["small"] == [1, 2, 3, 4]


def test_a_failure_is_raised_by_materialize(tmp_path: Path, both: Any) -> None:
    write_part(
        tmp_path / "parts" / "a.parquet", rows_of({"real": ["x"] * 4}, {"real": pa.string()})
    )
    _, ours = both(view_of(tmp_path / "parts", real=Float64))
    with pytest.raises(pa.ArrowInvalid):
        ours.materialize(START, START + timedelta(days=1))


# --- the script


NAMES = [b"_ts:every", b"aaaa", b"bbbb"]


def packed_row(moment: tuple[int, int], *values: bytes) -> bytes:
    time = Timestamp(seconds=moment[0], nanos=moment[1])
    return batch_rows.pack_values([time.SerializeToString(), *values])


moments = st.tuples(
    st.sampled_from([-62135596800, -1, 0, 1, 127, 128, 1_700_000_000, 2**33, 253402300799]),
    st.sampled_from([0, 1, 999_999_999]),
)


@given(st.lists(st.tuples(st.sampled_from([b"k1", b"k2"]), moments, st.binary(max_size=40))))
@settings(settings.get_profile("one fixture for all"), max_examples=60)
def test_the_newest_row_stays_and_of_two_of_one_time_the_last(
    store_client: redis.Redis, writes: list[tuple[bytes, tuple[int, int], bytes]]
) -> None:
    store_client.flushall()
    newest: dict[bytes, tuple[tuple[int, int], bytes]] = {}
    taken = 0
    for key, moment, value in writes:
        if key not in newest or newest[key][0] <= moment:
            newest[key], taken = (moment, value), taken + 1
    keys, rows = [key for key, _, _ in writes], [packed_row(m, v, v) for _, m, v in writes]
    half = len(keys) // 2
    written = batch_rows.write(store_client, NAMES, keys[:half], rows[:half])
    written += batch_rows.write(store_client, NAMES, keys[half:], rows[half:])
    assert written == taken
    for key, (moment, value) in newest.items():
        time = Timestamp(seconds=moment[0], nanos=moment[1]).SerializeToString()
        assert store_client.hgetall(key) == dict(zip(NAMES, [time, value, value], strict=True))


def test_a_row_wider_than_one_command_is_written_whole(store_client: redis.Redis) -> None:
    names = [b"_ts:every", *(b"%04d" % n for n in range(307))]
    values = [b"v%d" % n for n in range(307)]
    assert batch_rows.write(store_client, names, [b"k"], [packed_row((1, 0), *values)]) == 1
    assert store_client.hgetall(b"k") == dict(
        zip(names, [Timestamp(seconds=1).SerializeToString(), *values], strict=True)
    )


def test_other_fields_of_the_hash_stay(store_client: redis.Redis) -> None:
    store_client.hset(b"k", mapping={b"other": b"1", b"aaaa": b"old"})
    batch_rows.write(store_client, NAMES, [b"k"], [packed_row((1, 0), b"new", b"")])
    assert store_client.hmget(b"k", [b"other", b"aaaa", b"bbbb"]) == [b"1", b"new", b""]


def test_many_rows_come_in_parts_and_are_counted(store_client: redis.Redis) -> None:
    keys = [b"k%d" % n for n in range(2_345)]
    made = [(keys[:2_000], [packed_row((1, 0), b"a", b"b")] * 2_000),
            (keys[2_000:], [packed_row((1, 0), b"a", b"b")] * 345)]  # fmt: skip
    assert list(batch_rows.write_all(store_client, NAMES, made)) == [1_000, 1_000, 345]
    assert store_client.dbsize() == 2_345


def test_readers_never_see_a_part_of_a_row(store_client: redis.Redis, redis_url: str) -> None:
    ended = threading.Event()
    torn: list[Any] = []

    def read() -> None:
        with redis.Redis.from_url(redis_url) as other:
            while not ended.is_set():
                found = other.hmget(b"k7", NAMES[1:])
                if found[0] != found[1]:
                    torn.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    keys = [b"k%d" % n for n in range(50)]
    for n in range(100):
        batch_rows.write(store_client, NAMES, keys, [packed_row((n, 0), b"%d" % n, b"%d" % n)] * 50)
    ended.set()
    reader.join()
    assert torn == []


# --- the store


def table_of(view: str) -> SimpleNamespace:
    features = [SimpleNamespace(name=f.name, dtype=Float64) for f in VIEWS[view]]
    return SimpleNamespace(name=view, tags={"live": "true"}, features=features)


def test_the_live_view_is_refused() -> None:
    with pytest.raises(LiveStateWriteError, match="live_state"):
        PortraitOnlineStore().write_table(None, table_of("live_state"), pa.table({}))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[str]:
    arguments = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    process, port = start_server(tmp_path, *arguments)
    try:
        with redis.Redis(port=port) as server:
            server.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")
            while server.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                pass
        yield f"redis+cluster://127.0.0.1:{port}/0"
    finally:
        stop_server(process)


def test_a_cluster_takes_rows_of_many_slots(node: str) -> None:
    client = connect(node)
    keys = [b"k%d" % n for n in range(300)] + [b"{p001}%d" % n for n in range(300)]
    rows = [packed_row((1, 0), b"%d" % n, b"") for n in range(600)]
    assert batch_rows.write(client, NAMES, keys, rows) == 600
    assert batch_rows.write(client, NAMES, keys, [packed_row((0, 9), b"old", b"")] * 600) == 0
    assert [client.hget(key, b"aaaa") for key in keys] == [b"%d" % n for n in range(600)]
    client.close()


def test_a_store_that_goes_away_is_told(tmp_path: Path) -> None:
    process, port = start_server(tmp_path)
    client = connect(f"redis://127.0.0.1:{port}/0")
    client.ping()
    stop_server(process)
    with pytest.raises(StoreUnavailableError):
        list(batch_rows.write_all(client, NAMES, [([b"k"], [packed_row((1, 0), b"a", b"b")])]))
    client.close()
