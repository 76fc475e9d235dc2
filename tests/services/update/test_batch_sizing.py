"""How rounds grow and shrink, and where batches are cut: no store needed."""

import pytest
from event_log import event, users_of

from services.event_log.batch import USER_EVENTS, cut_batch
from services.event_log.entries import LogEntry
from services.update.batch_sizing import (
    IDLE_ENTRIES,
    ROUND_BYTES,
    ROUND_ENTRIES,
    SLOW_S,
    BatchSizing,
)


def entries(users: list[str], size: int = 0) -> list[LogEntry]:
    return [
        (b"%d-0" % n, {b"e": event(user, str(n), url="x" * size).encode()})
        for n, user in enumerate(users, 1)
    ]


def give(sizing: BatchSizing, partition: int, asked: int, size: int = 0) -> None:
    users = [u for u, _ in zip(users_of(partition), range(50), strict=False)]
    found = entries([users[n % 50] for n in range(asked)], size)
    sizing.note_batch(cut_batch(partition, found), asked)


def test_a_partition_that_is_behind_is_asked_for_more_the_others_stay_small() -> None:
    sizing, partitions = BatchSizing(), range(4)
    assert set(sizing.counts(partitions).values()) == {IDLE_ENTRIES}
    seen = list[int]()
    for _ in range(8):
        counts = sizing.counts(partitions)
        assert sum(counts.values()) <= ROUND_ENTRIES
        assert {counts[p] for p in (0, 1, 3)} == {IDLE_ENTRIES}
        seen.append(counts[2])
        give(sizing, 2, counts[2])
    assert seen == sorted(seen)
    assert seen[-1] == ROUND_ENTRIES - 3 * IDLE_ENTRIES
    sizing.note_nothing(2)
    assert sizing.counts(partitions)[2] == IDLE_ENTRIES


def test_partitions_that_are_behind_share_a_round() -> None:
    sizing = BatchSizing()
    for _ in range(8):
        for partition, asked in sizing.counts(range(4)).items():
            give(sizing, partition, asked)
    assert set(sizing.counts(range(4)).values()) == {ROUND_ENTRIES // 4}


def test_large_events_make_rounds_smaller() -> None:
    sizing = BatchSizing()
    for _ in range(8):
        give(sizing, 0, sizing.counts([0])[0], size=2000)
    asked = sizing.counts([0])[0]
    assert asked * 2000 <= ROUND_BYTES
    for _ in range(3):
        give(sizing, 0, IDLE_ENTRIES, size=32_000)
    assert sizing.counts([0])[0] * 32_000 <= ROUND_BYTES


def test_slow_rounds_get_smaller_and_recover() -> None:
    sizing = BatchSizing()
    for _ in range(8):
        give(sizing, 0, sizing.counts([0])[0])
    full = sizing.counts([0])[0]
    sizing.note_duration(2 * SLOW_S, full)
    assert sizing.counts([0])[0] == full // 2
    for _ in range(10):
        sizing.note_duration(2 * SLOW_S, sizing.counts([0])[0])
    assert sizing.counts([0])[0] == IDLE_ENTRIES
    for _ in range(10):
        sizing.note_duration(SLOW_S / 10, IDLE_ENTRIES)
    assert sizing.counts([0])[0] == full


def test_many_partitions_stay_within_a_round() -> None:
    counts = BatchSizing().counts(range(1000))
    assert sum(counts.values()) <= ROUND_ENTRIES
    assert min(counts.values()) >= 1


@pytest.mark.parametrize("others", [0, 3])
def test_a_batch_ends_before_one_user_has_too_much(others: int) -> None:
    busy, beside = (u for u, _ in zip(users_of(1), range(2), strict=False))
    found = entries([beside] * others + [busy] * (USER_EVENTS + 5) + [beside])
    batch = cut_batch(1, found)
    assert batch.taken == others + USER_EVENTS == len(batch.events)
    assert batch.end == f"{batch.taken}-0"
    rest = cut_batch(1, found[batch.taken :])
    assert [e.id for e in batch.events + rest.events] == [str(n + 1) for n in range(len(found))]


def test_a_batch_ends_with_a_model_switch() -> None:
    user = next(users_of(1))
    found = entries([user] * 3)
    found.insert(2, (b"2-1", {b"m": b"v2"}))
    batch = cut_batch(1, found)
    assert (batch.model, batch.end, batch.taken, len(batch.events)) == ("v2", "2-1", 3, 2)
    assert cut_batch(1, found[3:]).model is None
