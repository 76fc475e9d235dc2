"""Something costly that answers from memory: made when first asked for, renewed beside the old one.

Belongs here: when a new one is made. What it is, and whether it has changed, is its owner's.
"""

import asyncio
import time
from typing import Final, Generic, TypeVar

import structlog

from services.runtime.tasks import end

SPARE: Final = 10
"""Making it may take a tenth of the time."""
LEAST_S: Final = 10.0
"""After a failure it is tried again so soon at the earliest."""
T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Renewed(Generic[T]):
    """The present one of a gateway; the log calls it by ``name``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._present: T | None = None
        self._next_s = 0.0
        self._making: asyncio.Task[None] | None = None
        self._failed = False

    @property
    def stale(self) -> bool:
        """Whether the last try to renew it failed, so that an older one answers."""
        return self._failed

    async def stop(self) -> None:
        """Wait no longer for one that is being made, and let go of the present one."""
        await end(self._making)
        self._present = None

    async def present(self) -> T:
        """Return it: at the first call made from the archive, then what was made last.

        Raises
        ------
        PortraitError
            If the archive cannot be read.
        """
        idle = self._making is None or self._making.done()
        if idle and (self._present is None or time.monotonic() >= self._next_s):
            self._making = asyncio.create_task(self._renew())
        if self._present is None:
            assert self._making is not None
            await asyncio.shield(self._making)  # whoever gives up leaves it to the next
        assert self._present is not None
        return self._present

    async def renew(self) -> None:
        """Make another one now, if there is one; an older one that cannot be renewed goes."""
        if self._making is not None and not self._making.done():
            await asyncio.wait([self._making])
        if self._present is None:
            return
        self.expire()
        self._making = asyncio.create_task(self._renew())
        await asyncio.wait([self._making])
        if self._failed:
            self._present = None

    def expire(self) -> None:
        """Take for changed what it is made of."""

    async def make(self, before: T | None) -> tuple[T, float]:
        """Return a new one, or ``before`` if nothing has changed, and how many seconds it stays."""
        raise NotImplementedError

    async def _renew(self) -> None:
        began_s = time.monotonic()
        try:
            # Queries that still run hold the old one; its memory goes with the last of them.
            self._present, stays_s = await self.make(self._present)
            self._failed = False
        except Exception as error:
            self._failed = True
            stays_s = max(LEAST_S, SPARE * (time.monotonic() - began_s))
            if self._present is None:
                raise
            # Whatever it was: the older one answers on, and health and metrics say so.
            text = f"{type(error).__name__}: {error}"[:200]
            _log.warning(f"{self._name}_not_renewed", error=text)
        self._next_s = time.monotonic() + stays_s
