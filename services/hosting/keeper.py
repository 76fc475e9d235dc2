"""Keeping a process up: waiting for its end, and having it started again.

Belongs here: noticing a death without asking again and again, and how soon to try again. What
is started, and how, is its owner's (`services.hosting.embedded`).
"""

import os
import select
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

FIRST_S: Final = 0.1
LONGEST_S: Final = 5.0
"""Waits before a start: the first, then each twice the one before, up to the longest."""
STEADY_S: Final = 30.0
"""A process that stayed up so long begins with the first wait again."""
_JOIN_S: Final = 30.0

_log = structlog.get_logger(__name__)


class Keeper:
    """A thread that sleeps until a process is gone, and starts it again until told to stop.

    Parameters
    ----------
    name
        What is kept, for the log.
    process
        Gives the process id; raises OSError or ValueError while there is none.
    start
        Returns once the process runs (again); called in the keeper's thread, which outlives
        what it starts, so `services.hosting.embedded.die_with` holds for it too.
    """

    def __init__(self, name: str, process: Callable[[], int], start: Callable[[], None]) -> None:
        self._name = name
        self._process = process
        self._start = start
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._keep, name=f"{name}-keeper", daemon=True)
        self._thread.start()

    def stopping(self) -> bool:
        """Say whether `stop` was called: what is being started is then to be given up."""
        return self._wait_for_stop(0)

    def stop(self) -> None:
        """Start nothing any more; returns when a start in progress has been given up."""
        os.eventfd_write(self._stop, 1)
        self._thread.join(_JOIN_S)
        if not self._thread.is_alive():
            os.close(self._stop)

    def _keep(self) -> None:
        wait_s = FIRST_S
        while True:
            since_s = time.monotonic()
            self._wait_for_the_end()
            if time.monotonic() - since_s >= STEADY_S:
                wait_s = FIRST_S
            if self._wait_for_stop(wait_s):
                return
            wait_s = min(LONGEST_S, 2 * wait_s)
            try:
                self._start()
            except Exception as error:  # noqa: BLE001 - this thread's end would end what it started
                outcome = {"event": "not_up_again", "error": str(error)[:200]}
            else:
                outcome = {"event": "up_again"}
            if not self.stopping():
                _log.warning(what=self._name, **outcome)

    def _wait_for_the_end(self) -> None:
        try:
            process = os.pidfd_open(self._process())
        except (OSError, ValueError):
            return
        try:
            self._poll(process, None)
        finally:
            os.close(process)

    def _wait_for_stop(self, seconds: float) -> bool:
        return self._stop in self._poll(None, seconds)

    def _poll(self, process: int | None, seconds: float | None) -> set[int]:
        poll = select.poll()
        for descriptor in (self._stop, process):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        return {ready for ready, _ in poll.poll(None if seconds is None else seconds * 1000)}
