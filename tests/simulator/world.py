"""The scheduler: processes made of greenlets, one fake clock, every step a seeded choice.

Whoever runs gives way at each command to the store, each sleep and each wait; between two of
these a process is never interrupted, as its memory is its own. A process can be killed or
paused wherever it has given way. Nothing depends on the real clock or on other randomness,
so a seed gives the same run again.
"""

import asyncio
import asyncio.events
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import greenlet

from simulator.server import Command, Server

START_US = 1_767_225_590_000_000  # ten seconds before a midnight: dedup buckets change in a run
_FOREVER = 1 << 62


class Killed(SystemExit):
    """What a killed process sees last; a ``SystemExit`` because asyncio lets that one pass."""


class StuckError(AssertionError):
    """The run did not come to its end: something is lost or waits for ever."""


class Process:
    """Tasks that live and die together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused_until_us = 0
        self.tasks: list[Task] = []


class Task:
    """One thread of a process."""

    def __init__(self, process: Process, work: Callable[[], None], hub: greenlet.greenlet) -> None:
        self.process = process
        self.greenlet = greenlet.greenlet(work, hub)
        self.wake_us = 0
        self.ready: Callable[[], bool] | None = None
        self.loop: Any = None
        self.sending: Command | None = None

    @property
    def done(self) -> bool:
        return bool(self.greenlet.dead)


class World:
    """Everything there is in one run.

    Parameters
    ----------
    seed
        Decides every choice.
    rewrite
        See `Server`.
    """

    def __init__(self, seed: int, rewrite: Callable[[str], str] = lambda text: text) -> None:
        self._hub = greenlet.getcurrent()
        self.rng = random.Random(seed)
        self.now_us = START_US + self.rng.randrange(20_000_000)
        self.server = Server(lambda: self.now_us, rewrite)
        self.server_up = True
        self.generation = 0  # of the server's connections
        self.tasks: list[Task] = []
        self.current: Task | None = None
        self.steps = 0
        self.trace: list[str] = []
        self.happened: Counter[str] = Counter()
        self.on_tick: Callable[[], None] = lambda: None
        self._late: list[tuple[int, list[Command]]] = []

    def say(self, text: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{(self.now_us - START_US) / 1e6:8.3f} {text}")

    def note(self, what: str, detail: str) -> None:
        """Count something that happened, and add it to the trace."""
        self.happened[what] += 1
        self.say(f"{what}: {detail}")

    # for those who run

    def spawn(self, process: Process, work: Callable[[], None]) -> Task:
        """Start a task; it runs when the scheduler picks it."""
        task = Task(process, work, self._hub)
        process.tasks.append(task)
        self.tasks.append(task)
        return task

    def pause(
        self,
        wake_us: int = 0,
        ready: Callable[[], bool] | None = None,
        sending: Command | None = None,
    ) -> None:
        """Give way until ``wake_us`` or until ``ready`` says so; ``sending`` tells the storm why.

        Raises
        ------
        Killed
            If the process was killed meanwhile.
        """
        task = self.current
        assert task is not None
        if task.process.alive:
            task.wake_us, task.ready, task.sending = wake_us, ready, sending
            self._hub.switch()
        if not task.process.alive:
            raise Killed

    def sleep(self, seconds: float) -> None:
        self.pause(self.now_us + int(seconds * 1e6))

    def wait(self, ready: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Give way until ``ready`` or the timeout; returns ``ready()``."""
        end = _FOREVER if timeout_s is None else self.now_us + int(timeout_s * 1e6)
        if not ready():
            self.pause(end, ready)
        return ready()

    def deliver_later(self, commands: list[Command], within_us: int) -> None:
        """Let the server get commands whose sender is gone or has stopped waiting."""
        self._late.append((self.now_us + self.rng.randrange(within_us), commands))

    # the scheduler

    def run(self, until: Callable[[], bool], limit: int) -> None:
        """Run until ``until`` says so.

        Raises
        ------
        StuckError
            After ``limit`` steps, or if nobody can run any more.
        """
        end = self.steps + limit
        while not until():
            self.steps += 1
            if self.steps > end:
                raise StuckError(f"not done after {limit} steps")
            self.on_tick()
            if self._late:
                self._deliver()
            self._switch(self._next())
            self.now_us += self.rng.randrange(50, 1500)

    def _next(self) -> Task:
        now = self.now_us
        runnable = [
            task
            for task in self.tasks
            if (task.wake_us <= now or (task.ready is not None and task.ready()))
            and task.process.paused_until_us <= now
        ]
        if not runnable:
            soonest = min(
                (max(task.wake_us, task.process.paused_until_us) for task in self.tasks),
                default=_FOREVER,
            )
            if soonest >= _FOREVER:
                raise StuckError("everybody waits for something that will not happen")
            self.now_us = max(now + 1, soonest)
            return self._next()
        return runnable[self.rng.randrange(len(runnable))]

    def _switch(self, task: Task) -> None:
        self.current = task
        task.process.paused_until_us = 0
        if task.loop is not None:
            asyncio.events._set_running_loop(task.loop)
        try:
            task.greenlet.switch()
        finally:
            self.current = None
            task.loop = asyncio.events._get_running_loop()
            if task.loop is not None:
                asyncio.events._set_running_loop(None)
        if task.done:
            self.tasks.remove(task)
            task.process.tasks.remove(task)

    def _deliver(self) -> None:
        due = [each for each in self._late if each[0] <= self.now_us]
        for each in due:
            self._late.remove(each)
            if self.server_up:
                for command in each[1]:
                    self.note("late delivery", command[0].decode())
                    self.execute(command)

    def execute(self, command: Command) -> Any:
        """Run a command whose answer nobody reads."""
        try:
            return self.server.execute(command)
        except Exception as error:  # noqa: BLE001 - as a server does, which then goes on
            return error

    def kill(self, process: Process) -> None:
        """End a process at once, as kill -9 does: what it would do in its ``finally`` fails."""
        process.alive = False
        for task in list(process.tasks):
            self.current = task
            if task.loop is not None:
                asyncio.events._set_running_loop(task.loop)
            try:
                task.greenlet.throw(Killed)
            except Killed:
                pass
            finally:
                asyncio.events._set_running_loop(None)
                self.current = None
            self.tasks.remove(task)
        process.tasks.clear()

    def restart_server(self, down_us: int, forget_since_us: int | None) -> list[Command]:
        """Kill the server, let it forget what was not on disk, bring it up after ``down_us``.

        Returns
        -------
        list
            The effects it forgot.
        """
        assert down_us > 1000  # the server's clock gives no stream id twice
        self.server_up = False
        self.generation += 1
        self._late.clear()
        lost = [] if forget_since_us is None else self.server.forget(forget_since_us)
        self.server.restart()
        process = Process("server")

        def come_up() -> None:
            self.sleep(down_us / 1e6)
            self.server_up = True

        self.spawn(process, come_up)
        return [effect for step in lost for effect in step.effects]
