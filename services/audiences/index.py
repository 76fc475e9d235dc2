"""The index that a gateway answers from: made when first asked for, renewed beside the old one.

Belongs here: when a new one is made. What it holds is `feature_repo.audiences.index`'s.
"""

import asyncio
import time
from pathlib import Path
from typing import Final

import structlog

from feature_repo.archive.event_archive import Archive
from feature_repo.audiences.index import Index
from feature_repo.features.catalogue import USER_VIEWS
from services.runtime.tasks import end

CHECK_S: Final = 10.0
"""The archive is looked at for new parts so often at most, and less often where an index takes
long to make: it may take a tenth of the time."""
READY_CATEGORIES: Final = 20
"""So many categories, those that the most users are interested in, have a ready audience."""

_log = structlog.get_logger(__name__)


class AudienceIndex:
    """The present index of a gateway.

    Parameters
    ----------
    home
        State folder.
    check_s
        See `CHECK_S`.

    Attributes
    ----------
    categories
        Those with a ready audience; none until there is an index.
    clusters
        What sets each cluster apart, by its number; as above.
    odd
        Rows of the archive that count without an odd value, by column; as above.
    stale
        Whether the last try to renew the index failed, so that an older one answers.
    """

    def __init__(self, home: Path, check_s: float = CHECK_S) -> None:
        self._home = home
        self._check_s = check_s
        self._index: Index | None = None
        self._made_of = frozenset[str]()
        self._next_s = 0.0
        self._making: asyncio.Task[None] | None = None
        self.categories: list[str] = []
        self.clusters: dict[int, str] = {}
        self.odd: dict[str, int] = {}
        self.stale = False

    async def stop(self) -> None:
        """Wait no longer for an index that is being made, and let go of the present one."""
        await end(self._making)
        self._index = None

    async def present(self) -> Index:
        """Return the index: at the first call made from the archive, then what was made last.

        Raises
        ------
        PortraitError
            If the archive cannot be read.
        """
        idle = self._making is None or self._making.done()
        if idle and (self._index is None or time.monotonic() >= self._next_s):
            self._making = asyncio.create_task(self._renew())
        if self._index is None:
            assert self._making is not None
            await asyncio.shield(self._making)  # whoever gives up leaves it to the next
        assert self._index is not None
        return self._index

    async def _renew(self) -> None:
        """Make the index anew if what it is made of has changed."""
        began_s = time.monotonic()
        self._next_s = began_s + self._check_s
        try:
            parts = await asyncio.to_thread(self._parts)
            if self._index is None or parts != self._made_of:
                index = await asyncio.to_thread(Index, self._home)
                self.categories = await asyncio.to_thread(index.top_categories, READY_CATEGORIES)
                self.clusters = index.clusters
                if index.odd and index.odd != self.odd:
                    _log.warning("archive_odd_rows", **index.odd)
                self.odd = index.odd
                # Queries that still run hold the old one; its memory goes with the last of them.
                self._made_of, self._index = parts, index
                self._next_s = time.monotonic() + max(self._check_s, 10 * index.built_s)
            self.stale = False
        except Exception as error:
            self.stale = True
            spent_s = time.monotonic() - began_s
            self._next_s = max(self._next_s, time.monotonic() + 10 * spent_s)
            if self._index is None:
                raise
            # Whatever it was: the older index answers on, and health and metrics say so.
            _log.warning(
                "audience_index_not_renewed", error=f"{type(error).__name__}: {error}"[:200]
            )

    def _parts(self) -> frozenset[str]:
        found = [str(part) for part in Archive(self._home / "archive" / "events").parts()]
        for path in (*(self._home / "features" / view for view in USER_VIEWS),
                     self._home / "audiences"):  # fmt: skip
            found += [f"{p} {p.stat().st_mtime_ns}" for p in path.glob("*.parquet")]
        return frozenset(found)
