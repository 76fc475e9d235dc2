"""What a stall must not fail: a shared machine stops all of its processes now and then.

Bounds of the contract are held against a clock that stands meanwhile; tests that are not about
failing fast wait longer for the store than the product does.
"""

import functools
import threading
import time
from typing import Final

PATIENCE_S: Final = 20.0
_EVERY_S: Final = 0.01
_LATE_S: Final = 0.05


def patient(url: str) -> str:
    """Return the store's URL for connections that wait through a stall."""
    more = f"socket_timeout={PATIENCE_S}&socket_connect_timeout={PATIENCE_S}"
    return f"{url}{'&' if '?' in url else '?'}{more}"


class _Clock:
    """A thread looks at the time every few milliseconds; what a look comes late is left out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looked_s = time.monotonic()
        self._stood_s = 0.0
        threading.Thread(target=self._look, name="running clock", daemon=True).start()

    def now_s(self) -> float:
        with self._lock:
            now_s = time.monotonic()
            late_s = now_s - self._looked_s - _EVERY_S
            if late_s > _LATE_S:
                self._stood_s += late_s
            self._looked_s = now_s
            return now_s - self._stood_s

    def _look(self) -> None:
        never = threading.Event()  # tests may replace time.sleep
        while not never.wait(_EVERY_S):
            self.now_s()


_clock = functools.cache(_Clock)


def running_s() -> float:
    """Return seconds since some moment, without those in which this process was not run."""
    return _clock().now_s()
