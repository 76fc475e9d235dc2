"""What was shown goes into the log, later; what cannot is counted and delays nobody."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from feature_repo.errors import StoreUnavailableError
from feature_repo.events.schema import EventRecord
from services.event_log.receipt import Appended
from services.recommend import impressions
from services.recommend.impressions import Impressions, Shown, records
from services.runtime import outbox


class Log:
    """An appender that fails as often as it is told."""

    def __init__(self, failures: int = 0, error: Exception | None = None) -> None:
        self.taken = list[EventRecord]()
        self.calls = 0
        self.open = asyncio.Event()
        self.open.set()
        self._failures = failures
        self._error = error or StoreUnavailableError("away")

    async def append(self, records: Sequence[EventRecord]) -> list[Appended]:
        self.calls += 1
        await self.open.wait()
        if self.calls <= self._failures:
            raise self._error
        self.taken += records
        return [
            Appended(0, (0, 0), "erased" if "gone" in record.user else "accepted")
            for record in records
        ]


class Count:
    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        self.value += amount


class Counts:
    """A counter by outcome, without Prometheus' registries, which a process shares."""

    def __init__(self) -> None:
        self.of = defaultdict[str, Count](Count)

    def labels(self, outcome: str) -> Count:
        return self.of[outcome]


def shown(number: int = 0, items: int = 3, user: str = "{p000}u") -> Shown:
    entries = [{"item_id": f"i{n}", "rank": n + 1} for n in range(items)]
    return Shown(user, False, f"r{number}", "home", entries, 1000, 2000)


def run(log: Log, work: Callable[[Impressions, Log], Awaitable[None]]) -> dict[str, float]:
    """Do ``work`` with a running queue, end it, and return what was counted."""
    counter = Counts()

    async def whole() -> None:
        queue = Impressions(log, counter)
        queue.start()
        await work(queue, log)
        await queue.stop()

    asyncio.run(whole())
    return {name: one.value for name, one in counter.of.items()}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impressions, "_PAUSE_S", 0.0)
    monkeypatch.setattr(outbox, "_LAST_S", 0.2)


async def note_three(queue: Impressions, log: Log) -> None:
    for number, user in enumerate(["{p000}u", "{p000}v", "{p000}gone"]):
        queue.note(shown(number, user=user))


def test_an_answer_becomes_an_event_that_names_it() -> None:
    log = Log()
    counted = run(log, note_three)
    assert counted == {"logged": 2, "lost": 0, "erased": 1}
    first = log.taken[0]
    assert (first.type, first.recommendation_id, first.placement) == (
        "view_item_list",
        "r0",
        "home",
    )
    assert [(i.item_id, i.position) for i in first.items] == [("i0", 1), ("i1", 2), ("i2", 3)]
    assert (first.time_ms, first.received_ms, first.id) == (1000, 2000, "r0.0")


def test_long_lists_are_split_and_propensities_kept() -> None:
    entries = [{"item_id": f"i{n}", "rank": n + 1, "propensity": n / 500} for n in range(450)]
    parts = records(shown()._replace(items=entries))
    assert [len(part.items) for part in parts] == [200, 200, 50]
    assert len({part.id for part in parts}) == 3
    for part in parts:
        assert part.properties is not None
        assert part.properties["propensities"] == [
            ((item.position or 0) - 1) / 500 for item in part.items
        ]
    assert records(shown())[0].properties is None


@pytest.mark.parametrize(("failures", "logged"), [(2, 2), (3, 0)])
def test_what_fails_is_tried_again_and_then_counted_lost(failures: int, logged: int) -> None:
    counted = run(Log(failures), note_three)
    assert (counted["logged"], counted["lost"]) == (logged, 0 if logged else 3)


def test_an_unexpected_failure_loses_a_group_and_not_the_next() -> None:
    async def two(queue: Impressions, log: Log) -> None:
        queue.note(shown(0))
        while not log.calls:
            await asyncio.sleep(0)
        queue.note(shown(1))

    log = Log(1, ValueError("broken"))
    assert run(log, two) == {"logged": 1, "lost": 1, "erased": 0}
    assert [record.recommendation_id for record in log.taken] == ["r1"]


def test_a_log_that_hangs_delays_nobody_and_the_overflow_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(impressions, "MOST_WAITING", 5)

    async def flood(queue: Impressions, log: Log) -> None:
        log.open.clear()
        queue.note(shown(0))
        while not log.calls:
            await asyncio.sleep(0)
        for number in range(1, 9):  # returns at once, though nothing is taken
            queue.note(shown(number))

    counted = run(Log(), flood)
    # 3 found no room; the 5 in the queue and the one under way are given up at the end.
    assert counted == {"logged": 0, "lost": 9, "erased": 0}


def test_what_waits_is_sent_at_the_end() -> None:
    async def late(queue: Impressions, log: Log) -> Any:
        log.open.clear()
        for number in range(5):
            queue.note(shown(number))
        asyncio.get_running_loop().call_later(0.05, log.open.set)

    assert run(Log(), late)["logged"] == 5
