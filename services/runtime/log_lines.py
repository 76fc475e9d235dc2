"""Log lines on their way between the processes of one service, each line a datagram.

HAProxy writes no file, and what a replica prints Ray keeps for itself. So both send their lines
to the process that serves, which has a file and a terminal.
"""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

STDERR_VARIABLE: Final = "PORTRAIT_STDERR_SOCKET"
"""Environment variable that names the socket for what a replica would print."""
_LONGEST: Final = 64 * 1024


@contextmanager
def take_lines(path: Path, take: Callable[[str], None]) -> Iterator[None]:
    """Pass each line sent to the socket ``path`` on to ``take``, in a thread, for the while."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))

        def listen() -> None:
            while line := listener.recv(_LONGEST):
                with contextlib.suppress(OSError):  # a terminal that has gone ends nothing
                    take(line.decode(errors="replace").rstrip("\n"))

        thread = threading.Thread(target=listen, name=path.name, daemon=True)
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.sendto(b"", str(path))
            thread.join()


class LineSender(logging.Handler):
    """Sends each line to the socket that `STDERR_VARIABLE` names; what cannot be sent is lost."""

    def __init__(self) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)  # a terminal that stands still must not stop a gateway

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line."""
        with contextlib.suppress(OSError):
            line = self.format(record).encode()[:_LONGEST]
            self._socket.sendto(line, os.environ[STDERR_VARIABLE])

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()
