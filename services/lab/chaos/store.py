"""The store that chaos kills: an embedded server of its own, started again by whoever killed it.

Belongs here: the death of the server's process, and a power cut, which takes the tail of
the append-only file too. Not here: when either happens (`nemesis`).
"""

import contextlib
import math
import os
import random
import signal
from collections import deque
from pathlib import Path
from typing import Final, Literal

from services.hosting.embedded import EmbeddedStore

FORGETS_S: Final = 1.5
"""A power cut takes nothing that was written longer ago; the promise is two seconds."""
_LEAST_BYTES: Final = 1024
_MOST_BYTES: Final = 512 * 1024


class MortalStore:
    """One embedded server.

    Parameters
    ----------
    folder
        Where its files lie.
    durability
        See `services.hosting.embedded.EmbeddedStore`.
    """

    def __init__(self, folder: Path, durability: Literal["everysec", "always"]) -> None:
        self._folder = folder
        self._server = EmbeddedStore(folder, durability)
        self._sizes = deque[tuple[float, Path, int]](maxlen=1000)

    @property
    def url(self) -> str:
        """URL of the server, the same after every start."""
        return self._server.url

    @property
    def alive(self) -> bool:
        """Whether it has been started and not killed since."""
        return self._server.started_here

    def start(self) -> None:
        """Start it, or do nothing if it runs; returns when it has read its file and answers.

        Call it from the thread that lives longest: the server ends with the thread that
        started it.
        """
        if not self.alive:
            self._server.start()

    def stop(self) -> None:
        """End it in order."""
        self._server.stop()

    def kill(self) -> None:
        """End it with SIGKILL."""
        os.kill(int((self._folder / "pid").read_text()), signal.SIGKILL)
        self._server.stop()  # else it would come back by itself

    def watch(self, now_s: float) -> None:
        """Note how long the append-only file is; call it often, else power cuts take little."""
        with contextlib.suppress(FileNotFoundError):  # the server may just have rewritten it
            if (path := self._newest()) is not None:
                self._sizes.append((now_s, path, path.stat().st_size))

    @property
    def grew(self) -> bool:
        """Whether anything was written since the last `watch`."""
        with contextlib.suppress(FileNotFoundError):
            path = self._newest()
            return bool(path and self._sizes and path.stat().st_size > self._sizes[-1][2])
        return False

    def cut_power(self, draw: random.Random, now_s: float) -> int:
        """Kill it and shorten its append-only file; return by how many bytes.

        Half of the cuts take what was written since the last `watch` and no more. Of the
        others few bytes are as likely as many.
        """
        self.kill()
        path = self._newest()
        if path is None:
            return 0
        size = path.stat().st_size
        recent = [s for at_s, p, s in self._sizes if p == path and at_s >= now_s - FORGETS_S]
        recent = recent or [size]
        drawn = math.exp(draw.uniform(math.log(_LEAST_BYTES), math.log(_MOST_BYTES)))
        taken = size - recent[-1] if draw.random() < 0.5 else min(size - recent[0], round(drawn))
        os.truncate(path, size - taken)
        self._sizes.clear()
        return taken

    def _newest(self) -> Path | None:
        found = self._folder.glob("appendonlydir/*.incr.aof")
        return max(found, key=lambda path: int(path.name.split(".")[-3]), default=None)
