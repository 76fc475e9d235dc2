"""Steady traffic for a long run: single events, batches and reads, each at its own pace.

Belongs here: the rhythm of the requests. Not here: the events (`load`), or what is
watched meanwhile (`soak`).
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import orjson

from services.client import ApiError, Client
from services.lab.bench.http import Connection
from services.lab.bench.load import Load, OfferedLoad, body_of

_RETRY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class TrafficRhythm:
    """What is sent, all the time.

    Attributes
    ----------
    singles_per_s
        Events posted one by one with ``?return=profile``.
    batches_per_s, batch
        HTTP batches, and events in each.
    recommendations_per_s
        Reads.
    users
        Users.
    """

    singles_per_s: float = 40.0
    batches_per_s: float = 1.6
    batch: int = 100
    recommendations_per_s: float = 10.0
    users: int = 2000


class Traffic:
    """Steady requests from threads of their own; keeps what they took.

    Parameters
    ----------
    client
        Of the service.
    offered
        Items of the load.
    rhythm
        How much of what.
    """

    def __init__(
        self, client: Client, offered: Sequence[OfferedLoad], rhythm: TrafficRhythm
    ) -> None:
        self._client = client
        self._rhythm = rhythm
        self._load = Load(offered, users=rhythm.users, seed="soak")
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._fresh: dict[str, list[float]] = {"event": [], "recommendation": []}
        self._numbers = itertools.count()
        self.events = 0
        self.failures: dict[str, int] = {}

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Send while the block runs."""
        work = [
            (self._single, self._rhythm.singles_per_s, 4),
            (self._batch, self._rhythm.batches_per_s, 1),
            (self._recommend, self._rhythm.recommendations_per_s, 2),
        ]
        threads = [
            threading.Thread(target=self._repeat, args=(send, count / per_s), daemon=True)
            for send, per_s, count in work
            for _ in range(count)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def fresh(self) -> dict[str, list[float]]:
        """Return the milliseconds of requests since the last call, by what they were."""
        with self._lock:
            taken = self._fresh
            self._fresh = {name: [] for name in taken}
        return taken

    def _repeat(self, send: Callable[[Connection], None], every_s: float) -> None:
        due_s = time.monotonic()
        while not self._ended.is_set():
            try:
                with Connection(self._client) as connection:
                    while not self._ended.wait(max(0.0, due_s - time.monotonic())):
                        due_s = max(due_s + every_s, time.monotonic() - 1)
                        send(connection)
            except (OSError, ApiError) as error:
                with self._lock:
                    name = type(error).__name__
                    self.failures[name] = self.failures.get(name, 0) + 1
                self._ended.wait(_RETRY_S)

    def _single(self, connection: Connection) -> None:
        body = orjson.dumps(self._load.event(next(self._numbers)))
        self._time_call("event", connection, "POST", "/v1/events?return=profile", body, 1)

    def _batch(self, connection: Connection) -> None:
        events = [self._load.event(next(self._numbers)) for _ in range(self._rhythm.batch)]
        connection.call("POST", "/v1/events/batch", body_of(events))
        with self._lock:
            self.events += len(events)

    def _recommend(self, connection: Connection) -> None:
        path = f"/v1/users/{self._load.user(next(self._numbers))}/recommendations?n=10"
        self._time_call("recommendation", connection, "GET", path, None, 0)

    def _time_call(
        self, name: str, connection: Connection, method: str, path: str, body: bytes | None,
        events: int,
    ) -> None:  # fmt: skip
        started_s = time.perf_counter()
        connection.call(method, path, body)
        with self._lock:
            self._fresh[name].append((time.perf_counter() - started_s) * 1000)
            self.events += events
