"""The trail's writer: copies what gateways have noted from the store to the files.

Every gateway has one, and the one that holds the lock of the folder works: the kernel frees the
lock however its process ends. An entry leaves the store after it is on disk. Whoever goes on
after a kill finds in the files' last lines what was written already, so nothing is lost or twice.
"""

import asyncio
import fcntl
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final

import redis
import structlog
from redis.exceptions import RedisClusterException

from feature_repo.online.connection import connect
from services.audit.chain import ChainEnd, ChainStart, read_waiting, seal
from services.audit.trail import Trail
from services.runtime.tasks import end

LOG: Final = "portrait:{audit}:log"
"""Stream of groups of entries that wait for the files."""
HEAD: Final = "portrait:{audit}:head"
"""How far the chain has come; see `ChainEnd`."""
GROUPS: Final = 20
"""Groups that are copied at once."""
_EVERY_S: Final = 0.5
_DROP_EVERY_S: Final = 3600.0

_log = structlog.get_logger(__name__)


class TrailWriter:
    """Copies entries to the files while it holds their lock.

    Parameters
    ----------
    days
        Files of days longer ago are removed.
    """

    def __init__(self, home: Path, url: str, days: int) -> None:
        self._trail = Trail(home)
        self._url = url
        self._days = days
        self._client: Any = None
        self._lock: IO[bytes] | None = None
        self._end: tuple[ChainEnd, set[str]] | None = None
        self._next_drop_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to copy."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; what waits in the store is the next writer's."""
        await end(self._task)
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Give back the lock and the connection."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self._client is not None:
            self._client.close()

    async def _run(self) -> None:
        while True:
            copied = 0
            try:
                copied = await asyncio.to_thread(self.copy)
            except (redis.RedisError, RedisClusterException, OSError) as error:
                self._end = None  # how far the files got is read anew
                _log.warning("audit_put_off", error=type(error).__name__)
            except Exception as error:  # noqa: BLE001 - the next entries must still be written
                self._end = None
                _log.error("audit_failed", exc_info=error)
            await asyncio.sleep(0 if copied else _EVERY_S)

    def copy(self) -> int:
        """Copy some groups, if nobody else does, and return how many."""
        if not self._take_lock():
            return 0
        if self._client is None:
            self._client = connect(self._url, timeout_s=5.0)
        groups = self._client.xrange(LOG, count=GROUPS)
        waiting = read_waiting(groups)
        end, written = self._end or self._find_tail(waiting)
        digest, lines, now = end.digest, [], datetime.now(UTC)
        for name, entry in waiting.items():
            if name not in written:
                line, digest = seal(entry, digest)
                lines.append(line)
        self._end = None
        if lines:
            self._trail.append(lines, f"{now:%Y-%m-%d}")
            end = replace(end, digest=digest, lines=(end.lines or 0) + len(lines))
        if groups:
            self._client.set(HEAD, end.encode())
            self._client.xdel(LOG, *(name for name, _ in groups))
        if time.monotonic() >= self._next_drop_s:
            self._next_drop_s = time.monotonic() + _DROP_EVERY_S
            end = self._drop(end, f"{now - timedelta(days=self._days):%Y-%m-%d}")
        self._end = end, set()
        return len(groups)

    def _find_tail(self, waiting: dict[str, dict[str, Any]]) -> tuple[ChainEnd, set[str]]:
        stored = self._client.get(HEAD)
        tail = self._trail.find_tail(None if stored is None else ChainEnd.decode(stored), waiting)
        if tail.strange is not None:
            _log.error("audit_broken", why=tail.strange, mend="portrait audit verify")
        return tail.end, tail.written

    def _drop(self, end: ChainEnd, day: str) -> ChainEnd:
        start = self._trail.find_start(day, end.start or ChainStart())
        if start != end.start:
            end = replace(end, start=start)
            self._client.set(HEAD, end.encode())  # before the files: they may have more than it
        self._trail.drop_before(start)
        return end

    def _take_lock(self) -> bool:
        if self._lock is None:
            self._trail.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.fdopen(
                os.open(self._trail.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600), "rb"
            )
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return False
            self._lock, self._end = lock, None
        return True
