"""Append on a real server: order, duplicates, erasure, bounds, group commit, refusals."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
import redis.asyncio
from event_log import PARTITIONS, PSEUDONYMS, append, event, users_of
from stalls import running_s
from store_nodes import Node
from waiting import wait_until

from feature_repo.errors import StoreUnavailableError
from feature_repo.events.pseudonyms import partition_of
from feature_repo.events.schema import EventRecord
from feature_repo.online.connection import connect_async
from services.event_log import append as append_module
from services.event_log.append import Appender, LogFullError
from services.event_log.keys import dedup_key, erased_key, log_key, owners_key, seen_keys, today
from services.event_log.receipt import Appended, Receipt, merge


def run(url: str, work: Callable[[Any], Awaitable[Any]], **given: Any) -> Any:
    async def main() -> Any:
        client = connect_async(url)
        try:
            return await work(Appender(client, **given))
        finally:
            await client.aclose()

    return asyncio.run(main())


def test_no_event_is_known_again_by_the_name_of_another() -> None:
    def key(source: str, name: str, by: str) -> str:
        return dedup_key(EventRecord(id=name, type="login", user="u", time_ms=0, received_ms=0,
                                     source=source, key=by))  # fmt: skip

    parts = ["", "a", "~", "\x1f", "a\x1fb", "~\x1fw", '["a","b"]']
    named = [(s, n, by) for s in parts for n in parts for by in ("server:1", "write:1")]
    assert len({key(*each) for each in named}) == len(named)
    assert all(key(s, n, by).startswith("~\x1f") == (by == "write:1") for s, n, by in named)


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


@pytest.mark.parametrize("days", [1, -1, -2, -3])
def test_an_id_is_known_in_the_window_whatever_the_day(
    redis_url: str, store_client: redis.Redis, days: int
) -> None:
    [first] = append(redis_url, [event("a", "1")])
    now = seen_keys(first.partition, today())[0]
    store_client.rename(now, seen_keys(first.partition, today() + days)[0])
    [second] = append(redis_url, [event("a", "1")])
    assert second == Appended(first.partition, first.position, "duplicate")
    assert not store_client.exists(now)


def test_known_ids_are_forgotten_after_the_window(
    redis_url: str, store_client: redis.Redis
) -> None:
    [first] = append(redis_url, [event("a", "1")])
    key = seen_keys(first.partition, today())[0]
    assert 4 * 86_400 < store_client.ttl(key) <= 5 * 86_400
    store_client.rename(key, seen_keys(first.partition, today() - 4)[0])
    [second] = append(redis_url, [event("a", "1")])
    assert second.status == "accepted"


def test_receipts_merge_to_the_last_of_each_partition(
    redis_url: str, store_client: redis.Redis
) -> None:
    placed = append(redis_url, [event(f"u{n}", str(n)) for n in range(50)])
    receipt = Receipt.parse(str(merge(placed)))
    assert len(receipt.positions) == PARTITIONS
    assert all(receipt.positions[p.partition] >= p.position for p in placed)


def test_nothing_of_an_erased_user_is_taken(redis_url: str, store_client: redis.Redis) -> None:
    gone, ghost = PSEUDONYMS.of_user("gone"), PSEUDONYMS.of_anonymous("ghost")
    append(redis_url, [event("gone", "0")])
    for pseudonym in (gone, ghost):
        store_client.sadd(erased_key(partition_of(pseudonym)), pseudonym)
    lengths = {p: store_client.xlen(log_key(p)) for p in range(PARTITIONS)}
    linking = next(u for u in users_of((partition_of(ghost) + 1) % PARTITIONS))
    placed = append(
        redis_url,
        [event("gone", "0"), event("gone", "1"), event(linking, "2", linked=ghost),
         event(linking, "3", linked=PSEUDONYMS.of_anonymous("other")), event("a", "4")],
    )  # fmt: skip
    statuses = [one.status for one in placed]
    assert statuses == ["erased", "erased", "erased", "accepted", "accepted"]
    assert sum(store_client.xlen(log_key(p)) for p in lengths) == sum(lengths.values()) + 2
    assert merge(placed[:3]).positions == {p.partition: (0, 0) for p in placed[:3]}


@pytest.mark.parametrize("claimed", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_an_erased_users_event_leaves_no_link(
    redis_url: str, store_client: redis.Redis, claimed: bool, own: bool
) -> None:
    gone, ghost = PSEUDONYMS.of_user("gone"), PSEUDONYMS.of_anonymous("ghost")
    key = owners_key(partition_of(ghost))
    if own:
        alone = msgspec.structs.replace(event("ghost", "0", anonymous=True), user=ghost)
        append(redis_url, [alone])
    before = store_client.hgetall(key)
    store_client.sadd(erased_key(partition_of(gone)), gone)
    sent = event("gone", "1", linked=ghost, key="write:123" if claimed else "")
    assert [one.status for one in append(redis_url, [sent])] == ["erased"]
    assert store_client.hgetall(key) == before
    [linked] = append(redis_url, [event("living", "2", linked=ghost)])
    assert linked.status == "accepted"
    assert store_client.hget(key, ghost).startswith(PSEUDONYMS.of_user("living").encode())


def test_a_link_of_before_outlives_a_refused_event(
    redis_url: str, store_client: redis.Redis
) -> None:
    gone, ghost = PSEUDONYMS.of_user("gone"), PSEUDONYMS.of_anonymous("ghost")
    append(redis_url, [event("gone", "0", linked=ghost)])
    store_client.sadd(erased_key(partition_of(gone)), gone)
    append(redis_url, [event("gone", "1", linked=ghost)])
    assert store_client.hget(owners_key(partition_of(ghost)), ghost) == gone.encode()


def test_a_store_that_lost_an_owner_refuses_the_event_on_its_way_to_that_owner(
    redis_url: str, store_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken, and sent again, it would stand in both logs."""
    ghost = PSEUDONYMS.of_anonymous("ghost")
    known = next(users_of((partition_of(ghost) + 1) % PARTITIONS))
    append(redis_url, [event(known, "1", linked=ghost)])
    sent = msgspec.structs.replace(event("ghost", "2", anonymous=True), user=ghost)
    later = event(known, "3")

    async def lose(appender: Appender) -> Any:
        write = appender._writer.write

        async def lose_after(groups: Any) -> Any:
            answers = await write(groups)
            store_client.delete(owners_key(partition_of(ghost)))
            return answers

        monkeypatch.setattr(appender._writer, "write", lose_after)
        return await asyncio.gather(appender.append([sent, later]), return_exceptions=True)

    [refused] = run(redis_url, lose)
    assert isinstance(refused, StoreUnavailableError)
    assert "lost whose an anonymous id is" in str(refused)
    assert store_client.xlen(log_key(partition_of(PSEUDONYMS.of_user(known)))) == 1
    again = append(redis_url, [sent, later])
    assert [one.partition for one in again] == [partition_of(ghost), partition_of(later.user)]
    assert [one.status for one in again] == ["accepted"] * 2


def test_a_full_log_refuses_what_is_new_and_knows_what_is_not(
    redis_url: str, store_client: redis.Redis
) -> None:
    records = [event("a", str(n)) for n in range(12)]
    partition = partition_of(records[0].user)
    elsewhere = event(next(users_of((partition + 1) % PARTITIONS)), "x")

    async def work(appender: Appender) -> Any:
        together = (records[:12], [elsewhere])
        return await asyncio.gather(*map(appender.append, together), return_exceptions=True)

    refused, taken = run(redis_url, work, lag_limit=10)
    assert isinstance(refused, LogFullError)
    assert f"partition {partition} holds 10 entries" in str(refused)
    assert [one.status for one in taken] == ["accepted"]
    assert store_client.xlen(log_key(partition)) == 10
    known = append(redis_url, records[:10], lag_limit=10)
    assert all(one.duplicate for one in known)
    store_client.xtrim(log_key(partition), maxlen=2, approximate=False)
    placed = append(redis_url, records, lag_limit=10)
    assert [one.duplicate for one in placed] == [True] * 10 + [False] * 2
    ids = [one.position for one in placed]
    assert ids == sorted(ids)


def test_a_refused_call_holds_back_the_users_later_events(
    redis_url: str, store_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the log trimmed between two calls of one request, the later must not overtake."""
    monkeypatch.setattr(append_module, "CALL_EVENTS", 4)
    records = [event("a", str(n)) for n in range(12)]
    partition = partition_of(records[0].user)

    async def work(appender: Appender) -> None:
        write = appender._writer.write

        async def trimming(groups: Any) -> Any:
            answers = await write(groups)
            store_client.xtrim(log_key(partition), maxlen=0, approximate=False)
            return answers

        appender._writer.write = trimming  # type: ignore[method-assign]
        with pytest.raises(LogFullError):
            await appender.append(records)

    run(redis_url, work, lag_limit=2)
    placed = append(redis_url, records)
    assert [one.duplicate for one in placed] == [True] * 2 + [False] * 10
    assert [p.position for p in placed] == sorted(p.position for p in placed)


def test_requests_that_wait_share_a_write_and_groups_are_bounded(
    redis_url: str, store_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_module, "GROUP_EVENTS", 30)
    groups = list[int]()

    async def work(appender: Appender) -> list[Any]:
        write = appender._write

        async def counting(entries: Any) -> Any:
            groups.append(len(entries))
            return await write(entries)

        appender._write = counting  # type: ignore[method-assign]
        requests = [[event("a", f"{r}-{n}") for n in range(10)] for r in range(10)]
        return await asyncio.gather(*map(appender.append, requests))

    placed = run(redis_url, work)
    assert groups == [30, 30, 30, 10]
    positions = [one.position for request in placed for one in request]
    assert positions == sorted(positions)


def test_too_much_waiting_is_refused_at_once(
    redis_url: str, store_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_module, "WAITING_EVENTS", 25)

    async def work(appender: Appender) -> list[Any]:
        requests = [[event("a", f"{r}-{n}") for n in range(10)] for r in range(4)]
        return await asyncio.gather(*map(appender.append, requests), return_exceptions=True)

    answers = run(redis_url, work)
    assert [isinstance(one, StoreUnavailableError) for one in answers] == [False, False, True, True]
    assert "wait to be written" in str(answers[2])
    lengths = [store_client.xlen(log_key(p)) for p in range(PARTITIONS)]
    assert sum(lengths) == 20


def test_a_caller_that_goes_does_not_stop_the_write(
    redis_url: str, store_client: redis.Redis
) -> None:
    async def work(appender: Appender) -> None:
        task = asyncio.create_task(appender.append([event("a", "1")]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert appender._flusher is not None
        await appender._flusher

    run(redis_url, work)
    assert store_client.xlen(log_key(partition_of(PSEUDONYMS.of_user("a")))) == 1


def test_a_server_that_forgot_its_scripts_is_told_again(
    redis_url: str, store_client: redis.Redis
) -> None:
    async def work(appender: Appender) -> list[Any]:
        first = await appender.append([event(f"u{n}", f"1-{n}") for n in range(20)])
        store_client.script_flush()
        return first + await appender.append([event(f"u{n}", f"2-{n}") for n in range(20)])

    placed = run(redis_url, work)
    assert [one.status for one in placed] == ["accepted"] * 40


def test_replicas_that_are_missing_refuse_and_a_repeat_is_known(
    redis_url: str, store_client: redis.Redis
) -> None:
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="0 replicas confirmed"):
            append(redis_url, [event("a", "1")], wait_replicas=1)
    [placed] = append(redis_url, [event("a", "1")])
    assert placed.duplicate


def test_a_known_event_is_confirmed_by_replicas_too(tmp_path: Path) -> None:
    """A duplicate's receipt promises as much as the first: its WAIT needs a write before it."""
    with (
        Node(tmp_path / "master") as master,
        Node(tmp_path / "replica", "--replicaof", f"127.0.0.1 {master.port}") as replica,
        replica.client() as client,
    ):
        up = lambda: client.info("replication")["master_link_status"] == "up"  # noqa: E731
        wait_until(up, "replication")
        [first] = append(master.url, [event("a", "1")], wait_replicas=1)
        assert client.xlen(log_key(first.partition)) == 1
        replica.pause()
        append(master.url, [event("a", "2")])
        with pytest.raises(StoreUnavailableError, match="0 replicas confirmed"):
            append(master.url, [event("a", "2")], wait_replicas=1)
        replica.resume()
        [known] = append(master.url, [event("a", "2")], wait_replicas=1)
        assert known.duplicate
        assert client.xlen(log_key(first.partition)) == 2


def test_a_full_server_refuses_whole_calls(tmp_path: Path) -> None:
    with (
        Node(tmp_path, "--maxmemory-policy", "noeviction") as node,
        node.client() as client,
    ):
        append(node.url, [event("a", "1")])
        before = {key: client.dump(key) for key in client.scan_iter()}
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailableError, match="OOM"):
            append(node.url, [event("a", "1"), event("a", "2")])
        assert {key: client.dump(key) for key in client.scan_iter()} == before
        client.config_set("maxmemory", 0)
        placed = append(node.url, [event("a", "1"), event("a", "2")])
        assert [one.status for one in placed] == ["duplicate", "accepted"]


@pytest.mark.parametrize("hanging", [True, False], ids=["hanging", "killed"])
def test_a_store_that_is_away_fails_all_who_wait_at_once_and_comes_back(
    tmp_path: Path, hanging: bool
) -> None:
    node = Node(tmp_path, "--appendonly", "yes")
    records = (event("a", str(n)) for n in itertools.count())

    async def work(appender: Appender) -> None:
        await appender.append([next(records)])
        if hanging:
            node.pause()
        else:
            node.kill()
        requests = [[next(records)] for _ in range(30)]
        start_s = running_s()
        answers = await asyncio.gather(*map(appender.append, requests), return_exceptions=True)
        # A bound of the contract, not of the machine: the first wait is 0.5 s, none is second.
        assert running_s() - start_s < 1.2
        assert all(isinstance(one, StoreUnavailableError) for one in answers)
        if hanging:
            node.resume()
        else:
            node.start()
        # A server that hung finds the first attempt in its socket and may carry it out.
        deadline_s = time.monotonic() + 10
        while True:
            try:
                again = [await appender.append(request) for request in requests]
                break
            except StoreUnavailableError:
                assert time.monotonic() < deadline_s
        positions = [one.position for [one] in again]
        assert positions == sorted(set(positions))

    with node:
        run(node.url, work)
        with node.client() as client:
            assert client.xlen(log_key(partition_of(PSEUDONYMS.of_user("a")))) == 31
