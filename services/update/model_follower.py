"""The production model in an updater: loaded before it is needed, then told to the partitions.

Belongs here: from an alias to the switch in the log (docs/adr/0008). Rows of users who have one go
on with their model until they are encoded anew, which is `reencoding`'s.
"""

import threading
import time
from collections.abc import Callable, Collection
from typing import Any, Final

import redis
import structlog
from redis.exceptions import RedisClusterException

from feature_repo.errors import PortraitError
from feature_repo.online.connection import connect
from services.event_log.model_switch import switch_model
from services.models import loaded, registry
from services.models.transition import Transition
from services.settings import Settings
from services.update.reencoding import Reencoding

LOOK_S: Final = 0.5
RETRY_S: Final = 5.0
"""How often a model that could not be loaded is tried again."""
_TIMEOUT_S: Final = 30.0

_log = structlog.get_logger(__name__)


class ModelFollower:
    """Follows the production alias in a thread of its own, and has rows encoded anew in another.

    Parameters
    ----------
    settings, url
        As the updater has them.
    transition
        The updater's.
    partitions
        Gives the partitions that it owns just now.
    """

    def __init__(
        self,
        settings: Settings,
        url: str,
        transition: Transition,
        partitions: Callable[[], Collection[int]],
    ) -> None:
        self._settings = settings
        self._client = connect(url, timeout_s=_TIMEOUT_S)
        self._transition = transition
        self._partitions = partitions
        self._step: Any = None
        self._failed: tuple[str, float] = ("", 0.0)
        self._told = dict[int, str]()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._follow, name="models", daemon=True),
            threading.Thread(target=self._encode, name="reencoding", daemon=True),
        ]
        self._reencoding = Reencoding(
            settings, connect(url, timeout_s=_TIMEOUT_S), partitions, self._stopping,
            lambda: self._step,
        )  # fmt: skip

    def start(self) -> None:
        """Begin to follow."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; whoever owns the partitions next goes on."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=10)

    def look(self) -> None:
        """Follow the aliases as they are now.

        Raises
        ------
        StoreUnavailableError
            If the store does not answer; the next look goes on.
        """
        version = self._find_version()
        if version is None or not self._have_ready(version):
            return
        others = [p for p in self._partitions() if self._told.get(p) != version]
        switch_model(self._client, others, version)
        self._told |= dict.fromkeys(others, version)

    def _find_version(self) -> str | None:
        if self._settings.model is not None:
            return loaded.version_of(self._settings.model)
        production = registry.read(self._client).production
        return None if production is None else production.version

    def _have_ready(self, version: str) -> bool:
        if self._step is not None and self._step.version == version:
            return True
        if self._failed[0] == version and time.monotonic() < self._failed[1]:
            return False
        model = self._transition.find(version)
        if model is None:
            self._failed = version, time.monotonic() + RETRY_S
            return False
        self._step = model
        self._transition.prefer(version)
        _log.info("model_followed", version=version)
        return True

    def _follow(self) -> None:
        self._repeat(self.look)

    def _encode(self) -> None:
        self._repeat(self._reencoding.run)

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                work()
            except (PortraitError, OSError, redis.RedisError, RedisClusterException) as error:
                _log.warning("models_put_off", error=str(error)[:200])
            except Exception:  # noqa: BLE001 - the next round begins anew
                _log.exception("models_broke")
