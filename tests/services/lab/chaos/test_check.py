"""The judge of the proof by fire finds each wrong that can be."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from event_log import PARTITIONS, PSEUDONYMS, Sum, append, drain, event, loop

from feature_repo.archive.event_archive import Archive
from feature_repo.events.schema import EventRecord
from feature_repo.online.live_row import LiveState, row_key
from feature_repo.online.live_rows import load_live, read_live
from services.event_log.archiver import Archiver
from services.event_log.keys import log_key, voided_key
from services.lab.chaos.check import Check, Findings
from services.lab.chaos.load import PROMISE_S, Sender
from services.lab.chaos.result import verdict
from services.lab.chaos.run import lags
from services.models.transition import Transition
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
            self.client, self.archive, Transition(Sum()), PSEUDONYMS, [self.sender], cuts_s
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


def test_the_verdict_names_what_was_found() -> None:
    clean = dict.fromkeys(("lost", "doubled", "misordered", "wrong", "dead"), 0)
    assert verdict(clean | {"drained": True}) is None
    assert verdict(clean | {"drained": False}) == "not drained"
    assert verdict(clean | {"drained": True, "lost": 3, "wrong": 1}) == "3 lost, 1 wrong"
