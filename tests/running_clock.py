"""A clock for bounds of the contract: it stands while the machine does not run this process.

A shared machine stops all of its processes now and then, for a second and more. That is no
delay of the product's. A thread looks at the time every few milliseconds; what a look comes late
is left out.
"""

import functools
import threading
import time
from typing import Final

_EVERY_S: Final = 0.01
_LATE_S: Final = 0.05


class _Clock:
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
