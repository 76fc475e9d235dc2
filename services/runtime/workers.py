"""Work that would hold the event loop up: done aside, in few threads, with few waiting.

What a request may make the loop do for more than 20 ms of CPU is done here, or is bounded before.
Pure Python in a thread still shares the interpreter with the loop, which gets its turn every
few milliseconds. Belongs here: threads and their bounds. What is done is the callers'.
"""

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from traceback import clear_frames
from typing import Any, Final, ParamSpec, TypeVar

from feature_repo.archive.query_bounds import deadline
from feature_repo.errors import BusyError

_P = ParamSpec("_P")
_T = TypeVar("_T")
_R = TypeVar("_R")
MANY: Final = 50
"""Records of one request beyond which their handling is no longer the loop's."""


class Workers:
    """A pool of threads that refuses work rather than let it pile up.

    Parameters
    ----------
    name
        Of the threads, and in the refusal.
    threads
        Pieces of work done side by side.
    waiting
        Pieces of work that may wait for a thread.
    bound_s
        How long the queries of one piece of work may take (`archive.query_bounds`), seconds.
    """

    def __init__(self, name: str, threads: int, waiting: int, bound_s: float = math.inf) -> None:
        self.bound_s = bound_s
        self._name = name
        self._waiting = waiting
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._slots = threading.BoundedSemaphore(threads + waiting)

    async def run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return ``work(*args, **kwargs)``, done in one of the threads.

        If the caller is cancelled, work that waits leaves the queue.

        Raises
        ------
        BusyError
            If as much waits already as may.
        """
        if not self._slots.acquire(blocking=False):
            raise BusyError(
                f"{self._waiting} requests wait for {self._name} already: repeat it in a moment"
            )
        future = self._pool.submit(self._run_bounded, partial(work, *args, **kwargs))
        future.add_done_callback(lambda _: self._slots.release())
        return await asyncio.wrap_future(future)

    async def run_many(self, work: Callable[[Sequence[_R]], _T], records: Sequence[_R]) -> _T:
        """Return ``work(records)``, done in one of the threads unless they are few; see `run`."""
        return await self.run(work, records) if len(records) > MANY else work(records)

    def free(self, records: list[Any]) -> None:
        """Have a list emptied aside unless it is short: giving back much memory takes long, too.

        Its records must be nobody else's any more. Never refused, and nobody waits for it.
        """
        if len(records) > MANY:
            self._pool.submit(_empty, records)

    def _run_bounded(self, work: Callable[[], _T]) -> _T:
        try:
            if self.bound_s == math.inf:
                return work()
            with deadline(self.bound_s):
                return work()
        except Exception as error:
            # What the work held is given back here, not where the error is answered.
            clear_frames(error.__traceback__)
            raise


def _empty(records: list[Any]) -> None:
    while records:  # one by one: in between others get their turn
        records.pop()


READING: Final = Workers("reading", 2, 64)
"""Bodies: inflating, parsing, checking; and answers put together."""
CHOOSING: Final = Workers("lists", 2, 512)
"""Long recommendations that are diverse, capped or drawn by chance."""
ASKING: Final = Workers("questions", 2, 32, bound_s=10.0)
"""Questions to the archive's index."""
HISTORY: Final = Workers("histories", 4, 64, bound_s=10.0)
"""Histories of single users, out of log and archive."""
