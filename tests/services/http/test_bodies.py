"""Bodies that are small on the wire and large inside: gzip of many members, JSON nested deeply."""

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from api_calls import view
from gateway_thread import Api
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from services.client import Client
from services.gateway.application import create_app
from services.http import body
from services.http.problems import ProblemError
from services.settings import Settings

LIMIT = 100_000


def read(data: bytes) -> bytes:
    headers = [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    return asyncio.run(body.read(Request(scope, receive), limit=LIMIT))


@given(st.lists(st.binary(max_size=3_000), min_size=1, max_size=body.MAX_GZIP_MEMBERS))
def test_members_one_after_another_are_one_body(parts: list[bytes]) -> None:
    assert read(b"".join(map(gzip.compress, parts))) == b"".join(parts)


def test_members_longer_than_a_piece_are_one_body() -> None:
    part = bytes(range(256)) * 100
    stored = b"".join(gzip.compress(part, compresslevel=0) for _ in range(3))
    assert read(stored) == part * 3


@pytest.mark.parametrize("count", [body.MAX_GZIP_MEMBERS + 1, 4_900])
def test_gzip_of_many_members_is_refused(count: int) -> None:
    with pytest.raises(ProblemError) as refused:
        read(gzip.compress(b"") * count)
    assert refused.value.problem.name == "malformed"
    assert "over 16 members" in refused.value.problem.detail


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (gzip.compress(b"x" * LIMIT), None),
        (gzip.compress(b"x" * (LIMIT + 1)), "too-large"),
        (gzip.compress(b"x" * (LIMIT // 2)) + gzip.compress(b"x" * (LIMIT // 2 + 1)), "too-large"),
        (gzip.compress(b"x" * 50_000_000), "too-large"),
        (gzip.compress(b"x", mtime=0)[:-1], "malformed"),
        (gzip.compress(b"x", mtime=0) + b"x", "malformed"),
        (b"x", "malformed"),
    ],
)
def test_what_is_inflated_is_bounded_and_whole(data: bytes, name: str | None) -> None:
    if name is None:
        assert read(data) == b"x" * LIMIT
        return
    with pytest.raises(ProblemError) as refused:
        read(data)
    assert refused.value.problem.name == name


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"[1,NaN]", "invalid"),
        (b'[{"a":-Infinity}]', "invalid"),
        (b'["\xc3\xa9",NaN]', "invalid"),
        (b"[1,2", "malformed"),
        (b'["NaN",Na]', "malformed"),
        (b"[1 2]", "malformed"),
    ],
)
def test_a_batch_that_is_no_json_says_why(data: bytes, name: str) -> None:
    with pytest.raises(ProblemError) as refused:
        body.split(data, lines=False)
    assert refused.value.problem.name == name


def test_where_a_long_array_is_no_json_is_found_without_making_it() -> None:
    data = b"[" + b"1," * 300_000 + b"NaN]"
    tracemalloc.start()
    with pytest.raises(ProblemError):
        body.split(data, lines=False)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1_000_000


# --- many documents


@settings(max_examples=20)
@given(st.lists(st.none() | st.integers() | st.text() | st.lists(st.text()), min_size=1))
def test_an_array_is_split_into_its_documents(documents: list[Any]) -> None:
    split = body.split(json.dumps(documents).encode(), lines=False)
    assert [json.loads(one) for one in split] == documents


@pytest.mark.parametrize("count", [body.MAX_BATCH_EVENTS + 1, 300_000])
def test_documents_beyond_the_bound_take_no_memory(count: int) -> None:
    data = b"[" + b",".join([b"{}"] * count) + b"]"
    tracemalloc.start()
    try:
        with pytest.raises(ProblemError) as refused:
            body.split(data, lines=False)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert refused.value.problem.name == "too-large"


# --- deep nesting


def with_bodies() -> list[str]:
    app = create_app(Settings(redis_url="redis://127.0.0.1:1"), "redis://127.0.0.1:1", None)
    return [
        f"{method.upper()} {path}"
        for path, found in app.openapi()["paths"].items() for method, operation in found.items()
        if "requestBody" in operation
    ]  # fmt: skip


DEPTHS = st.integers(900, 1_100) | st.integers(100, 15_000)


@pytest.fixture(scope="module")
def client(api: Api) -> Iterator[Client]:
    """Calls a service that has the item "i", so that a change of it is read whole."""
    with api.client() as client:
        client.put_item({"item_id": "i"})
        yield client


@pytest.mark.parametrize("name", with_bodies())
@settings(max_examples=6)
@given(
    depth=DEPTHS, opened=st.sampled_from(["[", '{"a":', '[{"items":', "[[],"]), closed=st.booleans()
)
@example(depth=900, opened='{"a":', closed=True)
def test_deep_json_is_a_problem_of_the_sender(
    client: Client, name: str, depth: int, opened: str, closed: bool
) -> None:
    ends = {"[": "]", '{"a":': "}", '[{"items":': "}]", "[[],": "]"}
    content = opened * depth + ("0" + ends[opened] * depth if closed else "")
    method, _, path = name.partition(" ")
    answered = client.http.request(
        method,
        path.format(user_id="u", item_id="i", name="n", key_id="k", erasure_id="e"),
        content=content.encode(),
        headers={"content-type": "application/json"},
    )  # fmt: skip
    assert answered.status_code in {400, 413, 422}, answered.text
    assert answered.headers["content-type"] == "application/problem+json" or "errors" in (
        answered.json()
    )


def test_one_deep_event_of_a_batch_leaves_the_others(api: Api) -> None:
    deep = '{"id":"deep","type":"login","user_id":"u","properties":{"a":%s}}'
    lines = [deep % ("[" * 2_000 + "]" * 2_000), '{"id":"flat","type":"login","user_id":"u"}']
    with api.client() as client:
        answered = client.http.post(
            "/v1/events/batch", content="\n".join(lines).encode(),
            headers={"content-type": "application/x-ndjson"},
        ).json()  # fmt: skip
        assert client.post_event(view("u"))["status"] == "accepted"
    assert (answered["accepted"], answered["rejected"]) == (1, 1)
    assert answered["errors"][0]["index"] == 0
