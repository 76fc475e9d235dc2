"""The cube that a gateway answers analyses from; what it holds is its room's in `feature_repo`."""

import asyncio

from feature_repo.analytics.cube import Cube
from services.audiences.index import AudienceIndex
from services.runtime.renewed import SPARE, Renewed


class AnalyticsCube(Renewed[Cube]):
    """The present cube of a gateway."""

    def __init__(self, source: AudienceIndex) -> None:
        super().__init__("analytics_cube")
        self._source = source

    @property
    def stale(self) -> bool:
        """Whether the last try to renew the cube, or its index, failed: an older one answers."""
        return super().stale or self._source.stale

    async def make(self, before: Cube | None) -> tuple[Cube, float]:
        """Return another cube if there is another index; see `Renewed.make`."""
        index = await self._source.present()
        if before is not None and before.source is index:
            return before, 0.0
        made = await asyncio.to_thread(Cube, index)
        return made, SPARE * made.built_s
