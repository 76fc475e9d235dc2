"""Commit and replacement of live rows on a real server: each guard, and who overwrites whom."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.errors import FencedError, ModelMismatchError, StaleRowsError
from feature_repo.online import batch_rows, live_rows
from feature_repo.online.batch_rows import pack_values
from feature_repo.online.connection import connect
from feature_repo.online.live_row import (
    FIELDS,
    LiveState,
    live_values,
    parse_live,
    parse_version,
    row_key,
)
from feature_repo.online.live_rows import commit, load_live, read_batch, read_live, replace_live

A, B, C = ("{p003}" + letter * 26 for letter in "abc")
STATE = LiveState(b"profile\x00\xff", b"learned", 7, "m1", 1_700_000_000_123)
NEXT = replace(STATE, profile=b"next", version=8)
AGAIN = replace(STATE, learned=b"other bytes", model="m2")


@pytest.fixture
def client(redis_url: str, store_client: redis.Redis) -> Iterator[Any]:
    store_client.hset("{p003}lease", mapping={"owner": "me", "epoch": 5, "until_ms": 0})
    for name in ("1-0", "2-0", "3-0"):
        store_client.xadd("{p003}log", {"e": name}, id=name)
    made = connect(redis_url)
    yield made
    made.close()


def dump(client: Any) -> dict[bytes, bytes]:
    return {key: client.dump(key) for key in client.scan_iter()}


def send(client: Any, **changes: Any) -> bool:
    call = {"epoch": 5, "expected_cursor": "0-0", "new_cursor": "2-0", "rows": {A: STATE}} | changes
    return commit(client, 3, **call)


states = st.builds(
    LiveState, st.binary(max_size=40), st.integers(0, 70_000).map(bytes), st.integers(0, 2**62),
    st.text(max_size=9), st.integers(0, 4_102_444_800_000),
)  # fmt: skip


@given(states)
def test_values_are_protobufs_own_bytes(state: LiveState) -> None:
    seconds, millis = divmod(state.time_ms, 1000)
    assert live_values(state) == (
        Value(bytes_val=state.profile).SerializeToString(),
        Value(bytes_val=state.learned).SerializeToString(),
        Value(int64_val=state.version).SerializeToString(),
        Value(string_val=state.model).SerializeToString(),
        Timestamp(seconds=seconds, nanos=millis * 1_000_000).SerializeToString(),
    )
    assert parse_live(live_values(state)) == state


def test_a_batch_is_read_with_its_counters(client: Any) -> None:
    other = "{p004}" + "a" * 26
    load_live(client, {A: STATE, other: NEXT})
    client.hset("{p004}cursor", "rebuilt", 12)
    rebuilt, rows = read_batch(client, {4: [other], 3: [B, A], 9: []})
    assert rebuilt == {4: 12, 3: 0, 9: 0}
    assert rows == {other: NEXT, B: None, A: STATE}
    assert read_batch(client, {}) == ({}, {})


def test_a_commit_names_the_model_that_the_partition_follows(client: Any) -> None:
    send(client, rows={A: STATE, B: NEXT}, dead=[b"x", b"y"], model="m2", expected_rebuilt=0)
    assert client.hgetall("{p003}cursor") == {b"cursor": b"2-0", b"model": b"m2"}
    assert read_live(client, [A, B]) == [STATE, NEXT]
    assert [fields[b"e"] for _, fields in client.xrange("{p003}dead")] == [b"x", b"y"]
    send(client, expected_cursor="2-0", new_cursor="3-0", rows={})
    assert client.hget("{p003}cursor", "model") == b"m2"
    client.xadd("{p003}log", {"m": b""}, id="4-0")
    send(client, expected_cursor="3-0", new_cursor="4-0", rows={}, model="")
    assert client.hget("{p003}cursor", "model") == b""


@pytest.mark.parametrize(
    ("changes", "refusal", "says"),
    [
        ({"epoch": 4}, FencedError, "epoch 5, the caller 4"),
        ({"expected_cursor": "1-0"}, FencedError, "cursor is 0-0"),
        ({"new_cursor": "9-0"}, FencedError, "no longer holds entry 9-0"),
        ({"expected_rebuilt": 1}, StaleRowsError, "replaced 0 rows, the caller knows of 1"),
        ({"expected": {A: 0}}, StaleRowsError, "row of .* has another version"),
    ],
)
def test_a_guard_refuses_the_whole_commit(
    client: Any, changes: dict[str, Any], refusal: type[FencedError], says: str
) -> None:
    before = dump(client)
    with pytest.raises(FencedError, match=says) as raised:
        send(client, dead=[b"x"], model="m2", **changes)
    assert type(raised.value) is refusal
    assert dump(client) == before


def test_a_commit_repeated_after_its_answer_was_lost_changes_nothing(client: Any) -> None:
    call = {"dead": [b"x"], "model": "m2", "expected_rebuilt": 0}
    assert send(client, **call)
    # Even when a rebuild came in between: what it wrote stays.
    assert replace_live(client, 3, {A: AGAIN}, {A: 7}) == set()
    before = dump(client)
    assert not send(client, **call)
    assert dump(client) == before


def test_rows_replaced_after_they_were_read_stop_the_commit(client: Any) -> None:
    load_live(client, {A: STATE})
    rebuilt, rows = read_batch(client, {3: [A]})
    assert replace_live(client, 3, {A: AGAIN}, {A: 7}) == set()
    before = dump(client)
    with pytest.raises(StaleRowsError):
        send(client, rows={A: NEXT}, expected_rebuilt=rebuilt[3])
    assert dump(client) == before
    rebuilt, rows = read_batch(client, {3: [A]})
    assert rows == {A: AGAIN}
    send(client, rows={A: NEXT}, expected_rebuilt=rebuilt[3])
    assert read_live(client, [A]) == [NEXT]


def test_rows_that_were_not_read_must_have_their_versions(client: Any) -> None:
    load_live(client, {A: STATE, B: NEXT})
    before = dump(client)
    call = {"rows": {C: STATE, A: NEXT, B: AGAIN}, "dead": [b"x"], "model": "m2"}
    for expected in ({A: 8, B: 8}, {A: 7, B: 7}, {A: 7, B: 8, C: 0}):
        with pytest.raises(StaleRowsError):
            send(client, expected=expected, **call)
        assert dump(client) == before
    assert send(client, expected={A: 7, B: 8}, **call)
    assert read_live(client, [A, B, C]) == [NEXT, AGAIN, STATE]


def test_a_row_that_moved_is_left_alone_and_named(client: Any) -> None:
    load_live(client, {A: NEXT, B: STATE})
    rows = dict.fromkeys((A, B, C), AGAIN)
    assert replace_live(client, 3, rows, {A: 7, B: 7, C: None}) == {A}
    assert read_live(client, [A, B, C]) == [NEXT, AGAIN, AGAIN]
    assert client.hget("{p003}cursor", "rebuilt") == b"2"
    # Absent where a row was expected, and there where none was.
    assert replace_live(client, 3, {A: AGAIN}, {A: None}) == {A}
    client.delete(row_key(B))
    assert replace_live(client, 3, {B: AGAIN}, {B: 7}) == {B}
    assert read_live(client, [A, B]) == [NEXT, None]
    assert client.hget("{p003}cursor", "rebuilt") == b"2"


def test_fields_of_other_views_are_no_live_row_and_stay(client: Any) -> None:
    client.hset(row_key(A), "_ts:profile", b"theirs")
    assert replace_live(client, 3, {A: STATE}, {A: None}) == set()
    assert read_live(client, [A]) == [STATE]
    assert client.hget(row_key(A), "_ts:profile") == b"theirs"
    assert client.hlen(row_key(A)) == len(FIELDS) + 1


def test_a_version_of_0_is_a_row(client: Any) -> None:
    nought = replace(STATE, version=0)
    load_live(client, {A: nought})
    assert replace_live(client, 3, {A: NEXT}, {A: None}) == {A}
    assert replace_live(client, 3, {A: NEXT}, {A: 0}) == set()


def test_many_rows_go_in_several_steps(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_rows, "_REPLACE_CHUNK", 2)
    users = ["{p003}" + letter * 26 for letter in "abcdefg"]
    load_live(client, dict.fromkeys(users[:5], STATE))
    expected = dict.fromkeys(users[:4], 7) | dict.fromkeys(users[4:])
    assert replace_live(client, 3, dict.fromkeys(users, AGAIN), expected) == {users[4]}
    assert client.hget("{p003}cursor", "rebuilt") == b"6"
    assert replace_live(client, 3, {}, {}) == set()


def test_rows_of_another_partition_are_refused(client: Any) -> None:
    stranger = "{p004}" + "a" * 26
    with pytest.raises(ValueError, match="not in partition"):
        replace_live(client, 3, {A: STATE, stranger: STATE}, {A: None, stranger: None})
    with pytest.raises(ValueError, match="not in partition"):
        send(client, rows={stranger: STATE})
    assert read_live(client, [A]) == [None]


def test_a_server_that_forgot_its_scripts_is_told_again(client: Any) -> None:
    send(client)
    replace_live(client, 3, {A: NEXT}, {A: 7})
    client.script_flush()
    replace_live(client, 3, {A: AGAIN}, {A: 8})
    client.script_flush()
    send(client, expected_cursor="2-0", new_cursor="3-0", rows={A: NEXT})
    assert read_live(client, [A]) == [NEXT]


@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000, 300_000])
def test_rows_are_read_as_protobuf_would(size: int) -> None:
    state = LiveState(b"p" * size, b"l" * (size // 2), size * 7, "m" * (size % 300), 1_234_567)
    assert parse_live(live_values(state)) == state
    assert Value.FromString(live_values(state)[0]).bytes_val == state.profile
    assert parse_version(Value(int64_val=size).SerializeToString()) == size


@pytest.mark.parametrize("value", [b"\x12\x01a", b"\n\x05ab", b"\n\xff", b"\n"])
def test_a_value_that_is_none_is_refused(value: bytes) -> None:
    stamp = live_values(LiveState(b"", b"", 1, "", 5))[4]
    with pytest.raises(ModelMismatchError, match="a value"):
        parse_live([value, None, None, None, stamp])


def test_the_row_of_an_erased_user_is_written_by_nobody(client: Any) -> None:
    client.sadd("{p003}erased", A)
    assert send(client, rows={A: STATE, B: NEXT})
    assert client.hget("{p003}cursor", "cursor") == b"2-0"
    assert read_live(client, [A, B]) == [None, NEXT]
    assert replace_live(client, 3, {A: STATE, C: STATE}, {A: None, C: None}) == set()
    assert client.hget("{p003}cursor", "rebuilt") == b"1"
    packed = pack_values([Timestamp(seconds=9).SerializeToString(), b"value"])
    keys = [row_key(A), row_key(C), b"some" + A.encode() + b"other"]
    assert batch_rows.write(client, [b"_ts:some", b"field"], keys, [packed] * 3) == 2
    assert read_live(client, [A, C]) == [None, STATE]
    assert not client.exists(row_key(A))
    assert client.hget(row_key(C), "field") == b"value"
