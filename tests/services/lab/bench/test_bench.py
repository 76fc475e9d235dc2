"""The bench measures what it says; how fast it is, no test says."""

import os
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import redis
from gateway_thread import Api

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import EventRecord
from feature_repo.online.live_row import LiveState
from feature_repo.online.live_rows import read_live
from feature_repo.user_profile import explicit
from services.client import ApiError
from services.lab.bench import http, plots, soak, where
from services.lab.bench import model as bench_model
from services.lab.bench import rows as bench_rows
from services.lab.bench.feast import FeastPush
from services.lab.bench.floor import Floor, PlainFloor, floor_cursor, floor_key
from services.lab.bench.load import Load, body_of, offers, records_of
from services.lab.bench.materialize import MaterializeLoad as RowsLoad
from services.lab.bench.materialize import measure_materialize
from services.lab.bench.offline import OfflineLoad as JoinLoad
from services.lab.bench.offline import measure_offline
from services.lab.bench.rounds import Rounds, Scale
from services.lab.bench.service import table
from services.lab.bench.traffic import Traffic, TrafficRhythm
from services.lab.bench.updates import measure_updates
from services.models.transition import Transition
from tests.feature_repo.fixed_shop import LOG
from training.network.model_dir import load
from training.scoring.transition import LearnedTransition

NOW_MS = 1_700_000_000_000
PSEUDONYMS = Pseudonyms(bytes(16), 16)
OFFERS = offers([f"item-{n}" for n in range(40)])
FIGURES = {
    "applied_per_s", "floor_per_s", "of_floor", "feast_push_per_s", "over_feast_push",
    "cost_10000_over_10", "bytes_per_user_p95", "event_to_profile_ms", "trivial_request_ms",
    "over_trivial_request", "ack_per_s", "replay_per_s",
}  # fmt: skip
TINY = Scale(
    users=20, batch=20, batches=3, rounds=1, clients=2, requests=20, pushes=4, cost_users=4,
    cost_rounds=2, size_users=None,
)  # fmt: skip


def silent(done: int, total: int, what: str) -> None:
    pass


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """The fixed shop's 60 events, its three users under real pseudonyms."""
    made = Archive(tmp_path_factory.mktemp("shop") / "archive" / "events")
    names = {event.user: PSEUDONYMS.of_user(event.user) for event in LOG}
    for event in LOG:
        record = EventRecord.decode(event.encode())
        record.user = names[event.user]
        made.append(event.id, [(LogPosition.imported(event.time_ms), record)])
    return made


@pytest.fixture(scope="module")
def model(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench_model.write_untrained(archive, tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def learned(model: Path) -> LearnedTransition:
    return LearnedTransition(load(model))


def batches(count: int, size: int = 30, users: int = 7) -> list[list[EventRecord]]:
    load = Load(OFFERS, users=users, seed="t")
    return [records_of(load.batch(n, size), PSEUDONYMS, NOW_MS) for n in range(count)]


def test_the_load_is_the_same_every_time_and_valid() -> None:
    one, other = Load(OFFERS, users=9, seed="a"), Load(OFFERS, users=9, seed="a")
    events = one.batch(3, 400)
    assert events == other.batch(3, 400) != Load(OFFERS, users=9, seed="b").batch(3, 400)
    assert len({event["id"] for event in events}) == 400
    records = records_of(events, PSEUDONYMS, NOW_MS)  # raises on an event that the API would refuse
    assert len({record.user for record in records}) == 9
    kinds = Counter(record.type for record in records)
    assert kinds["view_item"] > 200
    assert kinds["purchase"] > 5
    assert kinds["search"] > 5


def test_the_floor_leaves_rows_and_cursor_and_nothing_else(
    store_client: "redis.Redis", learned: LearnedTransition
) -> None:
    parts = batches(3)
    Floor(store_client, learned, "f").run(parts)
    histories: dict[str, list[EventRecord]] = {}
    for record in (record for part in parts for record in part):
        histories.setdefault(record.user, []).append(record)
    states = {user: store_client.hget(floor_key("f", user), "state") for user in histories}
    assert list(states.values()) == learned.replay(list(histories.values()))
    assert store_client.get(floor_cursor("f")) == b"90"
    assert store_client.dbsize() == len(histories) + 1


def test_the_plain_floor_steps_every_user_event_by_event(store_client: "redis.Redis") -> None:
    floor = PlainFloor(store_client, 100, dim=4, hidden=6)
    parts = batches(2, size=12, users=3)
    floor.run(parts)
    assert store_client.get(floor_cursor("plain")) == b"24"
    users = {record.user for part in parts for record in part}
    assert store_client.dbsize() == len(users) + 1
    weight = floor._embedding.weight.detach().numpy()
    for user in users:
        state = np.frombuffer(store_client.hget(floor_key("plain", user), "state"), np.float32)
        assert state.shape == (2 * 4 + 2 * 6,)
        own = [e.items[0].item_id if e.items else None for p in parts for e in p if e.user == user]
        # The convolution's ring: the embeddings of the last two items, whatever the batches.
        rows = [0 if item is None else zlib.crc32(item.encode()) % 100 for item in own[-2:]]
        np.testing.assert_array_equal(state[: 2 * 4], weight[rows].ravel())
        assert np.abs(state[8:]).min() > 0


def test_feast_push_really_pushes(redis_url: str, store_client: "redis.Redis", tmp_path: Path
                                  ) -> None:  # fmt: skip
    push = FeastPush(tmp_path, redis_url)
    row = LiveState(b"profile", b"learned", 1, "m-1", 0)
    assert push.run(["a", "b", "a", "a"], row, silent) > 0
    assert push.read("a") == {
        "user": "a", "profile": b"profile", "learned": b"learned", "version": 3, "model": "m-1"
    }  # fmt: skip
    assert push.read("b")["version"] == 1
    assert push.read("c")["version"] is None
    assert store_client.dbsize() == 2


@pytest.mark.parametrize("with_model", [False, True])
def test_sizes_are_those_of_whole_histories(
    archive: Archive, learned: LearnedTransition, with_model: bool
) -> None:
    found = bench_rows.sizes(Transition(learned if with_model else None), archive, silent)
    histories = dict(archive.histories())
    profiles = sorted(len(explicit.encode(explicit.fold(h))) for h in histories.values())
    assert (found["users"], found["events"]) == (3, len(LOG))
    assert found["explicit"]["max"] == profiles[-1]
    assert found["explicit"]["p50"] == profiles[1]
    assert (found["learned"]["max"] > 500) == with_model
    assert profiles[-1] <= found["bytes"]["max"] <= profiles[-1] + found["learned"]["max"]
    only = bench_rows.sizes(Transition(None), archive, silent, list(histories)[:1])
    assert only["users"] == 1


def test_a_replay_loads_the_fold_of_the_archive(
    archive: Archive, learned: LearnedTransition, store_client: "redis.Redis"
) -> None:
    transition = Transition(learned)
    found = bench_rows.replay(transition, archive, store_client, silent)
    assert (found["events"], found["users"]) == (len(LOG), 3)
    histories = dict(archive.histories())
    rows = dict(zip(histories, read_live(store_client, list(histories)), strict=True))
    assert rows == transition.fold(histories)


def test_the_cost_is_of_users_with_exactly_that_many_events(store_client: "redis.Redis") -> None:
    def history(shopper: int, numbers: range) -> list[EventRecord]:
        load = Load(OFFERS, users=1, seed=str(shopper))
        bodies = [load.event(n, f"u{shopper}") | {"time": NOW_MS + n * 60_000} for n in numbers]
        return records_of(bodies, PSEUDONYMS, NOW_MS)

    cost = bench_rows.UpdateCost(store_client, Transition(None), history, users=3)
    cost.DISTINCT = 1
    rows = cost.rows(10_000, 10_000)
    assert [row.version for row in rows.values()] == [10_000] * 3
    assert {row.version for row in cost.rows(10, 10_000).values()} == {10}
    taken = cost.measure((10, 500), rounds=3, tell=silent)
    assert {length: len(values) for length, values in taken.items()} == {10: 3, 500: 3}
    # The last update was of rows put back to 10 events, in the third round as in the first.
    left = read_live(store_client, cost.users)
    assert {row.version for row in left if row is not None} == {11}


class FakeClock:
    """A clock that moves when somebody sleeps or a request takes its time."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def perf_counter(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_a_late_request_counts_from_the_time_it_was_due(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, answers_s = FakeClock(), iter([0.0, 0.001, 0.05, 0.001, 0.001])  # the first connects

    class Connection:
        def __init__(self, client: Any) -> None:
            pass

        def call(self, *request: Any) -> bytes:
            clock.now_s += next(answers_s)
            return b""

        def __enter__(self) -> "Connection":
            return self

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(http, "time", clock)
    monkeypatch.setattr(http, "Connection", Connection)
    requests: Sequence[tuple[str, str, bytes | None]] = [("GET", "/", None)] * 4
    taken_ms = http.send_paced(None, requests, per_s=100, clients=1)  # type: ignore[arg-type]
    # Due every 10 ms: the third waited 40 ms for the second's answer, the fourth 31 ms.
    assert taken_ms == pytest.approx([1, 50, 41, 32])


def test_batches_posted_side_by_side_are_all_applied(api: Api) -> None:
    load = Load(OFFERS, users=5, seed="post")
    bodies = [body_of(load.batch(n, 25)) for n in range(6)]
    with api.client() as client:
        posted = http.post_batches(client, bodies, clients=3, tell=silent)
        assert (posted.accepted, posted.put_off) == (150, 0)
        client.wait_applied(posted.receipt)
        versions = [client.profile(load.user(n))["version"] for n in range(5)]
        assert sum(versions) == 150
        # A refusal is an error, not a figure.
        with pytest.raises(ApiError):
            http.post_batches(client, [b"[{}]"], clients=1, tell=silent)


def test_a_stage_of_the_service_bench_waits_for_the_last_event(
    api: Api, learned: LearnedTransition
) -> None:
    rounds = Rounds(TINY, Load(OFFERS, users=20, seed="stage"), learned, silent)
    with api.client() as client:
        before = client.applied()
        rate, posted = rounds._apply(client, rounds._round(0))
        assert rate > 0
        assert client.applied() == before + posted.accepted == before + 60
        series = rounds._latency(client)
    assert {name: len(values) for name, values in series.items()} == {"event": 20, "trivial": 20}
    assert min(series["event"]) > 0


@pytest.mark.parametrize(
    ("kind", "stack", "part"),
    [
        ("Gateway", "run (uvicorn/x.py:1);_take (services/gateway/ingest.py:137)", "validate"),
        ("Gateway", "run (uvicorn/x.py:1)", "HTTP and Serve"),
        ("Updater", "decode (feature_repo/user_profile/x.py:2);a (b.py:1)", "profile bytes"),
        ("Updater", "apply (feature_repo/user_profile/x.py:1);touch (h.py:2)", "profile fold"),
        ("Updater", "commit (feature_repo/online/live_rows.py:3);send (redis/x.py:2)", "commit"),
        ("Updater", "read_batch (feature_repo/online/x.py:3);send (redis/x.py:2)", "read rows"),
        ("Updater", "a (training/scoring/transition.py:3);b (torch/nn.py:2)", "model step"),
    ],
)  # fmt: skip
def test_a_sample_belongs_to_the_part_it_was_taken_in(kind: str, stack: str, part: str) -> None:
    assert where.parts(kind, [f"{stack} 4"]) == Counter({part: 4})
    waiting = f"{stack};Condition.wait (threading.py:331) 9"
    assert not where.parts(kind, [waiting])


def test_every_part_names_files_that_exist() -> None:
    root = Path(where.__file__).parents[3]
    files = [
        f"{name} ({path.relative_to(root)}:1)"
        for room in ("services", "training", "feature_repo")
        for path in sorted((root / room).rglob("*.py"))
        for name in ("", "encode", "read_batch", "_round")
    ]
    for kind in where.PARTS:
        found = where.parts(kind, [f"{frame} 1" for frame in files])
        assert set(found) == {name for name, _ in where.PARTS[kind]} | {where.REST[kind]}


def test_a_named_model_goes_before_the_newest_and_that_before_a_new_one(
    archive: Archive, model: Path, tmp_path: Path
) -> None:
    version = load(model).version
    home = tmp_path / "home"
    (home / "models").mkdir(parents=True)
    assert bench_model.model_of(model, home, archive, tmp_path) == (model, version)
    made, label = bench_model.model_of(None, home, archive, tmp_path / "new")
    assert label == bench_model.UNTRAINED
    assert load(made).vocabulary.items == load(model).vocabulary.items
    (home / "models" / "newest").symlink_to(model)
    assert bench_model.model_of(None, home, archive, tmp_path)[1] == version
    assert bench_model.archive_of(archive.root.parent.parent, tmp_path, silent).root == archive.root


def test_traffic_keeps_its_counts(api: Api) -> None:
    rhythm = TrafficRhythm(
        singles_per_s=400, batches_per_s=40, batch=5, recommendations_per_s=100, users=8
    )
    with api.client() as client:
        traffic = Traffic(client, OFFERS, rhythm)
        before = client.applied()
        taken: dict[str, list[float]] = {"event": [], "recommendation": []}
        with traffic.flowing():
            while traffic.events < 60 or not taken["recommendation"]:
                for name, values in traffic.fresh().items():
                    taken[name] += values
        taken["event"] += traffic.fresh()["event"]
        assert traffic.failures == {}
        assert (traffic.events - len(taken["event"])) % 5 == 0
        receipt = client.post_event({"type": "login", "user_id": "last"}, return_profile=True)
        client.wait_applied(receipt["receipt"])
    assert traffic.events >= 60
    assert client_applied(api) >= before + traffic.events - 40


def client_applied(api: Api) -> int:
    with api.client() as client:
        return client.applied()


def test_trends_leave_the_warm_up_out_and_find_what_grows(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    samples = [
        {
            "seconds": 6.0 * n,
            "PSS Gateway, MB": 900.0 - 80 * n if n < 20 else 300 + float(draw.normal()),
            "files store": 10 + n / 60,
            "lag, s": 0.0,
            "event p50, ms": 3.0,
        }
        for n in range(200)
    ]
    found = soak.trends(samples)
    low, high = found["PSS Gateway, MB"]["per_hour_95"]
    assert low < 0 < high
    assert found["PSS Gateway, MB"]["max"] < 310
    assert found["files store"]["per_hour"] == pytest.approx(10, abs=1e-6)
    assert found["files store"]["per_hour_95"][0] > 9.9
    assert found["lag, s"]["per_hour_95"] == [0.0, 0.0]
    orjson.loads(orjson.dumps(found))
    picture = plots.soak(samples)
    assert picture.startswith("<svg")
    for name in ("Gateway", "files store", "lag, s"):
        assert f"<!-- {name} -->" in picture


def test_the_table_leaves_out_what_is_only_json() -> None:
    rows = table({"applied_per_s": 12_345, "ack_per_s": {"always": 1}, "details": {"x": {"y": 1}}})
    assert rows.row_count == 2


@pytest.fixture
def hushed() -> Iterator[None]:
    # The service's processes inherit the environment; a setting there would change the bench.
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PORTRAIT_")}
    yield
    os.environ.update(kept)


@pytest.mark.slow
@pytest.mark.usefixtures("hushed")
def test_one_run_gives_exactly_the_figures(
    archive: Archive, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = measure_updates(
        model=model, data=archive.root.parent.parent, tell=silent, scale=TINY
    )  # fmt: skip
    assert set(found) == FIGURES | {"details"}
    assert set(found["event_to_profile_ms"]) == {"p50", "p99"}
    assert set(found["trivial_request_ms"]) == {"p50"}
    assert set(found["ack_per_s"]) == {"always", "everysec"}
    figures = [
        v
        for k in FIGURES
        for v in (found[k].values() if isinstance(found[k], dict) else [found[k]])
    ]
    assert all(isinstance(value, int | float) and value > 0 for value in figures)
    assert found["of_floor"] == pytest.approx(
        found["applied_per_s"] / found["floor_per_s"], abs=0.0006
    )
    assert found["details"]["model"] == load(model).version
    assert sum(found["details"]["where"]["share"].values()) == pytest.approx(1, abs=0.02)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("portrait-bench")]
    orjson.dumps(found)


def test_loading_is_measured_both_ways_and_leaves_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORTRAIT_HOME", "PORTRAIT_REDIS_URL"):
        monkeypatch.setenv(name, "")  # given back afterwards
    found = measure_materialize(tell=silent, load=RowsLoad(rows=30, rounds=1))
    assert found["rows"] == 90
    assert min(found["rows_per_s"], found["feast_local_rows_per_s"], found["ratio"]) > 0


def test_the_join_is_measured_against_polars_and_gives_the_same() -> None:
    found = measure_offline(
        tell=silent, load=JoinLoad(entities=200, events=4_000, parts=3, rounds=1)
    )
    assert (found["rows_in"], found["rows_out"]) == (200, 200)
    assert min(found["seconds"], found["polars_asof_seconds"], found["ratio"]) > 0
