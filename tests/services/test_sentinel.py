"""The update path under Sentinel: the master is killed, nothing acknowledged is lost or doubled."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from event_log import PSEUDONYMS, Sum, append, event, loop, running
from store_nodes import Node, SentinelNode
from waiting import wait_until

from feature_repo.errors import StoreUnavailableError
from feature_repo.online.connection import connect
from feature_repo.online.live_rows import read_live
from tests.feature_repo.feast_read import feast_sdk_versions, feast_versions


class Pair:
    """A master, a replica, and two sentinels that agree on them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.master = stack.enter_context(Node(folder / "a"))
        self.replica = stack.enter_context(
            Node(folder / "b", "--replicaof", f"127.0.0.1 {self.master.port}")
        )
        self.sentinels = [
            stack.enter_context(SentinelNode(folder / f"s{n}", self.master.port, 2))
            for n in range(2)
        ]
        clients = [stack.enter_context(s.client(decode_responses=True)) for s in self.sentinels]

        def known() -> bool:
            found = [client.sentinel_masters()["shop"] for client in clients]
            return all(one["num-slaves"] == 1 and one["num-other-sentinels"] == 1 for one in found)

        wait_until(known, "sentinels that know each other")
        self._asked = clients[0]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/shop/0"

    def leader(self) -> int:
        return int(self._asked.sentinel_masters()["shop"]["port"])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(tmp_path / "pair", stack)


class Feeder:
    """Sends one event after another, each until it is acknowledged by a replica too."""

    def __init__(self, url: str) -> None:
        self.acknowledged = list[str]()
        self.refusals = 0
        self._url = url
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        number = 0
        while not self._ending.is_set():
            try:
                append(self._url, [event("a", str(number))], wait_replicas=1)
            except StoreUnavailableError:
                self.refusals += 1
                self._ending.wait(0.05)
                continue
            self.acknowledged.append(str(number))
            number += 1

    def __enter__(self) -> "Feeder":
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._ending.set()
        self._thread.join(timeout=20)


def learned(client: Any) -> list[str]:
    try:
        [row] = read_live(client, [PSEUDONYMS.of_user("a")])
    except StoreUnavailableError:
        return []
    return [] if row is None else row.learned.decode().rstrip(";").split(";")


def test_a_failover_loses_and_doubles_nothing(pair: Pair, tmp_path: Path) -> None:
    client = connect(pair.url)  # made before, used after: it must find the new master
    with running([loop(pair.url, tmp_path / str(n), Sum(), lease_ms=1000) for n in range(2)]):
        with Feeder(pair.url) as feeder:
            wait_until(lambda: len(feeder.acknowledged) >= 30, "events before")
            pair.master.kill()
            wait_until(lambda: pair.leader() == pair.replica.port, "a new master")
            pair.master.start("--replicaof", f"127.0.0.1 {pair.replica.port}")
            before = len(feeder.acknowledged)
            wait_until(lambda: len(feeder.acknowledged) >= before + 30, "events after")
        assert feeder.refusals
        count = len(feeder.acknowledged)
        wait_until(lambda: len(learned(client)) >= count, "all applied")
    # Each once and in order; the feeder may have been stopped before its last was answered.
    assert learned(client)[:count] == feeder.acknowledged
    assert learned(client)[count:] in ([], [str(count)])
    assert feast_versions(pair.url, [PSEUDONYMS.of_user("a")]) == [len(learned(client))]
    client.close()


@pytest.mark.slow
def test_feasts_sdk_reads_by_sentinel(pair: Pair, tmp_path: Path) -> None:
    append(pair.url, [event("a", "1")])
    client = connect(pair.url)
    with running([loop(pair.url, tmp_path)]):
        wait_until(lambda: learned(client), "applied")
    client.close()
    assert feast_sdk_versions(pair.url, tmp_path, [PSEUDONYMS.of_user("a")]) == [1]
