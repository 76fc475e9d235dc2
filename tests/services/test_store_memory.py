"""A store whose memory is full: events are refused, nothing is lost, and all goes on with room."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from store_nodes import Node
from test_faults import accepted, ids_of, post, refused, shop
from typer.testing import CliRunner
from waiting import wait_until

from services.commands import doctor
from services.commands.cli import app
from services.erasure.idle import IdleBounds, sweep_idle
from services.erasure.keys import PENDING
from services.event_log import store_room
from services.hosting import embedded
from services.hosting.embedded import EmbeddedStore
from services.hosting.store_bound import tell_full
from services.settings import Settings

MB = 1 << 20
FILLER = "filler"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    bounds = ("--maxmemory", "8mb", "--maxmemory-policy", "noeviction", "--appendonly", "yes")
    with Node(tmp_path / "store", *bounds) as node:
        yield node


def fill(client: Any, share: float = 1.0) -> None:
    """Take so much of the memory that a server may use."""
    for size in (100_000, 1_000, 10):
        while True:
            used, most = store_room.read_memory(client.info("memory"))
            if used + size > share * most:
                break
            try:
                client.rpush(FILLER, b"x" * size)
            except redis.exceptions.OutOfMemoryError:
                break


def is_applied(client: Any, receipt: str) -> bool:
    return bool(client.http.get("/v1/receipts", params={"after": receipt}).status_code == 204)


def test_a_full_store_refuses_events_and_loses_nothing(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_room, "MOST_SHARE", 9.0)  # it is to be full to the brim
    with shop(tmp_path / "home", node.url) as (api, client), node.client() as store:
        names = ["first"]
        receipt = post(client, "first").json()["receipt"]
        client.profile("u", after=receipt)
        accepted(client, "visit", "idle")
        fill(store)
        for n in range(2_000):
            answer = post(client, f"e{n}")
            if answer.status_code != 202:
                break
            names.append(f"e{n}")
        problem = refused(answer)
        assert "OOM" in problem["detail"]
        assert "PORTRAIT_STORE_MEMORY_MB" in problem["detail"]
        assert client.http.get("/v1/users/u/profile").status_code == 200
        assert client.recommendations("u")["items"] is not None
        wait_until(lambda: not client.ready(), "no readiness")
        assert client.http.get("/health/ready").json()["checks"]["writes"]["refusal"] == "OOM"
        # A sweep works all the same: it is what makes room.
        far = IdleBounds(2**42, 2**42, 2**42, api.settings.standing)
        before = sweep_idle(store, api.settings.partitions, far, dry_run=True).counts["profiles"]
        assert before >= 1
        api.stop_updater()  # whose lease is over: what is in the log stays there
        swept = sweep_idle(store, api.settings.partitions, far).counts
        assert swept["profiles"] + swept["moved"] == before
        gone = swept["profiles"]
        store.delete(FILLER)
        api.start_updater()
        receipt = accepted(client, f"e{n}")["receipt"]
        names.append(f"e{n}")
        wait_until(client.ready, "readiness")
        assert ids_of(client) == names  # no event twice, none lost, none that was refused
        wait_until(lambda: is_applied(client, receipt), "all applied")
        count = client.profile("u")["event_count"]
        assert count == len(names) or (gone and count < len(names))


def test_before_it_is_full_new_events_wait_and_the_others_are_applied(
    node: Node, tmp_path: Path
) -> None:
    with shop(tmp_path / "home", node.url) as (api, client), node.client() as store:
        api.stop_updater()
        receipt = accepted(client, "first")["receipt"]
        fill(store, 0.97)
        last = list[Any]()

        def is_refused() -> bool:
            last.append(post(client, f"e{len(last)}"))
            return bool(last[-1].status_code == 503)

        wait_until(is_refused, "a refusal")
        assert "MB: nothing of this request is kept" in refused(last[-1])["detail"]
        text = client.http.get("/metrics").text
        numbers = dict(line.split() for line in text.splitlines() if line[:1] != "#")
        assert int(numbers["portrait_store_memory_limit_bytes"]) == 8 * MB
        assert int(numbers["portrait_store_memory_bytes"]) > 0.95 * 8 * MB
        # What somebody says about consent is for the last 5 % too.
        said = client.http.put("/v1/users/u/consents", json={"consents": {"ads": False}})
        assert said.status_code == 202
        denial = {"type": "consent_updated", "user_id": "u", "consent": {"email": False}}
        assert client.http.post("/v1/events", json=denial).status_code == 202
        assert client.post_batch([{**denial, "id": "denial"}])["accepted"] == 1
        mixed = client.http.post("/v1/events/batch", json=[
            {**denial, "id": "d2"}, {"type": "login", "user_id": "u", "id": "d3"}
        ])  # fmt: skip
        refused(mixed)
        api.start_updater()
        taken = 3 + sum(answer.status_code == 202 for answer in last) + 1
        wait_until(lambda: is_applied(client, receipt), "the first applied")
        wait_until(lambda: client.profile("u")["version"] == taken, "all applied")
        store.delete(FILLER)
        accepted(client, "again")
        assert len(ids_of(client)) == taken + 1


def test_in_a_full_store_people_are_erased_and_idle_ones_swept(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shop(tmp_path / "home", node.url) as (api, client), node.client() as store:
        for user in ("u", "v"):
            client.profile(user, after=accepted(client, f"e-{user}", user)["receipt"])
        api.stop_updater()
        fill(store)
        store.config_set("maxmemory", store.info("memory")["used_memory"] - 100_000)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            store.set("more", b"x")
        monkeypatch.setenv("PORTRAIT_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("PORTRAIT_REDIS_URL", node.url)
        monkeypatch.setenv("PORTRAIT_PARTITIONS", str(api.settings.partitions))
        swept = CliRunner().invoke(app, ["privacy", "sweep", "--json"])
        assert swept.exit_code == 0, swept.output
        audit = tmp_path / "home" / "audit"
        wait_until(
            lambda: any("privacy sweep" in one.read_text() for one in audit.glob("*.jsonl")),
            "the entry",
        )
        for path, body in (("/v1/users/u", None), ("/v1/erasures", {"user_ids": ["v"]})):
            method = "DELETE" if body is None else "POST"
            answer = client.http.request(method, path, json=body)
            assert answer.status_code == 202, answer.text
        assert [client.http.get(f"/v1/users/{u}/profile").status_code for u in "uv"] == [410] * 2
        assert store.hlen(PENDING) == 2
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            store.set("more", b"x")
        store.config_set("maxmemory", 0)
        api.start_updater()
        client.privacy.wait_erased(answer.json()["erasure_id"])


def test_the_embedded_server_starts_with_more_than_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PORTRAIT_REDIS_URL", raising=False)  # of the tests before
    with embedded.connect(Settings(home=tmp_path)) as url, redis.Redis.from_url(url) as client:
        client.set(FILLER, b"x" * 20 * MB)
    told = list[str]()
    with (
        embedded.connect(Settings(home=tmp_path, store_memory_mb=16)) as url,
        redis.Redis.from_url(url) as client,
    ):
        client.set("lease", b"taken")
        used, most = store_room.read_memory(client.info("memory"))
        assert 20 * MB < used < most < used + 9 * MB
        tell_full(client, told.append)
        client.config_set("maxmemory", 2 * most)
        tell_full(client, told.append)
    assert len(told) == 1
    assert "PORTRAIT_STORE_MEMORY_MB" in told[0]


def test_the_embedded_server_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PORTRAIT_REDIS_URL", raising=False)  # of the tests before
    settings = Settings(home=tmp_path, store_memory_mb=64)
    with embedded.connect(settings) as url, redis.Redis.from_url(url) as client:
        assert client.config_get("maxmemory*")["maxmemory"] == str(64 * MB)
        assert client.config_get("maxmemory*")["maxmemory-policy"] == "noeviction"
        found = doctor._store(settings)
        assert (found.ok, found.mend) == (True, "")
        assert found.detail.endswith("MB used, 64 MB")
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 1)
        found = doctor._store(settings)
        assert not found.ok
        assert "privacy sweep" in found.mend
    group = tmp_path / "memory.max"
    group.write_text(f"{300 * MB}\n")
    monkeypatch.setattr(embedded, "_CGROUPS", (group, tmp_path / "none"))
    assert embedded.find_memory_mb() == 300
    group.write_text("max\n")
    assert embedded.find_memory_mb() > 1_000
    assert "maxmemory 64mb" in EmbeddedStore(tmp_path / "store", memory_mb=64)._configuration()
