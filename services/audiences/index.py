"""The index that a gateway answers from; what it holds is `feature_repo.audiences.index`'s."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from feature_repo.archive.event_archive import Archive
from feature_repo.audiences.index import Index
from feature_repo.features.catalogue import USER_VIEWS
from feature_repo.user_profile.purposes import DEFAULTS
from services.runtime.renewed import SPARE, Renewed

CHECK_S: Final = 10.0
"""The archive is looked at for new parts so often at most, and less often where an index takes
long to make."""
READY_CATEGORIES: Final = 20
"""So many categories, those that the most users are interested in, have a ready audience."""

_log = structlog.get_logger(__name__)


class AudienceIndex(Renewed[Index]):
    """The present index of a gateway.

    Attributes
    ----------
    categories
        Those with a ready audience; none until there is an index.
    clusters
        What sets each cluster apart, by its number; as above.
    odd
        Rows of the archive that count without an odd value, by column; as above.
    """

    def __init__(self, home: Path, standing: Mapping[str, bool] = DEFAULTS) -> None:
        super().__init__("audience_index")
        self._home = home
        self._standing = standing
        self._made_of = frozenset[str]()
        self.categories: list[str] = []
        self.clusters: dict[int, str] = {}
        self.odd: dict[str, int] = {}

    def expire(self) -> None:
        """Take for changed what it is made of."""
        self._made_of = frozenset()

    async def make(self, before: Index | None) -> tuple[Index, float]:
        """Return another index if what it is made of has changed; see `Renewed.make`."""
        parts = await asyncio.to_thread(self._parts)
        if before is not None and parts == self._made_of:
            return before, CHECK_S
        index = await asyncio.to_thread(Index, self._home, self._standing)
        self.categories = await asyncio.to_thread(index.top_categories, READY_CATEGORIES)
        self.clusters = index.clusters
        if index.odd and index.odd != self.odd:
            _log.warning("archive_odd_rows", **index.odd)
        self.odd, self._made_of = index.odd, parts
        return index, max(CHECK_S, SPARE * index.built_s)

    def _parts(self) -> frozenset[str]:
        found = [str(part) for part in Archive(self._home / "archive" / "events").parts()]
        for path in (*(self._home / "features" / view for view in USER_VIEWS),
                     self._home / "audiences"):  # fmt: skip
            found += [f"{p} {p.stat().st_mtime_ns}" for p in path.glob("*.parquet")]
        return frozenset(found)
