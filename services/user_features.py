"""Batch features of a user, read through Feast's online store by the gateways."""

import time
from typing import Any, Final

import structlog

from feature_repo.errors import PortraitError

_REST_S: Final = 5.0  # after a failure, how long requests go without instead of waiting again

_log = structlog.get_logger(__name__)


class UserFeatures:
    """Reads feature services for one user; answers None when they cannot be had.

    A registry that was never applied or a store that is away costs a profile its batch part,
    not its answer.
    """

    def __init__(self) -> None:
        self._store: Any = None
        self._rest_until_s = 0.0

    def open(self) -> None:
        """Open Feast's store; needs PORTRAIT_HOME and PORTRAIT_REDIS_URL in the environment."""
        from feature_repo.store import open_store

        try:
            self._store = open_store()
        except Exception as error:  # noqa: BLE001 - Feast raises many kinds; all mean "without"
            _log.warning("features_unavailable", error=type(error).__name__)

    async def read(self, entity_id: str, service: str) -> dict[str, Any] | None:
        """Return the features of ``service`` for one user, or None."""
        if self._store is None or time.monotonic() < self._rest_until_s:
            return None
        from feature_repo.store import read_user_async

        try:
            return await read_user_async(self._store, entity_id, service)
        except Exception as error:  # noqa: BLE001
            self._rest_until_s = time.monotonic() + _REST_S
            reason = str(error) if isinstance(error, PortraitError) else type(error).__name__
            _log.warning("features_unread", service=service, error=reason)
            return None
