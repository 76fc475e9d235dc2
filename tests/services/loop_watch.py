"""Which callback of an event loop used most CPU time of the loop's thread."""

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any


class LoopWatch:
    """Watches the loop of one thread while it is entered.

    Attributes
    ----------
    most_s, where
        CPU time of the thread that the longest callback used since `begin`, and whose it was.
    """

    def __init__(self, thread: int) -> None:
        self._thread = thread
        self.begin()

    def begin(self) -> None:
        self.most_s, self.where = 0.0, ""

    def took(self, handle: Any, took_s: float) -> None:
        if took_s > self.most_s:
            self.most_s, self.where = took_s, _named(handle)

    @contextmanager
    def watching(self) -> Iterator[None]:
        run = asyncio.events.Handle._run

        def timed(handle: Any) -> None:
            if get_ident() != self._thread:
                run(handle)
                return
            started_s = time.thread_time()
            run(handle)
            self.took(handle, time.thread_time() - started_s)

        gc.collect()
        gc.disable()  # a collection counts for nobody: whose garbage it finds is chance
        asyncio.events.Handle._run = timed  # type: ignore[method-assign]
        try:
            yield
        finally:
            asyncio.events.Handle._run = run  # type: ignore[method-assign]
            gc.enable()


def _named(handle: Any) -> str:
    callback = handle._callback
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        coroutine = task.get_coro()
        frame = getattr(coroutine, "cr_frame", None)
        return f"{getattr(coroutine, '__qualname__', coroutine)} {frame}"
    return repr(callback)
