"""Whoever is ended at any step of an erasure, the next goes on: nothing is left of the erased."""

import inspect
import itertools
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from erasure_shop import Shop
from gateway_thread import Api
from stalls import PATIENCE_S, patient

from feature_repo.erasure import files
from feature_repo.feast_stores import store as feast_store
from feature_repo.online.connection import connect
from services.erasure import worker
from services.erasure.worker import ErasureWorker
from services.hosting.embedded import EmbeddedStore
from services.settings import Settings
from services.update import updater

STEPS = [
    "anonymous_ids.find_archived", "anonymous_ids.find_noted", "anonymous_ids.forget_notes",
    "bury", "erase_files", "files", "find_logged", "find_names", "is_drained", "ledger.names",
    "ledger.read", "ledger.read_ids", "ledger.write", "lift", "mark_end", "restore_graves",
    "rewrite_files", "store.forget_statements", "store.remove_changes", "store.remove_decisions",
    "store.remove_from_definitions", "store.remove_letters", "store.remove_seen",
    "store.remove_seen_ids", "tombstones.add", "tombstones.read", "tombstones.remove",
]  # fmt: skip
"""What a worker calls, and ``files``: each place of the state folder."""


class KilledError(Exception):
    """Stands for the end of a process."""


class Steps:
    """Counts the calls of each step; ends the worker after some call of one of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.counts = dict[str, int]()
        self.end_after: tuple[str, int] | None = None
        for name, value in vars(worker).items():
            if inspect.isfunction(value) and value.__module__.startswith("services.erasure."):
                if value.__module__ != worker.__name__ and name != "partition_of":
                    patch.setattr(worker, name, self._wrap(name, value))
            elif isinstance(value, ModuleType) and value.__name__.startswith(
                ("services.erasure.", "feature_repo.erasure.")
            ):
                wrapped = {
                    inner: self._wrap(f"{name}.{inner}", each) if inspect.isfunction(each) else each
                    for inner, each in vars(value).items()
                }
                patch.setattr(worker, name, SimpleNamespace(**wrapped))
        patch.setattr(worker, "erase_files", self._wrap("erase_files", files.erase_files))
        places = tuple(self._wrap("files", each) for each in files._STEPS)
        patch.setattr(files, "_STEPS", places)

    def _wrap(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **named: Any) -> Any:
            found = act(*given, **named)
            self.counts[name] = self.counts.get(name, 0) + 1
            if self.end_after == (name, self.counts[name]):
                raise KilledError(name)
            return found

        return called

    def run(self, shop: Shop, end_after: tuple[str, int] | None = None) -> bool:
        """Let a new worker carry out what waits; say whether it came to its end."""
        self.counts.clear()
        self.end_after = end_after
        try:
            shop.worker().run()
        except KilledError:
            return False
        return True


@pytest.fixture(scope="module")
def shop(make_api: Callable[..., Api]) -> Iterator[Shop]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updater, "SETTLE_MS", 0)
        shop = Shop(make_api(archive_every_s=0.05, partitions=4))
        yield shop
        shop.client.close()


def test_no_step_is_left_out(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(monkeypatch)
    shop.client.privacy.erase(shop.come(), suppress=False)
    assert steps.run(shop)
    assert set(steps.counts) == set(STEPS) - {"tombstones.read"}


@pytest.mark.parametrize("step", STEPS)
def test_the_next_worker_goes_on(step: str, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    user, steps = shop.come(), Steps(monkeypatch)
    assert len(shop.left_of(user)) > 5
    before = shop.of_stayer()
    begun = shop.client.privacy.erase(user, suppress=False)
    ends = itertools.count(1)
    while not steps.run(shop, (step, next(ends))):
        pass
    shop.check(begun["erasure_id"], user, before)


def carry_out(home: Path, url: str, partitions: int) -> None:
    """Carry out what waits, in a process of its own."""
    ErasureWorker(connect(patient(url)), home, partitions, time.sleep).run()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_processes_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updater, "SETTLE_MS", 0)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__, "duckdb", "pyarrow.parquet"])
    chance, kills, until_s = random.Random(0), 0, time.monotonic() + 200
    with EmbeddedStore(tmp_path / "store") as store:
        settings = Settings(
            home=tmp_path, redis_url=store.url, partitions=4, archive_every_s=0.05,
            store_bound_s=PATIENCE_S, wrong_keys_per_min=0,
        )  # fmt: skip
        settings.export(store.url)
        feast_store.apply()
        api = Api(settings, store.url)
        api.start()
        api.start_updater()
        try:
            shop = Shop(api)
            while time.monotonic() < until_s:
                user = shop.come()
                before = shop.of_stayer()
                begun = shop.client.privacy.erase(user, suppress=False)
                for _ in range(10):
                    one = processes.Process(target=carry_out, args=(tmp_path, store.url, 4))
                    one.start()
                    one.join(chance.uniform(0.0, 2.0))
                    kills += one.is_alive()
                    one.kill()
                    one.join()
                shop.worker().run()
                shop.check(begun["erasure_id"], user, before)
        finally:
            api.stop()
    assert kills > 20
