"""What goes wrong in a run, and when: kills, pauses and power losses, aimed where it hurts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from simulator.actors import Gateway
from simulator.scripts import script_name
from simulator.server import Command
from simulator.world import Process, Task, World

_AIM = ("commit", "claim", "finish", "replace")
PART = b"part"
"""What a task is said to be sending while it writes a part of the archive."""


@dataclass(frozen=True)
class Weather:
    """Drawn from the seed; chances are per step or per request.

    Attributes
    ----------
    aim
        How much likelier a kill, a pause or a power loss is while an updater is about to
        commit, a rebuild to replace rows, or an archiver to claim, write or finish a part.
    """

    kill_updater: float
    kill_gateway: float
    kill_server: float
    power_loss: bool
    pause: float
    lost: float
    late: float
    repeat: float
    delay: float
    aim: float

    @classmethod
    def draw(cls, rng: Any) -> "Weather":
        """Most runs lack most faults: rare combinations are then not drowned by common ones."""

        def some(chance: float, share: float = 0.5) -> float:
            return float(chance) if rng.random() < share else 0.0

        return cls(
            kill_updater=some(0.015), kill_gateway=some(0.015), kill_server=some(0.01),
            power_loss=rng.random() < 0.6, pause=some(0.03), lost=some(0.05), late=some(0.02),
            repeat=some(0.3), delay=some(0.2), aim=1.0 + some(8.0),
        )  # fmt: skip


class Storm:
    """Strikes before a step of the scheduler.

    Parameters
    ----------
    updaters, gateways
        Who may be struck.
    lease_ms
        Pauses are parts and multiples of it.
    loss_ms
        What a power loss may take.
    replace
        Puts another updater in place of a killed one.
    lose
        Told what the server forgot.
    """

    def __init__(
        self,
        world: World,
        weather: Weather,
        updaters: list[Process],
        gateways: list[Gateway],
        *,
        lease_ms: int,
        loss_ms: int,
        replace: Callable[[Process], None],
        lose: Callable[[list[Command]], None],
    ) -> None:
        self._world = world
        self._weather = weather
        self._updaters = updaters
        self._gateways = gateways
        self._lease_us = lease_ms * 1000
        self._loss_us = loss_ms * 1000
        self._replace = replace
        self._lose = lose

    def strike(self) -> None:
        """Do, or do not, each of what may go wrong."""
        world, weather, rng = self._world, self._weather, self._world.rng
        aimed = [task.process for task in world.tasks if _critical(task)]
        factor = weather.aim if aimed else 1.0
        if rng.random() < weather.kill_updater * factor:
            process = rng.choice(aimed or self._updaters)
            world.note("kill updater", process.name)
            world.kill(process)
            self._updaters.remove(process)
            self._replace(process)
            aimed = []
        if rng.random() < weather.kill_gateway:
            gateway = rng.choice(self._gateways)
            world.note("kill gateway", gateway.name)
            world.kill(gateway.process)
            gateway.start()
        if rng.random() < weather.pause * factor:
            others = [*self._updaters, *(gateway.process for gateway in self._gateways)]
            process = rng.choice(aimed or others)
            pause_us = int(self._lease_us * rng.choice((0.1, 0.6, 1.2, 2.0)))
            process.paused_until_us = world.now_us + pause_us
            world.note("pause", f"{process.name} for {pause_us / 1e6} s")
        if world.server_up and rng.random() < weather.kill_server * factor:
            self._kill_server()

    def _kill_server(self) -> None:
        world, rng = self._world, self._world.rng
        since_us = None
        # Left out: a claim that is forgotten while its archiver still writes. Another one then
        # claims another span, and what both hold stands in the archive twice (same place).
        writing = any(task.sending == [PART] for task in world.tasks)
        if self._weather.power_loss and not writing:
            since_us = world.now_us - rng.randrange(self._loss_us)
        down_us = rng.randrange(2_000, 15_000) if rng.random() < 0.5 else rng.randrange(500_000)
        lost = world.restart_server(max(down_us, 2_000), since_us)
        what = "power loss" if lost else "kill server"
        world.note(what, f"forgets {len(lost)} changes, back in {down_us / 1e6} s")
        self._lose(lost)


def _critical(task: Task) -> bool:
    sending = task.sending
    return (
        sending is not None
        and task.process.paused_until_us == 0
        and (sending[0] == PART or script_name(sending) in _AIM)
    )
