"""The cube that a gateway answers analyses from: made when first asked for, then renewed beside.

Belongs here: when a new one is made. What it holds is `feature_repo.analytics.cube`'s.
"""

import asyncio
import time
from typing import Final

import structlog

from feature_repo.analytics.cube import Cube
from services.audiences.index import AudienceIndex
from services.runtime.tasks import end

_SPARE: Final = 10
"""A cube is made anew at most a tenth of the time."""

_log = structlog.get_logger(__name__)


class AnalyticsCube:
    """The present cube of a gateway.

    Parameters
    ----------
    source
        Where the index comes from that it is made of.
    """

    def __init__(self, source: AudienceIndex) -> None:
        self._source = source
        self._cube: Cube | None = None
        self._next_s = 0.0
        self._making: asyncio.Task[None] | None = None
        self._failed = False

    @property
    def stale(self) -> bool:
        """Whether the last try to renew the cube, or its index, failed: an older one answers."""
        return self._failed or self._source.stale

    async def stop(self) -> None:
        """Wait no longer for a cube that is being made, and let go of the present one."""
        await end(self._making)
        self._cube = None

    async def present(self) -> Cube:
        """Return the cube: at the first call made from the archive, then what was made last.

        Raises
        ------
        PortraitError
            If the archive cannot be read.
        """
        idle = self._making is None or self._making.done()
        if idle and (self._cube is None or time.monotonic() >= self._next_s):
            self._making = asyncio.create_task(self._renew())
        if self._cube is None:
            assert self._making is not None
            await asyncio.shield(self._making)  # whoever gives up leaves it to the next
        assert self._cube is not None
        return self._cube

    async def _renew(self) -> None:
        """Make the cube anew if there is another index."""
        began_s = time.monotonic()
        try:
            index = await self._source.present()
            if self._cube is None or self._cube.index is not index:
                made = await asyncio.to_thread(Cube, index)
                # Queries that still run hold the old one; its memory goes with the last of them.
                self._cube, self._next_s = made, time.monotonic() + _SPARE * made.built_s
            self._failed = False
        except Exception as error:
            self._failed = True
            self._next_s = time.monotonic() + _SPARE * max(1.0, time.monotonic() - began_s)
            if self._cube is None:
                raise
            # Whatever it was: the older cube answers on, and health and metrics say so.
            _log.warning(
                "analytics_cube_not_renewed", error=f"{type(error).__name__}: {error}"[:200]
            )
