"""Who takes part: gateways, clients that resend, updaters, and a rebuild."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from feature_repo.events.schema import EventRecord
from services.event_log.append import Appender
from services.event_log.receipt import Appended
from simulator.network import Faults, async_client
from simulator.patches import SimLoop
from simulator.world import Process, World


@dataclass
class Request:
    """Events on their way to a gateway; answered at most once."""

    records: Sequence[EventRecord]
    answer: list[Appended] | None = None
    failed: bool = False


@dataclass
class Gateway:
    """One gateway process: the real appender, several requests at a time."""

    world: World
    name: str
    faults: Faults
    process: Process = field(init=False)
    inbox: list[tuple[int, Request]] = field(default_factory=list)

    def start(self) -> None:
        """Start, or start again after a kill: what was under way is gone."""
        self.inbox.clear()
        self.process = Process(self.name)
        self.world.spawn(self.process, self._serve)

    def post(self, request: Request, delay_us: int) -> None:
        """Send a request; it arrives after ``delay_us``."""
        self.inbox.append((self.world.now_us + delay_us, request))

    def _due(self) -> bool:
        return any(at <= self.world.now_us for at, _ in self.inbox)

    def _serve(self) -> None:
        loop = SimLoop(self.world)
        try:
            appender = Appender(async_client(self.world, self.process, self.faults))
            while True:
                if not self._due():
                    soonest = min((at for at, _ in self.inbox), default=None)
                    wait_s = None if soonest is None else (soonest - self.world.now_us) / 1e6
                    self.world.wait(self._due, wait_s)
                    continue
                due = [each for each in self.inbox if each[0] <= self.world.now_us]
                self.inbox = [each for each in self.inbox if each not in due]
                requests = [request for _, request in due]
                answers = loop.run_until_complete(_append(appender, requests))
                self.world.pause()  # written, and not answered yet
                for request, answer in zip(requests, answers, strict=True):
                    if isinstance(answer, BaseException):
                        request.failed = True
                    else:
                        request.answer = answer
        finally:
            loop.shut()


async def _append(appender: Appender, requests: list[Request]) -> list[Any]:
    return await asyncio.gather(
        *(appender.append(list(request.records)) for request in requests), return_exceptions=True
    )


class Client:
    """Posts its events in order, again and again until each batch is acknowledged.

    Parameters
    ----------
    batches
        Events of each request.
    gateways
        Any of them may be asked.
    acknowledge
        Called with every acknowledged event and where it stands.
    repeat
        Chance that a batch is sent once more although it is acknowledged.
    delay
        Chance that a request arrives late, long after the client has given up on it.
    """

    def __init__(
        self,
        world: World,
        name: str,
        batches: list[list[EventRecord]],
        gateways: list[Gateway],
        acknowledge: Callable[[EventRecord, Appended], None],
        repeat: float,
        delay: float,
    ) -> None:
        self._world = world
        self._batches = batches
        self._gateways = gateways
        self._acknowledge = acknowledge
        self._repeat = repeat
        self._delay = delay
        self.done = False
        self.process = Process(name)
        world.spawn(self.process, self._work)

    def _work(self) -> None:
        for batch in self._batches:
            self._world.sleep(self._world.rng.random() ** 3)
            self._post(batch)
            while self._world.rng.random() < self._repeat:
                self._post(batch)
        self.done = True

    def _post(self, batch: list[EventRecord]) -> None:
        world, rng = self._world, self._world.rng
        while True:
            request = Request(batch)
            delay_us = rng.randrange(2000)
            if rng.random() < self._delay:
                delay_us = rng.randrange(1_500_000)
            rng.choice(self._gateways).post(request, delay_us)
            if rng.random() < self._delay:  # the network delivers it twice
                rng.choice(self._gateways).post(request, rng.randrange(1_500_000))
            world.wait(lambda r=request: r.answer is not None or r.failed, 0.5)
            if request.answer is not None:
                for record, appended in zip(batch, request.answer, strict=True):
                    self._acknowledge(record, appended)
                return
            if request.failed:
                world.sleep(0.1)
