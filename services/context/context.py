"""The context that every route gets: what a replica has, and its subjects by their class."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from feature_repo.errors import InvalidInputError, StoreUnavailableError
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.online.connection import translated
from services.event_log.consistency import AppliedCursors
from services.event_log.receipt import Receipt
from services.http.problems import ProblemError
from services.models.user_features import UserFeatureReader
from services.runtime.clock import ServiceClock
from services.settings import Settings

_T = TypeVar("_T")


class Context:
    """What a gateway replica has, for every request.

    Parameters
    ----------
    settings, store, pseudonyms, applied, features
        Of the replica; the store's client is asynchronous.
    draining
        Says whether the service is about to end.
    restored
        Gives the version of the model that a rollback made production, None without one.
    """

    def __init__(
        self,
        settings: Settings,
        store: Any,
        pseudonyms: Pseudonyms,
        applied: AppliedCursors,
        features: UserFeatureReader,
        draining: Callable[[], bool],
        restored: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.restored = restored
        self.settings = settings
        self.store = store
        self.pseudonyms = pseudonyms
        self.applied = applied
        self.features = features
        self.draining = draining
        self.clock = ServiceClock(replay=settings.replay_clock)
        self.started_s = time.monotonic()
        self._subjects = dict[type, Any]()

    def add(self, subject: object) -> None:
        """Let routes find ``subject`` by its class."""
        self._subjects[type(subject)] = subject

    def of(self, subject: type[_T]) -> _T:
        """Return the replica's one object of a class that `add` was given."""
        found: _T = self._subjects[subject]
        return found

    async def await_bounded(self, work: Awaitable[_T], more_s: float = 0.0) -> _T:
        """Await a call to the store for ``settings.store_bound_s`` and ``more_s``, no longer.

        Raises
        ------
        StoreUnavailableError
            If it fails or takes too long.
        """
        try:
            with translated():
                async with asyncio.timeout(self.settings.store_bound_s + more_s):
                    return await work
        except TimeoutError:
            raise StoreUnavailableError("the online store does not answer: retry") from None

    async def await_receipt(self, receipt: Receipt, partitions: set[int]) -> None:
        """Return once ``receipt`` is applied in ``partitions``.

        Raises
        ------
        ProblemError
            504 if that takes longer than ``settings.wait_ms``.
        InvalidInputError
            If it names a partition that there is not.
        """
        most = self.pseudonyms.partitions
        if strange := [each for each in receipt.positions if each >= most]:
            raise InvalidInputError(
                f"the receipt names partition {strange[0]}, and the last of this service is "
                f"{most - 1}: pass the one that an accepted event returned"
            )
        with translated():
            done = await self.applied.wait(receipt, partitions, self.settings.wait_ms / 1000)
        if not done:
            raise ProblemError(
                "not-applied-yet",
                f"not applied within {self.settings.wait_ms} ms",
                headers={"retry-after": "1"},
            )
