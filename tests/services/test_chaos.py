"""The proof by fire: its judge finds what is wrong, and what it breaks is caught."""

import math
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import orjson
import psutil
import pytest
import redis
from event_log import PARTITIONS, TENANT, Sum, append, drain, event, loop
from typer.testing import CliRunner

from feature_repo.archive import Archive
from feature_repo.errors import InvalidInputError, PortraitError
from feature_repo.events import EventRecord
from feature_repo.live_row import LiveState, row_key
from feature_repo.live_store import load_live, read_live
from services.chaos import guards
from services.chaos.check import Check, Findings
from services.chaos.load import PROMISE_S, Sender
from services.chaos.plan import Plan
from services.chaos.result import verdict
from services.chaos.run import chaos, lags
from services.chaos.store import FORGETS_S, MortalStore
from services.cli import app
from services.log.archiver import Archiver
from services.log.keys import log_key, voided_key
from services.transition import Transition
from services.update.updater import UpdaterLoop

BATCH = 2


class Scene:
    """A sender's events in a real log, applied by a real updater, judged afterwards."""

    def __init__(self, url: str, client: redis.Redis, home: Path) -> None:
        self.url = url
        self.client = client
        self.archive = Archive(home / "archive" / "events")
        self.sender = Sender("s", BATCH, users=5)
        self.updater: UpdaterLoop = loop(url, home, Sum())

    def record(self, number: int) -> EventRecord:
        return event(self.sender.user(number), f"{self.sender.name}-{number}")

    def send(self, numbers: range, *, acked: bool = True) -> list[EventRecord]:
        """Note batches as sent, and as acknowledged two seconds later; append nothing."""
        for number in numbers[::BATCH]:
            self.sender.sent_s.append(float(number))
            if acked:
                self.sender.acked_s.append(number + 2.0)
        return [self.record(number) for number in numbers]

    def append(self, records: list[EventRecord]) -> None:
        append(self.url, records)

    def apply(self) -> None:
        while any(lags(self.client, partition) for partition in range(PARTITIONS)):
            drain(self.updater)

    def judge(self, *cuts_s: float) -> Findings:
        check = Check(
            self.client, self.archive, Transition(Sum()), TENANT, [self.sender], cuts_s
        )  # fmt: skip
        for partition in range(PARTITIONS):
            check.partition(partition)
        return check.finish()

    def entry(self, number: int) -> tuple[bytes, bytes]:
        """Return log and entry of an event."""
        record = self.record(number)
        log = log_key(int(record.user[2:5]))
        return log, next(n for n, f in self.client.xrange(log) if f[b"e"] == record.encode())


@pytest.fixture
def scene(redis_url: str, store_client: redis.Redis, tmp_path: Path) -> Scene:
    made = Scene(redis_url, store_client, tmp_path)
    made.append(made.send(range(60)))
    made.apply()
    return made


def test_a_clean_history_is_clean(scene: Scene) -> None:
    found = scene.judge()
    assert found.violations() == {}
    assert (found.events_in_log, found.users, found.examples) == (60, 5, [])


def test_it_is_clean_when_it_is_archived_in_part_and_when_it_is_in_both(scene: Scene) -> None:
    partition = int(scene.record(0).user[2:5])
    kept = scene.client.xrange(log_key(partition))
    assert Archiver(scene.client, scene.archive).run([partition]) == len(kept)
    assert scene.judge().violations() == {}
    scene.client.delete(log_key(partition))
    for name, fields in kept:  # as if the archiver had died before it let the log go
        scene.client.xadd(log_key(partition), fields, id=name)
    found = scene.judge()
    assert found.violations() == {}
    assert found.events_in_log == 60


def test_an_acknowledged_event_that_stands_nowhere_is_lost(scene: Scene) -> None:
    scene.client.xdel(*scene.entry(17))
    found = scene.judge()
    assert found.violations() == {"lost": 1, "wrong": 1}  # its effect is in the row
    assert any("s-17" in example for example in found.examples)


def test_one_that_was_not_acknowledged_may_stand_there_or_not(scene: Scene) -> None:
    records = scene.send(range(60, 64), acked=False)
    scene.append(records[:2])
    scene.apply()
    assert scene.judge().violations() == {}


@pytest.mark.parametrize(
    ("cut_s", "forgotten"),
    [(61.0, 2), (62.0, 2), (62.0 + PROMISE_S, 2), (62.1 + PROMISE_S, 0), (59.9, 0)],
    ids=["under way", "at once", "just", "too late", "before"],
)
def test_a_power_cut_excuses_what_was_acknowledged_just_before(
    scene: Scene, cut_s: float, forgotten: int
) -> None:
    scene.send(range(60, 62))  # sent at 60, acknowledged at 62, and it stands nowhere
    found = scene.judge(cut_s)
    assert (found.forgotten, found.lost) == (forgotten, 2 - forgotten)
    assert scene.judge().lost == 2


def test_an_event_at_two_positions_is_doubled(scene: Scene) -> None:
    log, entry = scene.entry(17)
    [(_, fields)] = scene.client.xrange(log, entry, entry)
    scene.client.xadd(log, fields)
    scene.apply()
    assert scene.judge().violations() == {"doubled": 1}


def test_it_is_doubled_too_when_one_of_them_is_in_the_archive(scene: Scene) -> None:
    log, entry = scene.entry(17)
    [(_, fields)] = scene.client.xrange(log, entry, entry)
    assert Archiver(scene.client, scene.archive).run(range(PARTITIONS)) == 60
    scene.client.xadd(log, fields)
    scene.apply()
    assert scene.judge().violations() == {"doubled": 1}


def test_another_order_than_that_of_sending_is_found(scene: Scene) -> None:
    records = scene.send(range(60, 100))
    mine = [n for n, record in enumerate(records) if record.user == records[0].user]
    records[mine[0]], records[mine[-1]] = records[mine[-1]], records[mine[0]]
    scene.append(records)
    scene.apply()
    found = scene.judge()
    assert found.violations() == {"misordered": 1}
    assert scene.judge(math.inf).violations() == {"misordered": 1}
    assert scene.judge(*map(float, range(60, 110))).violations() == {}  # sent again after cuts


@pytest.mark.parametrize(
    "changed",
    [
        lambda row: {"profile": row.profile + b" "},
        lambda row: {"learned": row.learned.replace(b"s-1;", b"s-0;") + b";"},
        lambda row: {"version": row.version + 1},
        lambda row: {"model": ""},
        lambda row: {"time_ms": row.time_ms - 1},
    ],
    ids=["profile", "learned", "version", "model", "time_ms"],
)
def test_a_row_that_is_not_the_fold_is_wrong(
    scene: Scene, changed: Callable[[LiveState], dict[str, Any]]
) -> None:
    user = scene.record(1).user
    [row] = read_live(scene.client, [user])
    assert row is not None
    load_live(scene.client, {user: replace(row, **changed(row))})
    assert scene.judge().violations() == {"wrong": 1}


def test_a_row_that_lacks_or_has_no_history_is_wrong(scene: Scene) -> None:
    scene.client.delete(row_key(scene.record(1).user))
    assert scene.judge().violations() == {"wrong": 1}
    scene.client.delete(*scene.client.keys("{p*}log"))
    assert scene.judge().wrong == 4
    assert scene.judge().lost == 60


def test_a_voided_entry_has_no_part_in_the_fold(scene: Scene) -> None:
    log, entry = scene.entry(17)
    scene.client.sadd(voided_key(int(log[2:5])), entry)
    assert scene.judge().violations() == {"wrong": 1}  # the row has it all the same


def test_what_is_not_applied_yet_makes_no_row_wrong(scene: Scene) -> None:
    scene.append(scene.send(range(60, 80)))
    found = scene.judge()
    assert found.violations() == {}
    assert found.events_in_log == 80


@pytest.mark.parametrize("name", ["x-1", "s-999", "s-61"])
def test_an_event_that_nobody_sent_for_this_user_is_found(scene: Scene, name: str) -> None:
    scene.send(range(60, 62))
    scene.append([scene.record(60), event("stranger", name)])
    scene.apply()
    assert scene.judge().wrong == 1


def test_dead_letters_are_reported_and_have_no_effect(
    redis_url: str, store_client: redis.Redis, tmp_path: Path
) -> None:
    scene = Scene(redis_url, store_client, tmp_path)
    scene.sender = Sender("poison", BATCH, users=5)
    scene.append(scene.send(range(6)))
    scene.apply()
    assert scene.judge().violations() == {"dead": 6}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MortalStore]:
    made = MortalStore(tmp_path / "store", "always")  # everysec may lose writes on a slow disk
    try:
        made.start()
        yield made
    finally:
        made.stop()


def keys_of(store: MortalStore) -> int:
    with redis.Redis.from_url(store.url) as client:
        return int(client.dbsize())


def fill(store: MortalStore, count: int, bytes_each: int = 2000) -> None:
    with redis.Redis.from_url(store.url) as client:
        for number in range(client.dbsize(), client.dbsize() + count):
            client.set(f"key-{number}", b"x" * bytes_each)


def test_a_killed_store_comes_back_when_it_is_told_to(store: MortalStore) -> None:
    fill(store, 20)
    url = store.url
    store.kill()
    assert not store.alive
    with pytest.raises(redis.ConnectionError):
        keys_of(store)
    store.start()
    store.start()
    assert (store.url, keys_of(store)) == (url, 20)


def test_a_power_cut_takes_what_was_written_last_and_no_more(store: MortalStore) -> None:
    fill(store, 20)
    store.watch(100.0)
    fill(store, 20)
    taken = store.cut_power(random.Random(1), 100.0 + FORGETS_S)
    store.start()
    assert 0 < taken <= 20 * 2100
    assert 20 <= keys_of(store) < 40
    left = keys_of(store)
    store.watch(200.0)
    fill(store, 20)
    assert store.cut_power(random.Random(1), 200.1 + FORGETS_S) == 0
    store.start()
    assert keys_of(store) == left + 20


def test_every_other_power_cut_takes_what_was_written_since_the_last_look(
    store: MortalStore,
) -> None:
    class Draw(random.Random):
        def random(self) -> float:
            return 0.0

    store.watch(99.0)
    fill(store, 30)
    store.watch(100.0)
    assert not store.grew
    fill(store, 2, 10)  # less than the least of the other cuts
    assert store.grew
    assert 0 < store.cut_power(Draw(1), 100.1) < 200
    store.start()
    assert keys_of(store) == 30


@pytest.mark.parametrize("guard", ["fence", "last-entry", "dedup"])
def test_a_guard_is_taken_out_of_a_copy(
    guard: guards.Guard, store_client: redis.Redis, tmp_path: Path
) -> None:
    code = guards.without(guard, tmp_path)
    assert not list(tmp_path.rglob("__pycache__"))
    name = guards._LINES[guard][0]
    store_client.script_flush()
    assert not guards.runs(store_client, guard, code)
    store_client.script_load((code / name).read_text())  # it is still Lua
    assert guards.runs(store_client, guard, code)
    store_client.script_load((Path(guards.__file__).parents[2] / name).read_text())
    assert not guards.runs(store_client, guard, code)


def test_a_guard_that_is_not_found_is_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ("services/log/append.lua", ("no such line",))
    monkeypatch.setitem(guards._LINES, "dedup", lines)
    with pytest.raises(PortraitError, match="does not hold the guard 'dedup' exactly once"):
        guards.without("dedup", tmp_path)


def test_power_cuts_and_durability_always_exclude_each_other() -> None:
    with pytest.raises(InvalidInputError, match="use --durability everysec"):
        Plan(power_cuts=True, durability="always")
    arguments = ["chaos", "--break", "last-entry", "--durability", "always"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("portrait: a power cut takes")
    assert result.stderr.count("\n") == 1


def test_a_model_that_is_none_is_refused_before_anything_starts(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["chaos", "--model", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"portrait: {tmp_path} is no model directory")


def test_the_verdict_names_what_was_found() -> None:
    clean = dict.fromkeys(("lost", "doubled", "misordered", "wrong", "dead"), 0)
    assert verdict(clean | {"drained": True}) is None
    assert verdict(clean | {"drained": False}) == "not drained"
    assert verdict(clean | {"drained": True, "lost": 3, "wrong": 1}) == "3 lost, 1 wrong"


@pytest.mark.slow
@pytest.mark.parametrize("store_kills", [False, True])
def test_nothing_is_lost_doubled_or_wrong(store_kills: bool) -> None:
    """With kills of the store only ``always`` promises that: see docs/reliability.md."""
    durability: Literal["everysec", "always"] = "always" if store_kills else "everysec"
    result = chaos(Plan(seconds=40, seed=11, store_kills=store_kills, durability=durability))
    assert verdict(result) is None, result
    assert result["kills"]["updater"] + result["kills"]["gateway"] >= 1
    assert bool(result["kills"]["store"]) == store_kills
    assert min(result["acknowledged"], result["resends"], result["deliberate_repeats"]) > 0
    assert result["events_in_log"] == result["acknowledged"]
    assert "break" not in result


@pytest.mark.slow
def test_after_power_cuts_rows_and_order_are_right() -> None:
    result = chaos(Plan(seconds=40, seed=12, power_cuts=True))
    assert verdict(result) is None, result
    assert result["power_cuts"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("guard", "finding"), [("fence", "wrong"), ("last-entry", "wrong"), ("dedup", "doubled")]
)
def test_a_missing_guard_is_caught(guard: guards.Guard, finding: str) -> None:
    result = chaos(Plan(seconds=60, seed=13, guard=guard))
    assert result["caught"] is True
    assert result["break"] == guard
    assert result[finding] > 0, result


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("portrait")), "chaos", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if "kills" in line and not line.rstrip().endswith(" 0 kills"):
                break
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert (output, errors.splitlines()[-1].partition(":")[0]) == ("", "portrait")
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_result_is_the_last_line() -> None:
    command = [str(Path(sys.executable).with_name("portrait")), "chaos", "--seconds", "8", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = orjson.loads(done.stdout.splitlines()[-1])
    assert result["acknowledged"] > 0
