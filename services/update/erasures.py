"""Erasures beside the updates: the thread that looks for people to be erased.

Not here: what is done then (`services.erasure.worker`).
"""

import threading
from collections.abc import Callable
from typing import Final

import redis
import structlog

from feature_repo.errors import PortraitError
from feature_repo.online.connection import connect
from services.erasure.worker import EndedError, ErasureWorker
from services.settings import Settings

_LOOK_S: Final = 0.5
_TIMEOUT_S: Final = 30.0

_log = structlog.get_logger(__name__)


class Erasures:
    """Carries out erasures in a thread of its own.

    Parameters
    ----------
    settings
        ``home`` and ``partitions`` are read.
    url
        URL of the store.
    renewed
        Called after erasures, here or elsewhere.
    """

    def __init__(self, settings: Settings, url: str, renewed: Callable[[], None]) -> None:
        self._settings, self._url, self._renewed = settings, url, renewed
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="erasures", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End at the next step; whoever starts next goes on from there."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        worker: ErasureWorker | None = None
        while not self._stopping.wait(_LOOK_S):
            try:
                worker = worker or ErasureWorker(
                    connect(self._url, timeout_s=_TIMEOUT_S), self._settings.home,
                    self._settings.partitions, self._wait,
                )  # fmt: skip
                worker.run()
                if worker.is_renewed():
                    self._renewed()
            except EndedError:
                return
            except (PortraitError, OSError, redis.RedisError) as error:
                _log.warning("erasures_put_off", error=str(error)[:200])
            except Exception:  # noqa: BLE001 - the next round goes on from what is written down
                _log.exception("erasures_broke")

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise EndedError
