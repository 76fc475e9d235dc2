"""Runs in which anonymous ids become users': who sends what, the rebuilds beside it, the faults."""

from collections.abc import Callable
from typing import Any

from feature_repo.errors import PortraitError
from feature_repo.events.pseudonyms import partition_of
from feature_repo.events.schema import EventRecord
from services.event_log.keys import unjoined_key
from services.history.merged_history import restore_owners
from services.models.transition import Transition
from services.rebuild.refold import refold
from simulator.invariants import Fingerprint, ViolatedError, settled
from simulator.scenario import LEASE_MS, PARTITIONS, PSEUDONYMS, Scenario, Silent
from simulator.world import Process

_USERS = tuple(PSEUDONYMS.of_user(str(number)) for number in range(2))
_ANONYMOUS = tuple(PSEUDONYMS.of_anonymous(str(number)) for number in range(6))
_REBUILD = "rebuild"


class LinkScenario(Scenario):
    """A run of one seed with few users and several anonymous ids for each.

    What a round may fold, what a row names, how soon what was left is tried again: all of it is
    smaller than in the product, so that a run of a few dozen events meets every bound.
    """

    requests = (4, 12)

    def __init__(self, seed: int, rewrite: Callable[[str], str] = lambda text: text) -> None:
        super().__init__(seed, rewrite)
        rng = self.rng
        self.named = rng.choice((32, 2))
        self.merged_events = rng.choice((5_000, 10, 3))
        self.disk.unreadable = rng.choice((0.0, 0.0, 0.2))
        self.rebuilds = rng.random() < 0.5
        if rng.random() < 0.3:  # the archiver stands still for most of the run
            self.settings = self.settings.model_copy(update={"archive_every_s": 3.0})

    def _event(self, name: str, serial: int) -> EventRecord:
        event, rng = super()._event(name, serial), self.rng
        one = rng.random()
        if one < 0.5:
            event.user, event.anonymous = rng.choice(_ANONYMOUS), True
        else:
            event.user = rng.choice(_USERS)
            event.linked = rng.choice(_ANONYMOUS) if one < 0.75 else None
        if rng.random() < 0.2:
            event.consent = {"email": rng.random() < 0.6}
            event.key = rng.choice((None, "write:0123456789ab")) if event.linked is None else None
        if event.anonymous and name.startswith("poison"):
            event.consent = None  # left out: joined before it is buried, what it says counts
        return event

    def _stand_ins(self) -> dict[str, dict[str, Any]]:
        stand_ins, silent = super()._stand_ins(), Silent()
        stand_ins["services.update.updater"]["_LATE_S"] = 0.3
        return stand_ins | {
            "services.update.linking": {"MERGED_EVENTS": self.merged_events, "_log": silent},
            "services.update.late_links": {"RETRY_S": 0.5, "_log": silent},
            "services.history.users": {"_rows": self.disk.rows},
            "services.history.merged_history": {"_read_archive": self.disk.named},
            "feature_repo.user_profile.consent": {"MAX_LINKED": self.named},
            "services.rebuild.refold": {"ATTEMPTS": 2, "LEASE_MS": LEASE_MS, "_log": silent},
        }

    def _start(self) -> None:
        super()._start()
        if self.rebuilds:
            self._start_process(_REBUILD)

    def _start_process(self, name: str) -> None:
        if name != _REBUILD:
            super()._start_process(name)
            return
        process = Process(name)
        self.world.spawn(process, self._rebuild)
        self.updaters.append(process)

    def _rebuild(self) -> None:
        """Fold everyone again, now and then; see `services.rebuild.run.rebuild`."""
        client, archive = self._connect(""), self.disk.archive()
        while True:
            self.world.sleep(self.rng.random())
            try:
                restore_owners(client, archive, PARTITIONS)
                for partition in range(PARTITIONS):
                    users = [u for u in (*_USERS, *_ANONYMOUS) if partition_of(u) == partition]
                    done = refold(client, archive, Transition(Fingerprint()), partition, users)
                    self.world.note("rebuild", f"{len(done.done)} rows, {len(done.short)} short")
            except PortraitError as error:
                self.world.note("rebuild given up", type(error).__name__)

    def _calm(self) -> None:
        super()._calm()
        self.disk.unreadable = 0.0

    def _drained(self) -> bool:
        if not super()._drained():
            return False
        if not any(self.world.server.data.get(unjoined_key(p)) for p in range(PARTITIONS)):
            return True
        # The note of a link that the store has lost stays: then the rows tell.
        if self.world.steps % 50:
            return False
        try:
            settled(self.world.server, self.disk, PARTITIONS, self.acknowledged)
        except ViolatedError:
            return False
        return True
