"""A TCP proxy before a server that can keep what one side said from the other."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

from tests.conftest import free_port


class Proxy:
    """Hands bytes through until `swallow` names bytes after which one direction falls silent.

    Parameters
    ----------
    port
        Of the server behind it.
    """

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self.swallowed = threading.Event()
        self._behind = port
        self._marker: bytes | None = None
        self._requests = False
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._sockets = [self._listener]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def swallow(self, marker: bytes, *, requests: bool) -> None:
        """From a request that holds ``marker`` on, keep back it, or all answers to it."""
        self._marker, self._requests = marker, requests

    def __enter__(self) -> Self:
        self._thread(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _thread(self, work: object, *args: object) -> None:
        threading.Thread(target=work, args=args, daemon=True).start()  # type: ignore[arg-type]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._behind))
                self._sockets += [client, server]
                silent = threading.Event()
                self._thread(self._requests_of, client, server, silent)
                self._thread(self._answers_to, client, server, silent)

    def _requests_of(
        self, client: socket.socket, server: socket.socket, silent: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while said := client.recv(65_536):
                if self._marker is not None and self._marker in said:
                    silent.set()
                if not (silent.is_set() and self._requests):
                    server.sendall(said)
                if silent.is_set():
                    self.swallowed.set()
            server.shutdown(socket.SHUT_RDWR)

    def _answers_to(
        self, client: socket.socket, server: socket.socket, silent: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while said := server.recv(65_536):
                if not silent.is_set():
                    client.sendall(said)
            client.shutdown(socket.SHUT_RDWR)
