"""One run from a seed: who takes part, what goes wrong, and the judgement at the end."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_repo.entity import Tenant
from feature_repo.events import EventRecord, ItemRecord
from services.lease import LEASE_MS
from services.log import Appended, cursor_key, log_key, stream_id
from services.settings import Settings
from services.transition import Transition
from services.updater import UpdaterLoop
from simulator.actors import Client, Gateway
from simulator.disk import Disk
from simulator.invariants import Fingerprint, Monitor, ViolatedError, settled
from simulator.network import Faults, client
from simulator.patches import patched, threads
from simulator.world import START_US, Process, World

PARTITIONS = 2
STEPS = 4000
_TENANT = Tenant(key=b"0" * 16, partitions=PARTITIONS)
_USERS = tuple(_TENANT.entity(str(number)) for number in range(5))
_TYPES = ("view_item", "add_to_cart", "purchase", "search")
_SETTINGS = Settings(
    home=Path("/simulated"), redis_url="redis://simulated:1/0", partitions=PARTITIONS,
    archive_every_s=0.4,
)  # fmt: skip


class _Silent:
    """Takes every call and does nothing: a logger, or the statistics beside the commits."""

    def __init__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


@dataclass(frozen=True)
class Weather:
    """What goes wrong in one run, drawn from its seed; chances are per step or per request."""

    kill_updater: float
    kill_gateway: float
    kill_server: float
    power_loss: bool
    pause: float
    lost: float
    late: float
    repeat: float
    delay: float

    @classmethod
    def draw(cls, rng: Any) -> "Weather":
        """Most runs lack most faults: rare combinations are then not drowned by common ones."""

        def some(chance: float, share: float = 0.5) -> float:
            return float(chance) if rng.random() < share else 0.0

        return cls(
            kill_updater=some(0.02), kill_gateway=some(0.02), kill_server=some(0.01),
            power_loss=rng.random() < 0.5, pause=some(0.02), lost=some(0.05), late=some(0.02),
            repeat=some(0.3), delay=some(0.2),
        )  # fmt: skip


class Scenario:
    """A run of one seed.

    Parameters
    ----------
    seed
        Decides everything.
    rewrite
        See `simulator.server.Server`.
    """

    def __init__(self, seed: int, rewrite: Callable[[str], str] = lambda text: text) -> None:
        self.seed = seed
        self.world = World(seed, rewrite)
        self.rng = self.world.rng
        self.weather = Weather.draw(self.rng)
        self.monitor = Monitor(self.world.server, PARTITIONS)
        self.disk = Disk(self.world)
        self.faults = Faults(lost=self.weather.lost, late=self.weather.late)
        self.acknowledged: dict[str, tuple[int, int]] = {}
        self.updaters: list[Process] = []
        self.happened: dict[str, int] = {}

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
                self.world.on_tick = self._tick
                self.world.run(lambda: all(each.done for each in self.clients), STEPS)
                self.world.on_tick = lambda: None
                self.faults.lost = self.faults.late = 0.0
                self.world.run(self._drained, STEPS)
            finally:
                for process in [*self.updaters, *(g.process for g in self.gateways)]:
                    if process.alive:
                        self.world.kill(process)
        settled(self.world.server, self.disk, PARTITIONS, self.acknowledged)
        return self

    def _stand_ins(self) -> dict[str, dict[str, Any]]:
        silent, connect = _Silent(), self._connect
        return {
            "services.updater": {
                "threading": threads(self.world), "connect": connect, "Tally": _Silent,
                "Archive": lambda root: self.disk.archive(), "_log": silent,
            },
            "services.log_reader": {"connect": connect, "_log": silent},
            "services.lease": {"_log": silent},
            "services.append": {"_log": silent},
            "services.archiver": {"compact": self.disk.compact, "_log": silent},
            "services.transition": {"_log": silent},
            "feature_repo.archive": {
                "_held": self.disk.held, "write_part": self.disk.write_part,
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
            self._start_updater(f"updater-{number}")
        self.clients = [
            Client(
                world, f"client-{n}", self._batches(n), self.gateways, self._acknowledge,
                self.weather.repeat, self.weather.delay,
            )
            for n in range(rng.randint(1, 3))
        ]  # fmt: skip

    def _batches(self, number: int) -> list[list[EventRecord]]:
        rng, batches, serial = self.rng, [], 0
        for _ in range(rng.randint(2, 6)):
            batch = []
            for _ in range(rng.randint(1, 4)):
                kind = "poison" if rng.random() < 0.03 else "event"
                time_ms = START_US // 1000 + serial - rng.randrange(3) * 3_600_000
                event = EventRecord(
                    id=f"{kind}-{number}-{serial}", type=rng.choice(_TYPES),
                    user=rng.choice(_USERS), time_ms=time_ms, received_ms=time_ms,
                    items=[ItemRecord(f"item-{serial % 3}", price=1.5)],
                    order_id=f"order-{serial}",
                )  # fmt: skip
                batch.append(event)
                serial += 1
            batches.append(batch)
        return batches

    def _start_updater(self, name: str) -> None:
        process = Process(name)

        def work() -> None:
            UpdaterLoop(_SETTINGS, "redis://simulated:1/0", Transition(Fingerprint())).run()

        self.world.spawn(process, work)
        self.updaters.append(process)

    def _acknowledge(self, record: EventRecord, appended: Appended) -> None:
        """I6: a duplicate gets the same receipt."""
        before = self.acknowledged.get(record.id)
        if before is not None and before != appended.position:
            raise ViolatedError(f"I6: {record.id} had receipt {before}, now {appended.position}")
        self.acknowledged[record.id] = appended.position

    # faults

    def _tick(self) -> None:
        weather, rng = self.weather, self.rng
        if rng.random() < weather.kill_updater:
            self._replace_updater(rng.choice(self.updaters))
        if rng.random() < weather.kill_gateway:
            gateway = rng.choice(self.gateways)
            self._note("kill gateway", gateway.name)
            self.world.kill(gateway.process)
            gateway.start()
        if rng.random() < weather.pause:
            process = rng.choice([*self.updaters, *(g.process for g in self.gateways)])
            pause_us = int(LEASE_MS * 1000 * rng.choice((0.1, 0.6, 1.2, 2.0)))
            process.paused_until_us = self.world.now_us + pause_us
            self._note("pause", f"{process.name} for {pause_us / 1e6} s")
        if self.world.server_up and rng.random() < weather.kill_server:
            self._kill_server()

    def _replace_updater(self, process: Process) -> None:
        self._note("kill updater", process.name)
        self.world.kill(process)
        self.updaters.remove(process)
        self._start_updater(process.name)

    def _kill_server(self) -> None:
        world, rng = self.world, self.rng
        since_us = None
        if self.weather.power_loss:
            since_us = max(world.server.synced_us, world.now_us - rng.randrange(1_000_000))
        self._note("kill server", f"forgets since {since_us and (since_us - START_US) / 1e6}")
        for effect in world.restart_server(rng.randrange(2_000_000), since_us):
            if effect[0] == b"XADD" and effect[1].endswith(b"log"):
                self.acknowledged.pop(EventRecord.decode(effect[4]).id, None)
        self.monitor.rolled_back()

    def _note(self, what: str, detail: str) -> None:
        self.happened[what] = self.happened.get(what, 0) + 1
        self.world.say(f"{what}: {detail}")

    def _drained(self) -> bool:
        server = self.world.server
        for partition in range(PARTITIONS):
            held, stream = server.hash(cursor_key(partition)), server.stream(log_key(partition))
            archived = stream_id(held.get(b"archived", b"0-0"))
            if stream.ids and stream.ids[-1] > archived:
                return False
        return self.world.server_up and not self.world._late
