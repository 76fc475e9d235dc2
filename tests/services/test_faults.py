"""The fault matrix as a client sees it: a gateway and an updater over a real server that fails.

Rows of the matrix that other files cover are named in docs/reliability.md.
"""

import contextlib
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from gateway_process import GatewayProcess, gateways
from gateway_thread import Api
from stalls import running_s
from store_nodes import Node
from store_proxy import Proxy
from waiting import wait_until

from services.client import Client
from services.event_log.keys import cursor_key, log_key
from services.gateway.operations import MAX_LAG_S, readiness
from services.settings import Settings
from services.update.health import Health, PartitionHealth
from services.update.lease import Leases

PARTITIONS = 4
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
AWAY_S = 1.0
"""The contract: what needs the store says within a second that it is away."""


@contextlib.contextmanager
def shop(
    home: Path, url: str, *, drain_file: Path | None = None, **given: Any
) -> Iterator[tuple[Api, Client]]:
    """A gateway and an updater that archives often; the client repeats nothing by itself."""
    settings = Settings(
        home=home, redis_url=url, partitions=PARTITIONS, archive_every_s=0.1, wait_ms=2000, **given
    )
    api = Api(settings, url, drain_file=drain_file)
    try:
        api.start()
        api.start_updater()
        with api.client() as client:
            yield api, client
    finally:
        api.stop()


def view(name: str, user: str = "u") -> dict[str, Any]:
    return {"type": "view_item", "user_id": user, "id": name, "items": [{"item_id": "A"}]}


def post(client: Client, name: str, user: str = "u") -> Any:
    return client.http.post("/v1/events", json=view(name, user))


def accepted(client: Client, name: str, user: str = "u") -> Any:
    """Post until it is taken, as a client does who heeds Retry-After; return the answer."""
    answers = list[Any]()

    def taken() -> bool:
        answers.append(post(client, name, user))
        assert answers[-1].status_code in {202, 503}
        return bool(answers[-1].status_code == 202)

    wait_until(taken, f"{name} taken")
    return answers[-1].json()


def refused(answer: Any) -> Any:
    """Check that an answer is the 503 of the contract, and return its problem."""
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    problem = answer.json()
    assert problem["type"] == "/problems/unavailable"
    return problem


def soon(call: Callable[[], Any]) -> Any:
    """Return an answer that came within the bound; a machine that is busy may try three times."""
    for _ in range(3):
        start_s = running_s()
        answer = call()
        if running_s() - start_s < AWAY_S:
            return answer
    raise AssertionError(f"thrice not within {AWAY_S} s")


def ids_of(client: Client, user: str = "u") -> list[str]:
    """Return a user's event ids in log order, from log and archive."""
    return [event["id"] for event in reversed(client.events(user, limit=1000)["events"])]


def entries(client: "redis.Redis") -> int:
    return sum(client.xlen(log_key(p)) for p in range(PARTITIONS))


# --- ingest killed


def test_an_ingest_killed_around_its_append_is_repeated_without_a_double(tmp_path: Path) -> None:
    with (
        Node(tmp_path / "store") as node,
        Proxy(node.port) as before,
        Proxy(node.port) as after,
        shop(tmp_path / "home", node.url) as (api, other),
        gateways(api.settings, [before.url, after.url]) as dying,
    ):
        for proxy, gateway, user in zip((before, after), dying, ("u1", "u2"), strict=True):
            appended, name = proxy is after, f"event-of-{user}"  # an id is one user's
            acknowledged = list[int]()

            def send(
                gateway: GatewayProcess = gateway,
                user: str = user,
                name: str = name,
                acknowledged: list[int] = acknowledged,
            ) -> None:
                with gateway.client() as client, contextlib.suppress(httpx2.TransportError):
                    status = post(client, name, user).status_code
                    acknowledged += [status] * (status != 503)  # which it says after half a second

            proxy.swallow(name.encode(), requests=not appended)
            sender = threading.Thread(target=send)
            sender.start()
            assert proxy.swallowed.wait(20)
            if appended:
                wait_until(lambda: other.http.get("/v1/users/u2/events").is_success, "the append")
            gateway.kill()
            sender.join()
            assert acknowledged == []
            # Not taken, or taken once: either way the client sends it again.
            again = post(other, name, user).json()
            assert again["status"] == ("duplicate" if appended else "accepted")
            assert post(other, name, user).json() == again | {"status": "duplicate"}
            assert other.profile(user, after=again["receipt"])["event_count"] == 1
            assert ids_of(other, user) == [name]


# --- the store killed, away, hanging


class Feeder:
    """Posts batches for some users one after another, each until it is taken."""

    def __init__(self, client: Client) -> None:
        self.acknowledged: dict[str, list[str]] = defaultdict(list)
        self.refusals = 0
        self._client = client
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> "Feeder":
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._ending.set()
        self._thread.join()

    def count(self) -> int:
        return sum(map(len, list(self.acknowledged.values())))

    def _work(self) -> None:
        numbers = itertools.count()
        while not self._ending.is_set():
            batch = [view(f"e{n}", f"u{n % 7}") for n in itertools.islice(numbers, 10)]
            while self._client.http.post("/v1/events/batch", json=batch).status_code != 202:
                self.refusals += 1
            for event in batch:
                self.acknowledged[event["user_id"]].append(event["id"])


def applied(client: Client, user: str) -> int:
    """Return how many events of a user are applied; none: there is no profile yet."""
    found = client.http.get(f"/v1/users/{user}/profile")
    return found.json()["event_count"] if found.status_code == 200 else 0


def test_a_store_killed_again_and_again_loses_nothing_that_was_acknowledged(
    tmp_path: Path,
) -> None:
    with (
        Node(tmp_path / "store", *ALWAYS) as node,
        shop(tmp_path / "home", node.url) as (api, client),
        api.client() as reader,
    ):
        with Feeder(client) as feeder:
            for _ in range(3):
                before = feeder.count()
                wait_until(lambda: feeder.count() > before + 100, "events")  # noqa: B023
                node.kill()
                refusals = feeder.refusals
                wait_until(lambda: feeder.refusals > refusals, "a refusal")  # noqa: B023
                node.start()
        for user, names in feeder.acknowledged.items():
            wait_until(
                lambda: applied(reader, user) == len(names),  # noqa: B023
                "all applied",
            )
            assert ids_of(reader, user) == names


@pytest.mark.parametrize("hanging", [False, True], ids=["killed", "hanging"])
def test_a_store_that_is_away_is_said_within_a_second_and_found_again(
    tmp_path: Path, hanging: bool
) -> None:
    with (
        Node(tmp_path / "store", *ALWAYS) as node,
        shop(tmp_path / "home", node.url) as (_, client),
    ):
        receipt = post(client, "1").json()["receipt"]
        assert client.profile("u", after=receipt)["event_count"] == 1
        get = client.http.get
        if hanging:
            node.pause()
        else:
            node.kill()
        for _ in range(2):
            refused(soon(lambda: post(client, "2")))
        refused(soon(lambda: client.http.post("/v1/events/batch", json=[view("3")])))
        refused(soon(lambda: get("/v1/users/u/profile")))
        refused(soon(lambda: get(f"/v1/users/u/profile?after={receipt}")))
        refused(soon(lambda: get("/v1/users/u/events")))
        recommended = soon(lambda: get("/v1/users/u/recommendations"))
        assert (recommended.status_code, recommended.json()["degraded"]) == (200, True)
        assert recommended.json()["reason"] == "store_unavailable"
        ready = soon(lambda: get("/health/ready"))
        assert (ready.status_code, ready.json()["checks"]["store"]["ok"]) == (503, False)
        assert soon(lambda: get("/health/live")).status_code == 200
        if hanging:
            node.resume()
        else:
            node.start()
        for name in ("2", "3"):
            receipt = accepted(client, name)["receipt"]
        wait_until(lambda: get("/health/ready").status_code == 200, "readiness")
        assert client.profile("u", after=receipt)["event_count"] == 3
        assert sorted(ids_of(client)) == ["1", "2", "3"]
        assert get("/v1/users/u/recommendations").json()["degraded"] is False


def test_a_full_memory_refuses_events_whole_and_reads_go_on(tmp_path: Path) -> None:
    with (
        Node(tmp_path / "store", "--maxmemory-policy", "noeviction") as node,
        node.client() as store,
        shop(tmp_path / "home", node.url) as (_, client),
    ):
        receipt = post(client, "1").json()["receipt"]
        client.profile("u", after=receipt)
        before = entries(store)
        store.config_set("maxmemory", 1)
        batch = [view(f"b{n}", f"u{n}") for n in range(2, 40)]
        assert "OOM" in refused(post(client, "2"))["detail"]
        refused(client.http.post("/v1/events/batch", json=batch))
        assert entries(store) == before
        assert client.profile("u")["event_count"] == 1
        assert client.recommendations("u")["degraded"] is False
        wait_until(lambda: not client.ready(), "no readiness")
        checks = client.http.get("/health/ready").json()["checks"]
        assert (checks["store"]["ok"], checks["writes"]["refusal"]) == (True, "OOM")
        store.config_set("maxmemory", 0)
        receipt = accepted(client, "2")["receipt"]
        assert client.profile("u", after=receipt)["event_count"] == 2
        assert client.post_batch(batch)["accepted"] == len(batch)
        wait_until(client.ready, "readiness")


# --- the log full


def test_a_full_log_answers_503_until_it_is_applied_and_archived(tmp_path: Path) -> None:
    with (
        Node(tmp_path / "store") as node,
        shop(tmp_path / "home", node.url, lag_limit=1000) as (api, client),
    ):
        api.stop_updater()
        filling = [view(f"e{n}") for n in range(1000)]
        assert client.post_batch(filling[:999])["accepted"] == 999
        taken = post(client, "e999").json()
        assert "at most 1000" in refused(post(client, "one-more"))["detail"]
        assert post(client, "e999").json() == taken | {"status": "duplicate"}
        assert client.http.get("/health/ready").json()["checks"]["lag"]["ok"] is False
        api.start_updater()
        receipt = accepted(client, "one-more")["receipt"]
        client.wait_applied(receipt)
        assert ids_of(client) == [*(f"e{n}" for n in range(1, 1000)), "one-more"]


# --- readiness


def test_readiness_tells_what_is_wrong(tmp_path: Path) -> None:
    drain_file = tmp_path / "draining"
    with (
        Node(tmp_path / "store") as node,
        node.client() as store,
        shop(tmp_path / "home", node.url, lag_limit=1000, drain_file=drain_file) as (api, client),
    ):

        def wrong() -> set[str]:
            answer = client.http.get("/health/ready")
            checks = answer.json()["checks"]
            found = {name for name, check in checks.items() if not check["ok"]}
            assert answer.status_code == (503 if found else 200)
            assert ("retry-after" in answer.headers) == bool(found)
            return found

        wait_until(lambda: wrong() == set(), "readiness")
        drain_file.touch()
        assert wrong() == {"serving"}
        assert post(client, "still-taken").status_code == 202
        drain_file.unlink()
        api.stop_updater()
        wait_until(lambda: wrong() == {"leases"}, "leases are missing")
        # Somebody holds them, but applies nothing.
        with redis.Redis.from_url(node.url) as other:
            owner = Leases(other, "idle", lease_ms=60_000)
            for partition in range(PARTITIONS):
                owner.take(partition)
        wait_until(lambda: wrong() == set(), "leases are held")
        past_ms = int(time.time() * 1000) - 40_000
        store.delete(log_key(1), cursor_key(1))
        store.xadd(log_key(1), {"e": b"x"}, id=f"{past_ms}-0")
        wait_until(lambda: wrong() == {"lag"}, "an entry waits too long")
        assert client.http.get("/health/ready").json()["checks"]["lag"]["seconds"] >= 40
        store.delete(log_key(1))
        wait_until(lambda: wrong() == set(), "nothing waits")
        for _ in range(900):
            store.xadd(log_key(2), {"e": b"x"})
        wait_until(lambda: wrong() == {"lag"}, "a log is nearly full")


def test_readiness_turns_exactly_at_its_bounds() -> None:
    def fine(**given: Any) -> set[str]:
        values = {"entries": 0, "lag_ms": 0, "archive_lag_ms": 0, "dead": 0, "leased": True}
        logs = (PartitionHealth(**(values | given)), PartitionHealth(**values))
        checks = readiness(Health(None, None, logs, 1, {}, 1.0), 1000, draining=False)
        return {name for name, check in checks.items() if not check["ok"]}

    assert fine(lag_ms=MAX_LAG_S * 1000, entries=899) == set()
    assert fine(lag_ms=MAX_LAG_S * 1000 + 1) == {"lag"}
    assert fine(entries=900) == {"lag"}
    assert fine(leased=False) == {"leases"}
    assert fine(archive_lag_ms=10**9, dead=5) == set()
