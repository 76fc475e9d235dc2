"""A gateway's memory after an erasure: raw ids, indexes and what is made of them, renewed.

Belongs here: noticing that one is through, and what is let go then.
"""

import asyncio
from typing import Final

import structlog

from feature_repo.errors import PortraitError
from feature_repo.events.pseudonyms import forget_ids
from feature_repo.online.connection import translated
from services.analytics.cube import AnalyticsCube
from services.audiences.index import AudienceIndex
from services.context.context import Context
from services.erasure import ledger
from services.erasure.graves import bury_async
from services.erasure.keys import RENEWED
from services.runtime.tasks import end

LOOK_S: Final = 1.0

_log = structlog.get_logger(__name__)


class ErasureFollower:
    """Looks for erasures that are through."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._task: asyncio.Task[None] | None = None
        self._seen: bytes | None = None

    async def start(self) -> None:
        """Put the tombstones of the state folder into the store, and begin to look."""
        is_buried = await self._bury()
        self._task = asyncio.create_task(self._follow(is_buried=is_buried))

    async def stop(self) -> None:
        """Look no longer."""
        await end(self._task)

    async def _follow(self, *, is_buried: bool) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                is_buried = is_buried or await self._bury()
                with translated():
                    now = await self._context.store.get(RENEWED)
                if now != self._seen:
                    self._seen = now
                    await self._renew()
            except PortraitError as error:
                _log.info("erasures_unseen", error=type(error).__name__)
            except Exception:  # noqa: BLE001 - what is renewed next time is renewed late
                _log.exception("erasures_not_followed")

    async def _bury(self) -> bool:
        """Say whether the store has the tombstones of the state folder; it may be an older one."""
        home = self._context.settings.home
        gone = await asyncio.to_thread(ledger.list_settled, home)
        try:
            with translated():
                await bury_async(self._context.store, gone)
        except PortraitError:
            return False
        return True

    async def _renew(self) -> None:
        forget_ids()
        await self._context.of(AudienceIndex).renew()
        await self._context.of(AnalyticsCube).renew()
