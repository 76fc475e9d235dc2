"""Late events: marked where they are shown, counted, and measured where the answer is known."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from gateway_thread import Api

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.events.schema import EventRecord, ItemRecord
from services.lab.bench.lateness import differences

DAY_MS = 86_400_000


def purchase(user: str, name: str, day: int, item: str, value: float = 5.0) -> EventRecord:
    return EventRecord(
        id=name, type="purchase", user=user, time_ms=day * DAY_MS, received_ms=day * DAY_MS,
        order_id=name, value=value, items=[ItemRecord(item, category="C", brand="B")],
    )  # fmt: skip


def archive_of(folder: Path, *histories: list[EventRecord]) -> Archive:
    archive = Archive(folder / "events")
    entries = [
        (LogPosition(n, index), event)
        for index, history in enumerate(histories)
        for n, event in enumerate(history, 1)
    ]
    archive.append("part", entries)
    return archive


def tell(done: int, total: int, what: str) -> None:
    pass


def test_events_in_time_differ_in_nothing(tmp_path: Path) -> None:
    histories = [[purchase(f"u{u}", f"{u}-{n}", n, f"i{n % 3}") for n in range(9)] for u in (1, 2)]
    found = differences(archive_of(tmp_path, *histories), tell=tell)
    assert found == {
        "events": 18, "late": 0.0, "users": 2, "users_differ": 0.0, "one_sided": 0.0,
        "weight_p95": 0.0, "weight_max": 0.0, "orders_differ": 0.0, "spend_max": 0.0,
    }  # fmt: skip


def test_a_late_event_is_found_and_what_does_not_depend_on_order_stays(tmp_path: Path) -> None:
    late = [purchase("u1", "a", 1, "A"), purchase("u1", "c", 9, "C"), purchase("u1", "b", 5, "B")]
    in_time = [purchase("u2", str(n), n, "A") for n in range(3)]
    found = differences(archive_of(tmp_path, late, in_time), tell=tell)
    assert (found["late"], found["users_differ"]) == (pytest.approx(1 / 6, abs=1e-6), 0.5)
    assert (found["orders_differ"], found["spend_max"]) == (0, 0)
    assert found["one_sided"] == 0
    assert found["weight_max"] < 1e-5  # each weight counts at its event's own time


def test_an_order_torn_apart_by_a_late_one_counts_once(tmp_path: Path) -> None:
    parts = [
        purchase("u1", "o1", 1, "A"),
        purchase("u1", "o2", 2, "B"),
        purchase("u1", "x", 1, "C"),
    ]
    parts[2].order_id = "o1"
    found = differences(archive_of(tmp_path, parts), tell=tell)
    assert found["orders_differ"] == 0
    assert found["weight_max"] == 0


def test_displaced_events_are_late_as_often_and_alike_each_time(tmp_path: Path) -> None:
    history = [purchase("u1", str(n), 0, "A") for n in range(400)]
    for n, event in enumerate(history):
        event.time_ms = n * 60_000  # a minute apart: a delay is all but always seen
    archive = archive_of(tmp_path, history)
    found = differences(archive, share=0.2, tell=tell)
    assert 0.13 < found["late"] < 0.27
    assert differences(archive, share=0.2, tell=tell) == found
    assert differences(archive, share=0.01, tell=tell)["late"] < 0.03


def test_late_events_are_marked_and_counted(api: Api) -> None:
    now = datetime.now(UTC)
    with api.client() as client:
        before = counted(client.metrics())
        for name, minutes in (("newest", 0), ("late", 71 * 60), ("a-little-late", 4)):
            time = (now - timedelta(minutes=minutes)).isoformat()
            event = {"type": "login", "user_id": "u", "id": name, "time": time}
            receipt = client.post_event(event)["receipt"]
        shown = client.events("u", after=receipt)["events"]
        # In log order, newest first; only what came more than five minutes late is marked.
        assert [(event["id"], event.get("late", False)) for event in shown] == [
            ("a-little-late", False), ("late", True), ("newest", False),
        ]  # fmt: skip
        profile = client.profile("u", after=receipt)
        assert profile["provenance"]["late_events"] == 2  # behind one of a later time
        assert profile["updated_at"].startswith(now.strftime("%Y-%m-%dT%H:%M"))
        numbers = client.metrics()
        assert counted(numbers) - before == 1
        assert "portrait_events_out_of_order_total 2" in numbers


def counted(numbers: str) -> float:
    """Return how many late events the gateway has counted."""
    lines = [line for line in numbers.splitlines() if line.startswith("portrait_events_late_total")]
    return float(lines[0].split()[1])
