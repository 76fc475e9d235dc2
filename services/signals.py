"""SIGINT and SIGTERM for a process that has to take down what it brought up."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Signals:
    """SIGINT and SIGTERM: an exception while starting, an orderly end while serving."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._waiting = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._previous = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        self.arm()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def arm(self) -> None:
        """Install the handlers; again after Ray, whose own make SIGTERM a crash."""
        for number in self._previous:
            signal.signal(number, self._handle)
        if self._ended.is_set():  # it came, and some layer below swallowed the exception
            raise KeyboardInterrupt

    def wait(self) -> None:
        """Return when one of the signals has come."""
        self._waiting = True
        self._ended.wait()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._waiting or self._ended.is_set():
            self._ended.set()  # a second Ctrl-C must not break the clean-up of the first
            return
        self._ended.set()
        raise KeyboardInterrupt
