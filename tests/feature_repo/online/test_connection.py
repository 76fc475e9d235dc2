"""Connections: every kind of URL, fast failure of each, and finding the way back."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from stalls import running_s
from store_nodes import Node, SentinelNode, cluster
from waiting import wait_until

from feature_repo.errors import InvalidSettingError, StoreUnavailableError
from feature_repo.online.connection import connect, connect_async, in_our_words, translated
from feature_repo.online.lua import Script
from feature_repo.online.url import StoreUrl

SECOND = 1.2  # the contract says one; a busy machine gets a little more


def fails_fast(work: Callable[[], Any]) -> StoreUnavailableError:
    start_s = running_s()
    with pytest.raises(StoreUnavailableError) as caught, translated():
        work()
    assert running_s() - start_s < SECOND
    return caught.value


def asynchronously(url: str, work: Callable[[Any], Any]) -> Any:
    async def run() -> Any:
        client = connect_async(url)
        try:
            return await work(client)
        finally:
            await client.aclose()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://localhost", "http"),
        ("redis+sentinel://localhost:26379", "no service"),
        ("redis+sentinel:///shop", "no host"),
        ("redis+cluster://", "no host"),
        ("redis+cluster://localhost:1/3", "database 0"),
        ("redis+sentinel://localhost:port/shop", "cannot be read"),
        ("redis+sentinel://localhost/shop?socket_timeout=soon", "cannot be read"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, says: str) -> None:
    with pytest.raises(InvalidSettingError, match=says):
        connect(url)
    with pytest.raises(InvalidSettingError, match=says):
        connect_async(url)


def test_a_urls_parts_are_read() -> None:
    url = StoreUrl.parse(
        "rediss+sentinel://u:a%2Cb%40@one,two:7/shop%20a?ssl_ca_certs=/ca.pem&sentinel_username=s"
    )
    assert url.hosts == (("one", 26379), ("two", 7))
    assert url.name == "shop a"
    assert url.options == {
        "username": "u", "password": "a,b@", "ssl": True, "ssl_ca_certs": "/ca.pem",
    }  # fmt: skip
    assert url.sentinel_options == {"ssl": True, "ssl_ca_certs": "/ca.pem", "username": "s"}


def test_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Node(tmp_path, "--unixsocket", str(path)):
        with connect(f"unix://{path}?db=2") as client:
            assert client.set("a", 1)
            assert client.connection_pool.connection_kwargs["db"] == 2
        assert asynchronously(f"unix://{path}?db=2", lambda client: client.get("a")) == b"1"


Make = Callable[[], tuple[str, list[Node]]]


@contextmanager
def single(folder: Path) -> Iterator[tuple[str, list[Node]]]:
    with Node(folder) as node:
        yield node.url, [node]


@contextmanager
def sentinels(folder: Path) -> Iterator[tuple[str, list[Node]]]:
    with ExitStack() as stack:
        login = ("--user", "app", "on", ">p%w", "~*", "&*", "+@all", "--user", "default", "off")
        master = stack.enter_context(Node(folder / "m", *login))
        lines = (
            "sentinel auth-user shop app", "sentinel auth-pass shop p%w", "requirepass guard",
        )  # fmt: skip
        watchers = [
            stack.enter_context(SentinelNode(folder / f"s{n}", master.port, 2, *lines))
            for n in range(2)
        ]
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in watchers)
        url = f"redis+sentinel://app:p%25w@{hosts}/shop/1?sentinel_password=guard"
        yield url, [master, *watchers]


@contextmanager
def three(folder: Path) -> Iterator[tuple[str, list[Node]]]:
    with cluster(folder) as nodes:
        yield "redis+cluster://" + ",".join(f"127.0.0.1:{n.port}" for n in nodes), nodes


@pytest.mark.parametrize("kind", [single, sentinels, three])
def test_what_is_away_is_known_within_a_second_and_found_again(kind: Any, tmp_path: Path) -> None:
    with kind(tmp_path) as (url, nodes):
        client = connect(url)
        assert client.set("a", "1")
        assert asynchronously(url, lambda other: other.get("a")) == b"1"

        async def both(other: Any) -> None:
            """One asyncio client that lives through it all."""
            await other.get("a")
            for node in nodes:
                node.pause()
            await asyncio.to_thread(fails_fast, lambda: client.get("a"))
            for _ in range(2):
                start_s = running_s()
                with pytest.raises(StoreUnavailableError), translated():
                    await other.get("a")
                assert running_s() - start_s < SECOND
            # New connections cannot even be made; nor does that take longer.
            fails_fast(lambda: connect(url).get("a"))
            for node in nodes:
                node.resume()

            async def answers() -> bool:
                try:
                    return bool(client.get("a") == await other.get("a") == b"1")
                except (redis.RedisError, redis.exceptions.RedisClusterException):
                    return False

            deadline_s = time.monotonic() + 10
            while not await answers():
                assert time.monotonic() < deadline_s
                await asyncio.sleep(0.05)

        asynchronously(url, both)
        for node in nodes:
            node.kill()
        fails_fast(lambda: client.get("a"))
        fails_fast(lambda: connect(url).get("a"))
        client.close()


def test_a_sentinel_that_hangs_is_asked_last(tmp_path: Path) -> None:
    with sentinels(tmp_path) as (url, (_, first, second)):
        first.pause()
        client = connect(url)
        start_s = running_s()
        assert client.set("a", "1")
        assert running_s() - start_s < SECOND
        asked = client.connection_pool.sentinel_manager.sentinels
        ports = [s.connection_pool.connection_kwargs["port"] for s in asked]
        assert ports == [second.port, first.port]
        client.close()


@pytest.mark.parametrize("way", ["plain", "in a script"])
def test_a_master_that_became_a_replica_is_left(tmp_path: Path, way: str) -> None:
    with Node(tmp_path / "old") as old, Node(tmp_path / "new") as new:
        client = connect(old.url)
        script = Script("return redis.call('SET', KEYS[1], ARGV[1])")

        def write(each: Any) -> Any:
            return each.set("a", 1) if way == "plain" else script(each, ["a"], [1])

        assert write(client)
        before = client.client_id()
        with old.client() as other:
            other.replicaof("127.0.0.1", new.port)
            with pytest.raises(StoreUnavailableError, match="ConnectionError"), translated():
                write(client)
            wait_until(lambda: other.info("replication")["master_link_status"] == "up", "link")
            other.replicaof("NO", "ONE")
        assert write(client)
        assert client.client_id() != before  # a new connection: it could have led elsewhere
        client.close()


def test_refusals_are_told_from_mistakes() -> None:
    passing = [
        "OOM command not allowed", "MISCONF Errors writing to the AOF file", "LOADING Redis is",
        "UNBLOCKED force unblock from blocking operation", "CLUSTERDOWN Hash slot not served",
        "Command # 1 (EVALSHA x) of pipeline caused error: MISCONF x", "NOREPLICAS Not enough",
    ]  # fmt: skip
    for text in passing:
        assert in_our_words(redis.ResponseError(text)) is not None, text
    for text in ("WRONGTYPE Operation against a key", "ERR unknown command 'OOM'"):
        assert in_our_words(redis.ResponseError(text)) is None, text
    secret = in_our_words(redis.exceptions.ConnectionError("rediss://user:secret@host"))
    assert "secret" not in str(secret)


def test_a_script_that_was_forgotten_is_sent_again(
    redis_url: str, store_client: redis.Redis
) -> None:
    script = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    client = connect(redis_url)
    assert script(client, ["n"], [1]) == 1
    store_client.script_flush()
    assert script(client, ["n"], [1]) == 2
    store_client.script_flush()
    store_client.set("word", "x")
    answers = script.run_all(client, [(["n"], [1]), (["word"], [1]), (["n"], [1])])
    assert (answers[0], answers[2]) == (3, 4)
    assert isinstance(answers[1], redis.ResponseError)
    client.close()
