"""The measures of `updates` one by one: service and floor, Feast, cost, replay.

Belongs here: rounds, warm-up and taking turns. Not here: the result (`updates`), or
how one thing is done (the room's other files).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import orjson

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.events.pseudonyms import Pseudonyms, partition_of
from feature_repo.events.schema import EventRecord, now_ms
from feature_repo.online.live_row import LiveState
from feature_repo.online.live_rows import read_live
from services.client import Client
from services.lab.bench import rows, where
from services.lab.bench.floor import Floor, PlainFloor
from services.lab.bench.http import Posted, post_batches, send_paced
from services.lab.bench.load import Load, body_of, records_of
from services.settings import Settings

Tell = Callable[[int, int, str], None]

LONG: Final = 10_000
SHORT: Final = 10
_STEP_MS: Final = 600_000  # between two events of a long history
_PSEUDONYMS: Final = Pseudonyms(bytes(range(16)), 16)
_PARTS: Final = 5


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured; the defaults take about five minutes on two cores.

    Attributes
    ----------
    users
        Users of the load.
    batch
        Events in an HTTP batch, and in a batch of the floor.
    batches
        HTTP batches in a round.
    rounds
        Repetitions, of which the medians are taken; one more goes before, as warm-up.
    clients
        Connections that post batches.
    requests
        Requests of each latency series, and its rate a second.
    pushes
        Updates through Feast's SDK in a round.
    cost_users, cost_rounds
        Rows updated at a time by `rows.UpdateCost`, and how often.
    size_users
        Complete Journey users whose rows are measured; None: all.
    """

    users: int = 2000
    batch: int = 500
    batches: int = 40
    rounds: int = 3
    clients: int = 3
    requests: int = 1500
    per_s: float = 100.0
    pushes: int = 100
    cost_users: int = 64
    cost_rounds: int = 60
    size_users: int | None = None


class Rounds:
    """The measures over one load and one model.

    Parameters
    ----------
    scale
        How much of each.
    load
        What is sent.
    learned
        The model's transition.
    tell
        Told done, total and what.
    """

    def __init__(self, scale: Scale, load: Load, learned: Any, tell: Tell) -> None:
        self._scale = scale
        self._load = load
        self._learned = learned
        self._tell = tell

    def service(self, settings: Settings, store: Any, folder: Path) -> dict[str, Any]:
        """Measure the service, and between its rounds the floor on the same server."""
        from services.hosting.serve import running

        self._tell(0, 0, "start the service")
        with running(settings) as client:
            found = self._throughput(client, store)
            found |= self._latency(client)
            found["where"] = self._where(client, folder)
        user = Pseudonyms.load(settings.home).of_user(self._load.user(0))
        found["row"] = read_live(store, [user])[0]
        return found

    def _throughput(self, client: Client, store: Any) -> dict[str, Any]:
        floors: dict[int, list[float]] = {self._scale.batch: [], 8 * self._scale.batch: []}
        plains, applied, acknowledged, put_off = list[float](), list[float](), list[float](), 0
        runs = {size: Floor(store, self._learned, f"floor-{size}") for size in floors}
        plain = PlainFloor(store, len(self._load.offered))
        for number in range(self._scale.rounds + 1):
            events = self._round(number)
            records = records_of(events, _PSEUDONYMS, now_ms())
            for size, floor in runs.items():
                self._tell(number, self._scale.rounds, f"floor, batches of {size}")
                floors[size].append(floor.run(_cut_rounds(records, size)))
            plains.append(plain.run(_cut_rounds(records, self._scale.batch)))
            rate, posted = self._apply(client, events)
            applied.append(rate)
            acknowledged.append(posted.accepted / posted.seconds)
            put_off += posted.put_off
        # The first round is a warm-up: it makes the rows. The faster floor is the floor.
        best = max(floors, key=lambda size: median(floors[size][1:]))
        return {
            "floor": floors[best][1:], "floor_batch": best, "plain_floor": plains[1:],
            "applied": applied[1:], "acknowledged": acknowledged[1:], "put_off": put_off,
        }  # fmt: skip

    def _round(self, number: int) -> list[dict[str, Any]]:
        return self._load.batch(number, self._scale.batches * self._scale.batch)

    def _apply(self, client: Client, events: list[dict[str, Any]]) -> tuple[float, Posted]:
        bodies = [body_of(part) for part in _cut_rounds(events, self._scale.batch)]
        started_s = time.perf_counter()
        posted = post_batches(client, bodies, clients=self._scale.clients, tell=self._tell)
        client.wait_applied(posted.receipt)
        return posted.accepted / (time.perf_counter() - started_s), posted

    def _latency(self, client: Client) -> dict[str, list[float]]:
        """Return milliseconds of events read back and of pings, taking turns."""
        requests, events = self._scale.requests, list[float]()
        trivial, parts = list[float](), _PARTS
        load = Load(self._load.offered, users=self._scale.users, seed="latency")
        for part in range(-1, parts):  # the first is a warm-up
            numbers = range(part * requests // parts, (part + 1) * requests // parts)
            self._tell(max(0, part) * requests // parts, requests, "single events")
            path = "/v1/events?return=profile"
            posts = [("POST", path, orjson.dumps(load.event(n))) for n in numbers]
            taken = send_paced(client, posts, per_s=self._scale.per_s)
            pings = send_paced(
                client, [("GET", "/health/live", None)] * len(numbers), per_s=self._scale.per_s
            )
            if part >= 0:
                events += taken
                trivial += pings
        return {"event": events, "trivial": trivial}

    def _where(self, client: Client, folder: Path) -> dict[str, Any]:
        events = self._round(self._scale.rounds + 1)
        found = where.processes()
        self._tell(0, 0, "where the time goes")
        with where.sample_times(folder) as samples:
            before = where.cpu_s(found)
            self._apply(client, events)
            after = where.cpu_s(found)
        used = {name: after[name] - before[name] for name in after}
        return where.shares(used, samples, len(events))

    def feast(self, url: str, folder: Path, row: LiveState) -> list[float]:
        """Return updates per second through Feast's SDK, per round."""
        from services.lab.bench.feast import FeastPush

        push = FeastPush(folder / "feast", url)
        users = [f"pushed-{n % 50}" for n in range(self._scale.pushes)]
        push.run(users[:10], row, self._tell)
        return [push.run(users, row, self._tell) for _ in range(self._scale.rounds)]

    def cost(self, client: Any, transition: Any) -> dict[int, list[float]]:
        """Return microseconds of an update after few and after many events."""
        self._tell(0, 0, f"histories of {LONG:,} events")
        begin_ms = now_ms() - (LONG + 1) * _STEP_MS
        load = Load(self._load.offered, users=1, seed="cost")

        def history(user: int, numbers: range) -> list[EventRecord]:
            bodies = [
                load.event(user * 2 * LONG + n, f"long-{user}") | {"time": begin_ms + n * _STEP_MS}
                for n in numbers
            ]
            return records_of(bodies, _PSEUDONYMS, begin_ms)

        measure = rows.UpdateCost(client, transition, history, users=self._scale.cost_users)
        return measure.measure((LONG, SHORT), self._scale.cost_rounds, self._tell)

    def replay(self, client: Any, transition: Any, archive: Archive) -> list[float]:
        """Return events per second of replays of the load's own events from an archive."""
        at = now_ms()
        events = [e for n in range(self._scale.rounds + 1) for e in self._round(n)]
        by_partition: dict[int, list[tuple[LogPosition, EventRecord]]] = {}
        for number, record in enumerate(records_of(events, _PSEUDONYMS, at)):
            entry = (LogPosition(at, number), record)
            by_partition.setdefault(partition_of(record.user), []).append(entry)
        for partition, entries in by_partition.items():
            archive.append(f"p{partition:03d}", entries)
        return [
            rows.replay(transition, archive, client, self._tell)["per_s"]
            for _ in range(self._scale.rounds)
        ]

    def acknowledged(self, settings: Settings) -> list[float]:
        """Return acknowledged events per second, per round, of a service of its own."""
        from services.hosting.serve import running

        self._tell(0, 0, f"start the service, {settings.durability}")
        rates = list[float]()
        with running(settings) as client:
            for number in range(self._scale.rounds + 1):
                posted = self._apply(client, self._round(number))[1]
                rates.append(posted.accepted / posted.seconds)
        return rates[1:]


def _cut_rounds(values: list[Any], size: int) -> list[list[Any]]:
    return [values[start : start + size] for start in range(0, len(values), size)]
