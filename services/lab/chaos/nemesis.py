"""Nemesis: processes killed and paused, the store killed, its power cut, and when.

Replicas are found by their command lines, below this process only. Belongs here: faults
drawn from a seed, and putting right what was paused. Not here: the load, or what it shows.
"""

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import psutil

from services.lab.bench.where import processes
from services.lab.chaos.store import MortalStore
from services.update.lease import LEASE_MS

_STARTING: Final = (".__init__", ".initialize_and_get_metadata")
"""What Ray says of a replica that starts; it has nothing to lose yet and is left alone."""
_EVERY_S: Final = (0.8, 2.4)
_STORE_AWAY_S: Final = (0.1, 1.5)
_PAST_LEASE: Final = (1.2, 2.0)
_GATEWAY_PAUSE_S: Final = (0.5, 2.0)
_READ_S: Final = (0.0, 0.06)
_WRITTEN_S: Final = 0.5
_SPARED: Final = 0.75
"""How often the last replica of its kind is spared: with none, nothing is sent or applied."""


class Nemesis:
    """Does one harm after another; call `act` often, from one thread.

    Parameters
    ----------
    draw
        Chooses what, whom and when.
    store
        May be killed.
    store_kills
        Whether it is.
    power_cuts
        Weight of the harm that its file is shortened too, where killing an updater has 4.

    Attributes
    ----------
    kills
        Processes killed: ``updater``, ``gateway``, ``store``.
    pauses
        Processes stopped for a while.
    harmed_s, cuts_s
        Monotonic times of all kills, and of the power cuts.
    """

    def __init__(
        self, draw: random.Random, store: MortalStore, *, store_kills: bool, power_cuts: int
    ) -> None:
        self._draw = draw
        self._store = store
        self._due = list[tuple[float, Callable[[], object]]]()
        self._next_s = time.monotonic() + draw.uniform(*_EVERY_S)
        self._harms: dict[Callable[[], bool], int] = {
            self._kill_updater: 4, self._kill_gateway: 3, self._pause_updater: 3,
            self._pause_gateway: 1, self._kill_store: 3 * store_kills,
            self._cut_power: power_cuts,
        }  # fmt: skip
        self._paused = list[psutil.Process]()
        self._living: dict[str, list[psutil.Process]] = {}
        self.kills = Counter[str](updater=0, gateway=0, store=0)
        self.pauses = 0
        self.harmed_s = list[float]()
        self.cuts_s = list[float]()

    def act(self) -> None:
        """Do what is due."""
        now_s = time.monotonic()
        self._store.watch(now_s)
        for item in [item for item in self._due if item[0] <= now_s]:
            self._due.remove(item)
            item[1]()
        if now_s < self._next_s:
            return
        self._next_s = now_s + self._draw.uniform(*_EVERY_S)
        self._look()
        harms = {harm: weight for harm, weight in self._harms.items() if weight}
        while harms:
            [harm] = self._draw.choices(list(harms), list(harms.values()))
            if harm():
                return
            del harms[harm]

    def calm(self) -> None:
        """Let everything run again, the store too."""
        self.resume()
        self._store.start()

    def resume(self) -> None:
        """Let paused processes go on; nothing more is due."""
        self._due.clear()
        self._go_on()

    def _look(self) -> None:
        """Find the replicas that have started and are not paused."""
        found = processes()
        for replica in ("Updater", "Gateway"):
            self._living[replica] = [
                each for each in found.get(replica, ())
                if each not in self._paused and _has_started(each)
            ]  # fmt: skip

    def _one(self, replica: str) -> psutil.Process | None:
        found = self._living[replica]
        return self._draw.choice(found) if found else None

    def _kill_updater(self) -> bool:
        return self._kill("Updater")

    def _kill_gateway(self) -> bool:
        return self._kill("Gateway")

    def _kill(self, replica: str) -> bool:
        process = self._one(replica)
        last = len(self._living[replica]) == 1
        if process is None or (last and self._draw.random() < _SPARED):
            return False
        with contextlib.suppress(psutil.Error):
            process.kill()
        self._harmed(replica.lower())
        return True

    def _pause_updater(self) -> bool:
        return self._pause("Updater", self._draw.uniform(*_PAST_LEASE) * LEASE_MS / 1000)

    def _pause_gateway(self) -> bool:
        return self._pause("Gateway", self._draw.uniform(*_GATEWAY_PAUSE_S))

    def _pause(self, replica: str, seconds: float) -> bool:
        process = self._one(replica)
        if process is None:
            return False
        self._stop(process)
        self.pauses += 1
        self._due.append((time.monotonic() + seconds, lambda: self._go_on(process)))
        return True

    def _kill_store(self) -> bool:
        if not self._store.alive:
            return False
        self._store.kill()
        self._harmed("store")
        self._due.append((time.monotonic() + self._draw.uniform(*_STORE_AWAY_S), self._store.start))
        return True

    def _cut_power(self) -> bool:
        """Cut it while updaters hold batches, which they try to commit afterwards."""
        if not self._store.alive:
            return False
        for process in self._living["Updater"]:
            self._stop(process)
        # From here on the server answers those that wait for events with what it may forget,
        # and nothing that they had committed before.
        self._store.watch(begin_s := time.monotonic())
        while not self._store.grew and time.monotonic() < begin_s + _WRITTEN_S:
            time.sleep(_READ_S[1] / 20)
        time.sleep(self._draw.uniform(*_READ_S))
        now_s = time.monotonic()
        self._store.cut_power(self._draw, now_s)
        self.cuts_s.append(now_s)
        self._harmed("store")
        self._store.start()
        for process in self._living["Updater"]:
            self._go_on(process)
        return True

    def _harmed(self, what: str) -> None:
        self.kills[what] += 1
        self.harmed_s.append(time.monotonic())

    def _stop(self, process: psutil.Process) -> None:
        with contextlib.suppress(psutil.Error):
            process.suspend()
            self._paused.append(process)

    def _go_on(self, process: psutil.Process | None = None) -> None:
        for each in [process] if process else list(self._paused):
            with contextlib.suppress(psutil.Error):
                each.resume()
            if each in self._paused:
                self._paused.remove(each)


def _has_started(replica: psutil.Process) -> bool:
    try:
        return not " ".join(replica.cmdline()).rstrip().endswith(_STARTING)
    except psutil.Error:
        return False
