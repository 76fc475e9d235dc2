"""Waiting for what another process does: the one place where tests poll."""

import threading
import time
from collections.abc import Callable
from typing import Any


def wait_until(true: Callable[[], Any], what: str, timeout_s: float = 20.0) -> None:
    """Return once ``true()`` is; look again every few milliseconds."""
    deadline_s = time.monotonic() + timeout_s
    pause = threading.Event()
    while not true():
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        pause.wait(0.01)
