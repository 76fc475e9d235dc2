"""The log, the leases and the updater's step, on a real server and without threads."""

import asyncio
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

from feature_repo.archive import Archive
from feature_repo.entity import Tenant
from feature_repo.events import EventRecord, ItemRecord
from feature_repo.online_store import read_live
from services.archiver import Archiver
from services.lease import Leases
from services.log import Appender, Receipt, cursor_key, log_key, merged, stream_id
from services.settings import Settings
from services.transition import Transition
from services.updater import UpdaterLoop

TENANT = Tenant(key=b"0" * 16, partitions=4)


class Sum:
    """A stand-in encoder: the state is the list of event ids seen."""

    version = "sum-1"

    def __init__(self) -> None:
        self.batches = list[int]()

    def replay(self, histories: list[list[EventRecord]], states: list[bytes | None]) -> list[bytes]:
        self.batches.append(len(histories))
        if any(event.id.startswith("poison") for events in histories for event in events):
            raise ValueError("poison")
        return [
            (s or b"") + b"".join(e.id.encode() + b";" for e in h)
            for s, h in zip(states, histories, strict=True)
        ]


def event(user: str, name: str, time_ms: int = 1_700_000_000_000) -> EventRecord:
    return EventRecord(
        id=name, type="view_item", user=TENANT.entity(user), time_ms=time_ms,
        received_ms=time_ms, items=[ItemRecord("A")],
    )  # fmt: skip


def append(url: str, records: list[EventRecord]) -> Any:
    async def run() -> Any:
        async with redis.asyncio.Redis.from_url(url) as client:
            return await Appender(client).append(records)

    return asyncio.run(run())


def loop(url: str, home: Path, learned: Sum | None = None) -> UpdaterLoop:
    return UpdaterLoop(Settings(home=home, partitions=4), url, Transition(learned))


def drain(updater: UpdaterLoop) -> None:
    updater._share()
    updater._round()


def test_append_keeps_order_and_knows_what_it_has_seen(
    redis_url: str, store_client: redis.Redis
) -> None:
    records = [event("a", str(n)) for n in range(600)]
    placed = append(redis_url, records)
    assert [p.position for p in placed] == sorted({p.position for p in placed})
    again = append(redis_url, [*records[:5], event("a", "new"), event("a", "new")])
    assert [p.duplicate for p in again] == [True] * 5 + [False, True]
    assert [p.position for p in again[:5]] == [p.position for p in placed[:5]]
    assert again[5].position == again[6].position
    assert store_client.xlen(log_key(placed[0].partition)) == 601


def test_receipts_merge_to_the_last_of_each_partition(
    redis_url: str, store_client: redis.Redis
) -> None:
    placed = append(redis_url, [event(f"u{n}", str(n)) for n in range(50)])
    receipt = Receipt.parse(str(merged(placed)))
    assert len(receipt.positions) == 4
    assert all(receipt.positions[p.partition] >= p.position for p in placed)


def test_one_round_applies_commits_and_dead_letters(
    redis_url: str, store_client: redis.Redis, tmp_path: Path
) -> None:
    updater = loop(redis_url, tmp_path, Sum())
    placed = append(redis_url, [event("a", "1"), event("a", "poison"), event("a", "2")])
    partition = placed[0].partition
    store_client.xadd(log_key(partition), {"e": b"no event"})
    drain(updater)
    [row] = read_live(store_client, [TENANT.entity("a")])
    assert row is not None
    assert (row.version, row.learned, row.model) == (2, b"1;2;", "sum-1")
    assert store_client.xlen(b"{p%03d}dead" % partition) == 2
    newest = store_client.xrevrange(log_key(partition), count=1)[0][0]
    assert store_client.hget(cursor_key(partition), "cursor") == newest
    drain(updater)
    assert read_live(store_client, [TENANT.entity("a")]) == [row]


def test_an_owner_that_lost_its_lease_commits_nothing(
    redis_url: str, store_client: redis.Redis, tmp_path: Path
) -> None:
    updater = loop(redis_url, tmp_path)
    updater._share()
    [placed] = append(redis_url, [event("a", "1")])
    other = Leases(store_client, "other")
    assert not other.take(placed.partition)
    assert other.take(placed.partition, force=True)
    updater._round()
    assert read_live(store_client, [TENANT.entity("a")]) == [None]
    other.release(placed.partition)
    drain(updater)
    [row] = read_live(store_client, [TENANT.entity("a")])
    assert row is not None
    assert row.version == 1


def test_owners_share_partitions_and_hand_them_over(store_client: redis.Redis) -> None:
    first, second = Leases(store_client, "first"), Leases(store_client, "second")
    first.share(8)
    assert len(first.epochs) == 8
    second.share(8)
    first.share(8)
    second.share(8)
    assert (len(first.epochs), len(second.epochs)) == (4, 4)
    assert not set(first.epochs) & set(second.epochs)
    first.leave()
    second.share(8)
    assert len(second.epochs) == 8


def test_only_what_is_applied_is_archived_and_trimmed(
    redis_url: str, store_client: redis.Redis, tmp_path: Path
) -> None:
    archive = Archive(tmp_path / "archive" / "events")
    archiver = Archiver(store_client, archive)
    updater = loop(redis_url, tmp_path)
    [first, *_] = append(redis_url, [event("a", str(n)) for n in range(3)])
    assert archiver.run(range(4)) == 0
    drain(updater)
    append(redis_url, [event("a", "later")])
    assert archiver.run(range(4)) == 3
    assert archiver.run(range(4)) == 0
    [(_, events)] = archive.histories()
    assert [e.id for e in events] == ["0", "1", "2"]
    # The newest archived entry stays: a commit may still have to find it.
    left = [stream_id(entry) for entry, _ in store_client.xrange(log_key(first.partition))]
    assert len(left) == 2
