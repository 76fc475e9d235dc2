"""Giving a process its signal handlers back after Ray, which puts its own in and leaves them."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def restore_signals() -> Iterator[None]:
    """Restore the handlers of SIGINT and SIGTERM afterwards; in another thread do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
