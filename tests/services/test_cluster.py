"""The update path on a real three-node cluster, also while one of its nodes is dead."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from event_log import PARTITIONS, PSEUDONYMS, Sum, append, event, loop, running, users_of
from redis.crc import key_slot
from stalls import running_s
from store_nodes import Node, cluster
from waiting import wait_until

from feature_repo.archive.catalogue import Item, merge_patch, pack_vector
from feature_repo.errors import InvalidInputError, StoreUnavailableError
from feature_repo.online.connection import connect, connect_async
from feature_repo.online.live_row import row_key
from feature_repo.online.live_rows import read_live
from services.catalogue.catalogue import Catalogue
from services.event_log import dead_letters
from services.event_log.append import Appender
from services.event_log.keys import (
    cursor_key,
    erased_key,
    log_key,
    owners_key,
    seen_keys,
    today,
    voided_key,
)
from services.update.lease import lease_key
from tests.feature_repo.feast_read import feast_sdk_versions, feast_versions

LEASE_MS = 1000


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
def url(nodes: list[Node]) -> str:
    for node in nodes:
        with node.client() as client:
            client.flushall()
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    made = connect(url)
    yield made
    made.close()


def row(client: Any, user: str) -> bytes | None:
    [found] = read_live(client, [PSEUDONYMS.of_user(user)])
    return None if found is None else found.learned


def test_keys_of_a_partition_share_a_slot() -> None:
    keys = [
        log_key(7), cursor_key(7), lease_key(7), erased_key(7), owners_key(7), voided_key(7),
        b"{p007}dead",
        row_key("{p007}" + "a" * 26), *seen_keys(7, today()),
    ]  # fmt: skip
    assert len({key_slot(key) for key in keys}) == 1


def test_events_are_appended_applied_and_read(url: str, client: Any, tmp_path: Path) -> None:
    users = [f"u{n}" for n in range(40)]
    placed = append(url, [event(user, f"{n}-{user}") for n in range(5) for user in users])
    assert {one.partition for one in placed} == set(range(PARTITIONS))
    poison = append(url, [event("u1", "poison")])
    store = {client.get_node_from_key(log_key(p)).name for p in range(PARTITIONS)}
    assert len(store) > 1  # else this test would say nothing
    with running([loop(url, tmp_path / str(n), Sum(), lease_ms=LEASE_MS) for n in range(2)]):
        wait_until(
            lambda: all((row(client, u) or b"").count(b";") == 5 for u in users), "all applied"
        )
        [again] = append(url, [event("u3", "0-u3")])
        assert again.duplicate
        append(url, [event(user, f"5-{user}") for user in users])
        expected = {u: "".join(f"{n}-{u};" for n in range(6)).encode() for u in users}
        wait_until(lambda: {u: row(client, u) for u in users} == expected, "the rest too")
        wait_until(lambda: dead_letters.letters(client, range(PARTITIONS)), "the dead letter")
    [letter] = dead_letters.letters(client, range(PARTITIONS))
    assert letter.partition == poison[0].partition
    assert dead_letters.retry(client, range(PARTITIONS)) == {letter.id: "retried"}
    assert feast_versions(url, [PSEUDONYMS.of_user(u) for u in ("u1", "u2", "none")]) == [
        6,
        6,
        None,
    ]


@pytest.mark.slow
def test_feasts_sdk_reads_a_cluster(url: str, client: Any, tmp_path: Path) -> None:
    append(url, [event("u1", "1")])
    with running([loop(url, tmp_path, lease_ms=LEASE_MS)]):
        wait_until(lambda: row(client, "u1") is not None, "applied")
    assert feast_sdk_versions(url, tmp_path, [PSEUDONYMS.of_user("u1")]) == [1]


def test_a_linked_anonymous_id_may_lie_on_another_node(url: str, client: Any) -> None:
    ghost = PSEUDONYMS.of_anonymous("ghost")
    partition = int(ghost[2:5])
    client.sadd(erased_key(partition), ghost)
    other = next(users_of((partition + 1) % PARTITIONS))
    [refused] = append(url, [event(other, "1", linked=ghost)])
    assert refused.status == "erased"


def test_scripts_that_the_nodes_forgot_are_sent_again(
    url: str, nodes: list[Node], client: Any, tmp_path: Path
) -> None:
    with running([loop(url, tmp_path, Sum(), lease_ms=LEASE_MS)]):
        for n in range(3):
            for node in nodes:
                with node.client() as one:
                    one.script_flush()
            append(url, [event(f"u{m}", f"{n}-{m}") for m in range(8)])
            wait_until(
                lambda n=n: all(f"{n}-{m};".encode() in (row(client, f"u{m}") or b"")
                                for m in range(8)),
                "applied",
            )  # fmt: skip


def test_items_and_their_vectors_are_kept(url: str) -> None:
    async def keep() -> Catalogue:
        store = connect_async(url)
        try:
            first, second = Catalogue(store), Catalogue(store)
            await first.put([Item(item_id=i, vector=pack_vector([1, 2])) for i in "abc"], 0)
            await first.patch([("a", lambda item: merge_patch(item, {"vector": None}))])
            await first.delete("b")
            with pytest.raises(InvalidInputError, match="has 1 numbers"):
                await first.put([Item(item_id="a", vector=pack_vector([1]))], 0)
            await second._load()
            return second
        finally:
            await store.aclose()

    found = asyncio.run(keep())
    assert (set(found.entries), set(found.vectors.row)) == ({"a", "c"}, {"c"})


def test_replicas_are_waited_for_on_every_node(url: str) -> None:
    with pytest.raises(StoreUnavailableError, match="0 replicas confirmed"):
        append(url, [event(f"u{n}", str(n)) for n in range(20)], wait_replicas=1)


@pytest.mark.parametrize("hanging", [False, True], ids=["killed", "hanging"])
def test_the_rest_goes_on_while_a_node_is_away(
    url: str, nodes: list[Node], client: Any, tmp_path: Path, hanging: bool
) -> None:
    lost = nodes[2]
    homes = {p: client.get_node_from_key(log_key(p)).port for p in range(PARTITIONS)}
    away = [p for p, port in homes.items() if port == lost.port]
    here = [p for p in homes if p not in away]
    assert away
    assert here
    users = {p: next(users_of(p)) for p in homes}

    async def while_away() -> None:
        other = connect_async(url)
        appender = Appender(other)
        try:
            await appender.append([event(users[p], f"1-{p}") for p in homes])
            if hanging:
                lost.pause()
            else:
                lost.kill()
            start_s = running_s()
            outcomes = await asyncio.gather(
                *(appender.append([event(users[p], f"2-{p}")]) for p in homes),
                return_exceptions=True,
            )
            assert running_s() - start_s < 1.2  # the contract's bound of a second
            failed = [
                p for p, one in zip(homes, outcomes, strict=True) if isinstance(one, Exception)
            ]
            assert failed == away
            assert all(isinstance(outcomes[p], StoreUnavailableError) for p in away)
            # And again: what is away costs the others nothing.
            await appender.append([event(users[p], f"3-{p}") for p in here])
        finally:
            await other.aclose()

    with running([loop(url, tmp_path, Sum(), lease_ms=LEASE_MS)]):
        try:
            asyncio.run(while_away())

            def applied(partition: int) -> bool:
                expected = f"1-{partition};2-{partition};3-{partition};".encode()
                return row(client, users[partition]) == expected

            for partition in here:
                wait_until(lambda p=partition: applied(p), f"partition {partition} goes on")
            start_s = running_s()
            with pytest.raises(StoreUnavailableError):
                read_live(client, [PSEUDONYMS.of_user(users[away[0]])] * 50)
            assert running_s() - start_s < 2.0
        finally:
            if hanging:
                lost.resume()
            else:
                lost.start()

        def taken() -> bool:
            try:
                append(url, [event(users[p], f"{n}-{p}") for n in (2, 3) for p in homes])
            except (StoreUnavailableError, redis.RedisError):
                return False
            return True

        wait_until(taken, "the node is back")
        for partition in homes:
            wait_until(lambda p=partition: applied(p), f"partition {partition} is whole")
