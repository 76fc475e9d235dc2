"""Chaos: the real service under load while its processes die, and the verdict.

Belongs here: the course of a run and its result. The parts are modules of their own: the
clients (`load`), the harm (`nemesis`), the store that can die (`store`),
code without a guard (`guards`) and the judge (`check`).
"""

import contextlib
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.errors import PortraitError
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.online.connection import connect as connect_store
from services.client import Client
from services.event_log.keys import cursor_key, log_key
from services.hosting.embedded import free_port
from services.lab.bench.load import offers
from services.lab.chaos import guards
from services.lab.chaos.check import Check, Findings
from services.lab.chaos.load import ChaosClient, Sender
from services.lab.chaos.nemesis import Nemesis
from services.lab.chaos.plan import FaultPlan
from services.lab.chaos.result import result
from services.lab.chaos.store import MortalStore
from services.models.loaded import transition
from services.runtime.progress import ProgressStep, step
from services.settings import Settings

PARTITIONS: Final = 16
DRAIN_S: Final = 120.0
_DEPLOY_S: Final = 60.0
_TICK_S: Final = 0.05


def chaos(plan: FaultPlan) -> dict[str, Any]:
    """Carry out ``plan`` in folders of its own and return what was done and found.

    Nothing is left running, whatever happens.

    Raises
    ------
    PortraitError
        If the service does not come up, or refuses an event for good.
    """
    with tempfile.TemporaryDirectory(prefix="portrait-chaos-") as name, ExitStack() as stack:
        folder = Path(name)
        store = MortalStore(folder / "store", plan.durability)
        stack.callback(store.stop)
        store.start()
        settings = Settings(
            home=folder / "home", redis_url=store.url, api_key=None, host="127.0.0.1",
            port=free_port(), partitions=PARTITIONS, gateways=2, updaters=2,
            archive_every_s=plan.archive_every_s, model=plan.model and plan.model.resolve(),
            log_level="warning",
        )  # fmt: skip
        code = plan.guard and guards.without(plan.guard, folder / "code")
        client = connect_store(store.url, timeout_s=30)
        stack.callback(client.close)
        run = _Run(plan, store, client)
        with _serving(settings, code) as service:
            run.fight(service)
            run.drain()
            if plan.guard and code and not guards.runs(client, plan.guard, code):
                raise PortraitError(f"the service did not run without the guard {plan.guard!r}")
        found = run.judge(settings)
    return result(plan, run.clients, run.nemesis, found, drained=run.drained, seconds=run.seconds)


@contextmanager
def _serving(settings: Settings, code: Path | None) -> Iterator[Client]:
    from services.hosting.serve import running

    log = settings.home / "run" / "serve.log"
    with ExitStack() as stack:
        with step("start the service"):
            service = stack.enter_context(running(settings, code=code))
            # It is ready before every replica is up, and a death while Serve deploys ends it.
            until_s = time.monotonic() + _DEPLOY_S
            while "serving on" not in log.read_text():
                if time.monotonic() > until_s:
                    raise PortraitError(f"not every replica was up after {_DEPLOY_S:.0f} s")
                time.sleep(_TICK_S)
        yield service


class _Run:
    """One run from the first event to the judgement."""

    def __init__(self, plan: FaultPlan, store: MortalStore, client: Any) -> None:
        self._plan = plan
        self._client = client
        self.nemesis = Nemesis(
            random.Random(plan.seed),  # noqa: S311 - harm, not a secret
            store, store_kills=plan.store_kills, power_cuts=plan.cuts,
        )  # fmt: skip
        self._senders = [Sender(f"s{plan.seed}c{number}") for number in range(plan.clients)]
        self.clients: list[ChaosClient] = []
        self.drained = False
        self._begin_s = 0.0
        self.seconds = 0.0

    @property
    def _acknowledged(self) -> int:
        return sum(sender.acknowledged for sender in self._senders)

    def fight(self, service: Client) -> None:
        """Load and harm the service; returns when every client has its last answer."""
        offered = offers([f"item-{number}" for number in range(500)])
        self.clients = [
            ChaosClient(
                service, sender, offered, f"{self._plan.seed}-{sender.name}", self._plan.rest_s
            )
            for sender in self._senders
        ]
        ended, abandoned = threading.Event(), threading.Event()
        self._begin_s = time.monotonic()
        with ThreadPoolExecutor(len(self.clients), thread_name_prefix="chaos") as pool:
            try:
                work = [pool.submit(each.run, ended, abandoned) for each in self.clients]
                with step(f"harm for {self._plan.seconds:g} s") as tell:
                    while not self._over() and not any(one.done() for one in work):
                        self.nemesis.act()
                        self._tell(tell)
                        time.sleep(_TICK_S)
                    tell.note = self._sum()
                self.seconds = time.monotonic() - self._begin_s
                ended.set()
                self.nemesis.calm()
                wait(work, DRAIN_S)
            finally:
                self.nemesis.resume()
                ended.set()
                abandoned.set()
            for one in work:
                one.result()

    def drain(self) -> None:
        """Wait until every partition is applied to its last entry, for `DRAIN_S` at most."""
        until_s = time.monotonic() + DRAIN_S
        with step("drain") as tell:
            while not self.drained and time.monotonic() < until_s:
                with contextlib.suppress(redis.RedisError):
                    left = sum(lags(self._client, partition) for partition in range(PARTITIONS))
                    tell(PARTITIONS - left, PARTITIONS, "partitions")
                    self.drained = left == 0
                time.sleep(_TICK_S)

    def judge(self, settings: Settings) -> Findings:
        """Check everything, with the service ended."""
        check = Check(
            self._client, Archive(settings.home / "archive" / "events"), transition(settings),
            Pseudonyms.load(settings.home), self._senders, self.nemesis.cuts_s,
        )  # fmt: skip
        with step("check") as tell:
            for partition in range(PARTITIONS):
                check.partition(partition)
                tell(partition + 1, PARTITIONS, "partitions")
            return check.finish()

    def _over(self) -> bool:
        passed_s = time.monotonic() - self._begin_s
        enough = self._plan.events is not None and self._acknowledged >= self._plan.events
        return enough or passed_s >= self._plan.seconds

    def _tell(self, tell: ProgressStep) -> None:
        passed_s = time.monotonic() - self._begin_s
        tell(round(passed_s), round(self._plan.seconds), self._sum())

    def _sum(self) -> str:
        kills = self.nemesis.kills.total()
        return f"{self._acknowledged:,} events acknowledged, {kills} kills"


def lags(client: Any, partition: int) -> bool:
    """Say whether a partition's log has entries that are not applied."""
    newest = client.xrevrange(log_key(partition), count=1)
    cursor = client.hget(cursor_key(partition), "cursor") or b"0-0"
    return bool(newest) and LogPosition.parse(newest[0][0]) > LogPosition.parse(cursor)
