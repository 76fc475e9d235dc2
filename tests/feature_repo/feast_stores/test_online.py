"""The live row against a real server: guards of the commit, Feast's layout, fast failure."""

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from feast import RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from redis.crc import key_slot
from stalls import running_s

from feature_repo.errors import (
    FencedError,
    InvalidSettingError,
    LiveStateWriteError,
    StoreUnavailableError,
)
from feature_repo.feast_stores.online import PortraitOnlineStore
from feature_repo.features.catalogue import VIEWS
from feature_repo.online.connection import connect, connect_async
from feature_repo.online.live_row import FIELDS, LiveState, parse_live, row_key
from feature_repo.online.live_rows import commit, load_live, read_batch, read_live, replace_live
from tests.conftest import free_port, start_server, stop_server

A, B = "{p003}" + "a" * 26, "{p003}" + "b" * 26
STATE = LiveState(b"profile\x00\xff", b"learned", 7, "m1", 1_700_000_000_123)


@pytest.fixture
def client(redis_url: str, store_client: redis.Redis) -> Iterator[Any]:
    store_client.hset("{p003}lease", mapping={"owner": "me", "epoch": 5, "until_ms": 0})
    store_client.xadd("{p003}log", {"e": b"1"}, id="1-0")
    store_client.xadd("{p003}log", {"e": b"2"}, id="2-0")
    made = connect(redis_url)
    yield made
    made.close()


def send(client: Any, **changes: Any) -> None:
    call = {"epoch": 5, "expected_cursor": "0-0", "new_cursor": "2-0", "rows": {A: STATE}} | changes
    commit(client, 3, **call)


def test_a_commit_writes_rows_dead_letters_and_cursor_and_tells(client: Any) -> None:
    listener = client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe("{p003}applied")
    listener.get_message(timeout=1)
    send(client, rows={A: STATE, B: STATE}, dead=[b"poison"])
    assert read_live(client, [A, "{p003}" + "c" * 26, B]) == [STATE, None, STATE]
    assert client.hget("{p003}cursor", "cursor") == b"2-0"
    assert [fields for _, fields in client.xrange("{p003}dead")] == [{b"e": b"poison"}]
    message = listener.get_message(timeout=1)
    listener.close()
    assert message is not None
    assert message["data"] == b"2-0"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epoch": 4}, "epoch 5, the caller 4"),
        ({"expected_cursor": "1-0", "new_cursor": "2-0"}, "cursor is 0-0"),
        ({"new_cursor": "3-0"}, "no longer holds entry 3-0"),
    ],
)
def test_a_guard_refuses_the_whole_commit(client: Any, changes: dict[str, Any], says: str) -> None:
    before = {key: client.dump(key) for key in client.scan_iter()}
    with pytest.raises(FencedError, match=says):
        send(client, dead=[b"x"], **changes)
    assert {key: client.dump(key) for key in client.scan_iter()} == before


def test_no_lease_at_all_refuses(client: Any) -> None:
    client.delete("{p003}lease")
    with pytest.raises(FencedError, match="epoch none"):
        send(client)


def test_a_commit_repeated_after_a_lost_answer_changes_nothing(client: Any) -> None:
    send(client, dead=[b"x"])
    send(client, dead=[b"x"])
    assert client.xlen("{p003}dead") == 1


def test_a_row_of_another_partition_is_refused(client: Any) -> None:
    with pytest.raises(ValueError, match="not in partition"):
        send(client, rows={"{p004}" + "a" * 26: STATE})


def test_all_keys_of_a_commit_share_a_slot(client: Any) -> None:
    keys = [
        row_key(A),
        row_key(B),
        *(f"{{p003}}{n}".encode() for n in ("log", "cursor", "lease", "dead")),
    ]
    assert len({key_slot(key) for key in keys}) == 1


def test_async_reads_are_the_same(client: Any, redis_url: str) -> None:
    async def go() -> Any:
        other = connect_async(redis_url)
        try:
            return [parse_live(await other.hmget(row_key(user), FIELDS)) for user in (A, B)]
        finally:
            await other.aclose()

    send(client)
    assert asyncio.run(go()) == [STATE, None]


def stock_read(redis_url: str, pseudonym: str) -> tuple[Any, Any]:
    """Read the live row with Feast's own store, unchanged."""
    host = urlsplit(redis_url).netloc
    config = RepoConfig(
        project="portrait", provider="local", registry="unused.db",
        online_store={"type": "redis", "connection_string": host},
        entity_key_serialization_version=3,
    )  # fmt: skip
    table = SimpleNamespace(
        name="live_state", features=[SimpleNamespace(name=f.name) for f in VIEWS["live_state"]],
        tags={}, projection=SimpleNamespace(version_tag=None), current_version_number=None,
    )  # fmt: skip
    key = EntityKey(join_keys=["user"], entity_values=[Value(string_val=pseudonym)])
    return RedisOnlineStore().online_read(config, table, [key])[0]


def test_feasts_own_client_reads_what_the_commit_wrote(client: Any, redis_url: str) -> None:
    send(client)
    moment, values = stock_read(redis_url, A)
    assert moment.timestamp() * 1000 == pytest.approx(STATE.time_ms)
    assert values["profile"].bytes_val == STATE.profile
    assert values["learned"].bytes_val == STATE.learned
    assert values["version"].int64_val == STATE.version
    assert values["model"].string_val == STATE.model


def test_bulk_load_and_empty_values_read_back(client: Any) -> None:
    rows = {A: LiveState(b"", b"", 0, "", 0), B: STATE}
    load_live(client, rows)
    assert read_live(client, [A, B]) == list(rows.values())


def test_a_plain_write_to_the_live_view_is_refused() -> None:
    table = SimpleNamespace(name="live_state", tags={"live": "true"})
    with pytest.raises(LiveStateWriteError, match="live_state"):
        PortraitOnlineStore().online_write_batch(None, table, [], None)
    with pytest.raises(LiveStateWriteError):
        asyncio.run(PortraitOnlineStore().online_write_batch_async(None, table, [], None))


@pytest.mark.parametrize("stopped", [True, False], ids=["hanging", "gone"])
def test_a_server_that_is_away_is_known_within_a_second(tmp_path: Path, stopped: bool) -> None:
    process, port = start_server(tmp_path)
    try:
        client = connect(f"redis://127.0.0.1:{port}/0")
        client.ping()
        if stopped:
            process.send_signal(signal.SIGSTOP)
        else:
            process.kill()
            process.wait()
        start = running_s()
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            read_live(client, [A])
        assert running_s() - start < 1.2
        client.close()
    finally:
        process.send_signal(signal.SIGCONT)
        stop_server(process)


def test_a_full_server_is_unavailable_not_broken(tmp_path: Path) -> None:
    process, port = start_server(tmp_path, "--maxmemory", "1", "--maxmemory-policy", "noeviction")
    try:
        client = connect(f"redis://127.0.0.1:{port}/0")
        with pytest.raises(StoreUnavailableError, match="OOM"):
            load_live(client, {A: STATE})
        client.close()
    finally:
        stop_server(process)


def test_a_password_with_any_characters_and_a_socket(tmp_path: Path) -> None:
    process, port = start_server(tmp_path, "--requirepass", "1,2=%$@:/é")
    try:
        client = connect(f"redis://:1%2C2%3D%25%24%40%3A%2F%C3%A9@127.0.0.1:{port}/0")
        load_live(client, {A: STATE})
        assert read_live(client, [A]) == [STATE]
        client.close()
    finally:
        stop_server(process)


def test_a_cluster_takes_the_whole_commit(tmp_path: Path) -> None:
    process, port = start_server(
        tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port())
    )
    try:
        with redis.Redis(port=port) as node:
            node.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")
            deadline = time.monotonic() + 10
            while node.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                assert time.monotonic() < deadline
        client = connect(f"redis+cluster://127.0.0.1:{port}/0")
        client.hset("{p003}lease", mapping={"epoch": 5})
        client.xadd("{p003}log", {"e": b"2"}, id="2-0")
        send(client, rows={A: STATE, B: STATE})
        assert read_live(client, [A, B]) == [STATE, STATE]
        other = "{p004}" + "a" * 26
        assert replace_live(client, 3, {A: STATE, B: STATE}, {A: 7, B: 8}) == {B}
        assert replace_live(client, 4, {other: STATE}, {other: None}) == set()
        rebuilt, rows = read_batch(client, {3: [A, B], 4: [other], 5: []})
        assert rebuilt == {3: 1, 4: 1, 5: 0}
        assert rows == {A: STATE, B: STATE, other: STATE}
        client.close()
    finally:
        stop_server(process)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="http"):
        connect("http://localhost")
