"""The whole service under faults that only it can show: its own store killed, and its end."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from waiting import wait_until

from services.client import Client
from services.hosting.embedded import die_with, free_port

KEY = "k-faults-0123456789-abcdef-ghij"


@contextmanager
def served(home: Path, *command: str) -> Iterator[tuple["subprocess.Popen[bytes]", Client]]:
    port = free_port()
    variables = {
        "PORTRAIT_HOME": str(home), "PORTRAIT_PORT": str(port), "PORTRAIT_API_KEY": KEY,
        "PORTRAIT_DURABILITY": "always", "PORTRAIT_BODY_TIMEOUT_S": "30",
    }  # fmt: skip
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PORTRAIT_"))}
    with (home / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *(command or ("-m", "services.hosting.serve"))],
            env=kept | variables,
            stderr=log,
            preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 - it only calls prctl
        )
    try:
        with Client(f"http://127.0.0.1:{port}", KEY, attempts=1) as client:
            log_file = home / "serve.log"
            wait_until(lambda: b"serving on" in log_file.read_bytes(), "the service", 200)
            yield process, client
    finally:
        process.terminate()
        process.wait(60)


def ready(client: Client) -> bool:
    try:
        return client.ready()
    except httpx2.TransportError:
        return False


def status_of(client: Client, path: str) -> int:
    return int(client.http.get(path).status_code)


@pytest.mark.slow
def test_a_service_outlives_its_store_and_ends_in_good_order(tmp_path: Path) -> None:
    with served(tmp_path) as (process, client):
        event: dict[str, Any] = {"type": "login", "user_id": "u"}
        sent = [client.post_event(event | {"id": f"e{n}"})["receipt"] for n in range(20)]
        assert client.profile("u", after=sent[-1])["event_count"] == 20
        for n in range(20, 23):
            os.kill(int((tmp_path / "store" / "pid").read_text()), signal.SIGKILL)
            body = event | {"id": f"e{n}"}
            wait_until(
                lambda body=body: client.http.post("/v1/events", json=body).status_code == 202,
                "an event taken",
            )
        wait_until(
            lambda: client.http.get("/v1/users/u/profile").json().get("event_count") == 23,
            "all applied",
        )
        events = client.events("u", limit=100)["events"]
        assert [one["id"] for one in reversed(events)] == [f"e{n}" for n in range(23)]
        assert b'"event": "up_again"' in (tmp_path / "serve.log").read_bytes()

        # A request whose body is still on its way when the end begins.
        wait_until(lambda: ready(client), "readiness")
        body = b'{"type":"login","user_id":"u","id":"in-flight"}'
        head = (
            f"POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        ).encode()
        seen = list[tuple[int, int]]()
        with socket.create_connection(("127.0.0.1", httpx2.URL(client.base_url).port)) as open_:
            open_.sendall(head + body[:9])
            threading.Event().wait(0.3)  # it has reached the gateway
            process.send_signal(signal.SIGTERM)

            def turned_away() -> bool:
                seen.append((status_of(client, "/health/ready"), status_of(client, "/health/live")))
                return seen[-1] == (503, 200)

            wait_until(turned_away, "readiness that fails while the service answers")
            threading.Event().wait(1.5)  # past the notice: replicas are being drained
            open_.sendall(body[9:])
            answer = open_.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 202 ")
        assert process.wait(60) == 0


@pytest.mark.slow
def test_without_rays_own_processes_the_service_starts_again(tmp_path: Path) -> None:
    command = ("-c", "from services.commands.cli import main; main()", "serve")
    with served(tmp_path, *command) as (process, client):
        receipt = client.post_event({"type": "login", "user_id": "u", "id": "e0"})["receipt"]
        assert client.profile("u", after=receipt)["event_count"] == 1
        for name in ("gcs_server", "raylet"):
            tree = psutil.Process(process.pid).children(recursive=True)
            next(one for one in tree if one.name() == name).kill()
            wait_until(lambda: not ready(client), "the end")
            wait_until(lambda: ready(client), "the service again", 200)
            assert client.profile("u")["event_count"] == 1
        assert (tmp_path / "serve.log").read_bytes().count(b'"event": "service_lost"') == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
