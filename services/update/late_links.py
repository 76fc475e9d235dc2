"""Links that a round applied without the anonymous id's history: made good beside the updates.

A history may be too long for a round, or not to be read at that moment. Not here: which links
those are (`linking`), how they are noted (`history.unjoined`) and folded (`history.refolding`).
"""

import time
from typing import Any, Final

import structlog

from feature_repo.archive.event_archive import Archive
from feature_repo.errors import PortraitError, StoreUnavailableError
from services.history.refolding import ATTEMPTS, Refolding
from services.history.unjoined import read_unjoined
from services.models.transition import Transition

RETRY_S: Final = 300.0
"""A row whose history is not all there is tried again so often; a link that is not applied comes
to be looked for as seldom."""

_log = structlog.get_logger(__name__)


class LateLinks:
    """Folds the rows of users whose links are noted.

    Parameters
    ----------
    client
        Synchronous client.
    archive
        Where the parts lie.
    transition
        Gives the rows; called while the updater's thread calls it as well.
    """

    def __init__(self, client: Any, archive: Archive, transition: Transition) -> None:
        self._client = client
        self._archive = archive
        self._transition = transition
        self._next_s = dict[str, float]()
        self._wait_s = dict[str, float]()

    def run(self, partition: int) -> None:
        """Make good what is noted for a partition, each user by itself; what fails is put off.

        Raises
        ------
        StoreUnavailableError
            If the store does not answer; what is not done is still noted.
        """
        for user in read_unjoined(self._client, partition):
            if time.monotonic() < self._next_s.get(user, 0.0):
                continue
            longer_s = min(RETRY_S, 2 * self._wait_s.get(user, 0.5))
            try:
                wait_s = self._fold(partition, user, longer_s)
            except StoreUnavailableError:
                raise
            except PortraitError as error:  # the histories of others may be there
                _log.warning("late_link_failed", user=user, error=type(error).__name__)
                wait_s = longer_s
            if wait_s:
                self._wait_s[user], self._next_s[user] = wait_s, time.monotonic() + wait_s
            else:
                self._wait_s.pop(user, None)
                self._next_s.pop(user, None)

    def _fold(self, partition: int, user: str, longer_s: float) -> float:
        """Fold a user's row anew; return how long to wait before the next try, 0 if it is done."""
        work = Refolding(self._client, self._archive, self._transition, partition)
        work.begin([user])
        if work.settle(ATTEMPTS) and work.short:
            _log.error("link_without_history", user=user, mend="put the archive's parts back")
            return RETRY_S
        # Not applied yet; or never, if it is a dead letter or the store lost it.
        return longer_s if user in read_unjoined(self._client, partition) else 0.0
