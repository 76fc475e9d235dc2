"""Gateways in processes of their own, to be killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2
import uvicorn
from gateway_thread import ADMIN_KEY
from waiting import wait_until

from services.client import Client
from services.gateway.application import create_app
from services.hosting.embedded import die_with, free_port
from services.http import api_keys
from services.settings import Settings


@dataclass(frozen=True)
class GatewayProcess:
    port: int
    pid: int

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.port}", ADMIN_KEY, attempts=1)

    def live(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.http.get("/health/live").status_code == 200)
        except httpx2.TransportError:
            return False


@contextmanager
def gateways(settings: Settings, urls: Sequence[str]) -> Iterator[list[GatewayProcess]]:
    """Start a gateway for each URL of the store; what is slow to import is imported once."""
    ports = [free_port() for _ in urls]
    variables = {"PORTRAIT_HOME": settings.home, "PORTRAIT_PARTITIONS": settings.partitions}
    with subprocess.Popen(
        [sys.executable, __file__, *(f"{p} {u}" for p, u in zip(ports, urls, strict=True))],
        env=os.environ
        | {name: str(value) for name, value in variables.items()}
        | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 - it only calls prctl
    ) as parent:
        try:
            assert parent.stdout is not None
            pids = [int(pid) for pid in parent.stdout.readline().split()]
            started = [GatewayProcess(*one) for one in zip(ports, pids, strict=True)]
            for one in started:
                wait_until(one.live, "the gateway", timeout_s=60)
            yield started
        finally:
            parent.terminate()


def main(arguments: Sequence[str]) -> None:
    parent, pids = os.getpid(), list[int]()
    for argument in arguments:
        port, url = argument.split()
        pid = os.fork()
        if pid == 0:
            die_with(parent)()
            app = create_app(Settings(redis_url=url), url, api_keys.digest(ADMIN_KEY))
            uvicorn.run(app, port=int(port), log_level="error")
            return
        pids.append(pid)
    print(*pids, flush=True)
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])
