"""SIGINT and SIGTERM for a process that has to take down what it brought up."""

import os
import select
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from types import FrameType
from typing import Any, Self


class Signals:
    """SIGINT and SIGTERM: an exception while starting, an orderly end while serving."""

    def __init__(self) -> None:
        self._ended = False
        self._waiting = False
        self._wake = os.eventfd(0)
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._previous = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        self.arm()
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._wake)

    def arm(self) -> None:
        """Install the handlers; again after Ray, whose own make SIGTERM a crash."""
        for number in self._previous:
            signal.signal(number, self._handle)
        if self._ended:  # it came, and some layer below swallowed the exception
            raise KeyboardInterrupt

    def wait(
        self, processes: Mapping[str, int] | None = None, timeout_s: float | None = None
    ) -> str | None:
        """Wait for one of the signals, or the end of a process.

        Parameters
        ----------
        timeout_s
            Longest wait, seconds; None: without end.

        Returns
        -------
        str or None
            Name of the process that ended; None after a signal, or after ``timeout_s``.
        """
        self._waiting = True
        with ExitStack() as stack:
            names, poll = dict[int, str](), select.poll()
            for name, number in (processes or {}).items():
                try:
                    process = os.pidfd_open(number)
                except ProcessLookupError:
                    return name
                stack.callback(os.close, process)
                names[process] = name
            for descriptor in (self._wake, *names):
                poll.register(descriptor, select.POLLIN)
            found = poll.poll(None if timeout_s is None else timeout_s * 1000)
            ready = {descriptor for descriptor, _ in found}
        if self._wake in ready or not ready:
            return None
        return names[ready.pop()]

    def has_come(self) -> bool:
        """Say whether one of the signals has come."""
        return self._ended

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first, self._ended = not self._ended, True
        if self._waiting or not first:
            os.eventfd_write(self._wake, 1)
            return  # a second Ctrl-C must not break the clean-up of the first
        raise KeyboardInterrupt
