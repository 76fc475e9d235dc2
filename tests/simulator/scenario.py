"""One run from a seed: who takes part, what goes wrong, and the judgement at the end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import EventRecord, ItemRecord
from services.event_log.keys import cursor_key, log_key
from services.event_log.receipt import Appended, stream_id
from services.models.transition import Transition
from services.settings import Settings
from services.update.updater import UpdaterLoop
from simulator.actors import Client, Gateway
from simulator.disk import Disk
from simulator.invariants import Fingerprint, Monitor, ViolatedError, settled
from simulator.network import URL, Faults, client
from simulator.patches import patched, threads
from simulator.server import Command
from simulator.weather import Storm, Weather
from simulator.world import START_US, Process, World

PARTITIONS = 2
STEPS = 4000
# Time runs faster here than in the product, in proportion: less of a run is waiting.
LEASE_MS = 1000
SETTLE_MS = 600
LOSS_MS = 500
PSEUDONYMS = Pseudonyms(key=b"0" * 16, partitions=PARTITIONS)
_USERS = tuple(PSEUDONYMS.of_user(str(number)) for number in range(5))
_TYPES = ("view_item", "add_to_cart", "purchase", "search")
_SETTINGS = Settings(
    home=Path("/simulated"), redis_url=URL, partitions=PARTITIONS,
    archive_every_s=0.2,
)  # fmt: skip


class Silent:
    """Takes every call and does nothing: a logger, or the statistics beside the commits."""

    def __init__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


class Scenario:
    """A run of one seed.

    Parameters
    ----------
    seed
        Decides everything.
    rewrite
        See `simulator.server.Server`.
    """

    requests = (2, 6)
    """How many a client sends, at least and at most."""

    def __init__(self, seed: int, rewrite: Callable[[str], str] = lambda text: text) -> None:
        self.seed = seed
        self.settings = _SETTINGS
        self.world = World(seed, rewrite)
        self.rng = self.world.rng
        self.weather = Weather.draw(self.rng)
        self.monitor = Monitor(self.world.server, PARTITIONS)
        self.disk = Disk(self.world)
        self.faults = Faults(lost=self.weather.lost, late=self.weather.late)
        self.acknowledged: dict[str, tuple[int, int]] = {}
        self.forgotten: set[tuple[str, tuple[int, int]]] = set()
        self.updaters: list[Process] = []

    def run(self) -> "Scenario":
        """Run to the end and judge.

        Raises
        ------
        ViolatedError
            If an invariant does not hold.
        StuckError
            If not everything comes to be applied and archived.
        """
        with patched(self.world, self._stand_ins()):
            try:
                self._start()
                self.world.on_tick = self.storm.strike
                self.world.run(lambda: all(each.done for each in self.clients), STEPS)
                self._calm()
                self.world.run(self._drained, STEPS)
            finally:
                for process in [*self.updaters, *(g.process for g in self.gateways)]:
                    if process.alive:
                        self.world.kill(process)
            settled(self.world.server, self.disk, PARTITIONS, self.acknowledged)
        return self

    def _calm(self) -> None:
        """Let nothing go wrong any more."""
        self.world.on_tick = lambda: None
        self.faults.lost = self.faults.late = 0.0

    def _stand_ins(self) -> dict[str, dict[str, Any]]:
        silent, connect = Silent(), self._connect
        return {
            "services.update.updater": {
                "threading": threads(self.world), "connect": connect, "Counters": Silent,
                "SETTLE_MS": SETTLE_MS,
                "Archive": lambda root: self.disk.archive(), "_log": silent,
            },
            "services.event_log.reader": {"connect": connect, "_log": silent},
            "services.update.lease": {"_log": silent},
            "services.event_log.append": {"_log": silent},
            "services.event_log.archiver": {
                "compact": self.disk.compact, "COMPACT_EVERY_S": 1.0, "_log": silent,
            },
            "services.models.transition": {"_log": silent},
            "feature_repo.archive.event_archive": {
                "_read_archived": self.disk.held, "write_part": self.disk.write_part,
                "to_table": lambda entries: entries,
            },
        }  # fmt: skip

    def _connect(self, url: str, *, timeout_s: float = 0.5) -> Any:
        assert self.world.current is not None
        return client(self.world, self.world.current.process, self.faults, timeout_s)

    def _start(self) -> None:
        world, rng = self.world, self.rng
        self.gateways = [Gateway(world, f"gateway-{n}", self.faults) for n in range(2)]
        for gateway in self.gateways:
            gateway.start()
        for number in range(rng.randint(1, 3)):
            self._start_process(f"updater-{number}")
        self.clients = [
            Client(
                world, f"client-{n}", self._batches(n), self.gateways, self._acknowledge,
                self.weather.repeat, self.weather.delay,
            )
            for n in range(rng.randint(1, 3))
        ]  # fmt: skip
        self.storm = Storm(
            world, self.weather, self.updaters, self.gateways, lease_ms=LEASE_MS,
            loss_ms=LOSS_MS, replace=lambda process: self._start_process(process.name),
            lose=self._forgot,
        )  # fmt: skip

    def _batches(self, number: int) -> list[list[EventRecord]]:
        rng, batches, serial = self.rng, [], 0
        for _ in range(rng.randint(*self.requests)):
            batch = []
            for _ in range(rng.randint(1, 4)):
                kind = "poison" if rng.random() < 0.03 else "event"
                batch.append(self._event(f"{kind}-{number}-{serial}", serial))
                serial += 1
            batches.append(batch)
        return batches

    def _event(self, name: str, serial: int) -> EventRecord:
        rng = self.rng
        time_ms = START_US // 1000 + serial - rng.randrange(3) * 3_600_000
        return EventRecord(
            id=name, type=rng.choice(_TYPES), user=rng.choice(_USERS), time_ms=time_ms,
            received_ms=time_ms, items=[ItemRecord(f"item-{serial % 3}", price=1.5)],
            # An order told again moves no encoder, and the encoder is what an event can poison.
            order_id=name if name.startswith("poison") else f"order-{serial}",
        )  # fmt: skip

    def _start_process(self, name: str) -> None:
        process = Process(name)

        def work() -> None:
            UpdaterLoop(self.settings, URL, Transition(Fingerprint()), LEASE_MS).run()

        self.world.spawn(process, work)
        self.updaters.append(process)

    def _acknowledge(self, record: EventRecord, appended: Appended) -> None:
        """I6: a duplicate gets the same receipt, except across a power loss."""
        if (record.id, appended.position) in self.forgotten:
            return  # answered before the server forgot it
        self.world.happened[appended.status] += 1
        before = self.acknowledged.get(record.id)
        if before is not None and before != appended.position:
            raise ViolatedError(f"I6: {record.id} had receipt {before}, now {appended.position}")
        self.acknowledged[record.id] = appended.position

    def _forgot(self, effects: list[Command]) -> None:
        """Take back the acknowledgements of what a power loss took."""
        for effect in effects:
            if effect[0] == b"XADD" and effect[1].endswith(b"log"):
                name, position = EventRecord.decode(effect[4]).id, stream_id(effect[2])
                self.forgotten.add((name, position))
                if self.acknowledged.get(name) == position:
                    del self.acknowledged[name]
        self.monitor.rolled_back()

    def _drained(self) -> bool:
        server = self.world.server
        for partition in range(PARTITIONS):
            held, stream = server.hash(cursor_key(partition)), server.stream(log_key(partition))
            archived = stream_id(held.get(b"archived", b"0-0"))
            if stream.ids and stream.ids[-1] > archived:
                return False
        return self.world.server_up and not self.world._late
