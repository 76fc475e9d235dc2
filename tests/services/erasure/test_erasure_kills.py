"""Whoever is ended at any step of an erasure, the next goes on: nothing is left of the erased."""

import inspect
import itertools
import multiprocessing
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from api_calls import view
from erasure_search import search
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
    "bury", "drop_old", "erase_files", "files", "find_logged", "find_names", "is_drained",
    "ledger.names", "ledger.read", "ledger.read_ids", "ledger.write", "lift", "mark_end",
    "restore_graves", "rewrite_files", "store.forget_statements", "store.remove_changes",
    "store.remove_decisions", "store.remove_from_definitions", "store.remove_letters",
    "store.remove_seen", "store.remove_seen_ids", "tombstones.add", "tombstones.read",
    "tombstones.remove",
]  # fmt: skip
"""What a worker calls, and ``files``: each place of the state folder."""


KILLS = 100
LATEST_S = 5.0
"""No kill comes later than that, or a busy machine needs hours for a hundred."""


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
    now_and_then = {"tombstones.read", "ledger.find_open"}  # the look at restored files
    assert set(steps.counts) - now_and_then == set(STEPS) - now_and_then


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


@contextmanager
def ingesting(shop: Shop, gone: str) -> Iterator[Callable[[], int]]:
    """Post events of others, and some of somebody erased, until the block ends; count the taken."""
    ended, taken = threading.Event(), list[int]()

    def post() -> None:
        with shop.api.client() as client:
            for number in itertools.count():
                users = [f"busy-{(number + n) % 40}" for n in range(8)]
                events = [view(user, anonymous_id=f"{user}-ghost") for user in users]
                answer = client.post_batch([*events, view(gone, id=f"{gone}-late-{number}")])
                taken.append(answer["accepted"])
                assert answer["rejected"] == 1
                if ended.wait(0.05):
                    client.wait_applied(answer["receipt"])
                    return

    thread = threading.Thread(target=post, daemon=True)
    thread.start()
    try:
        yield lambda: sum(taken)
    finally:
        ended.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.timeout(1700)
def test_a_hundred_killed_processes_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is killed in a moment of its run that is drawn; the erasures come in beside ingest."""
    monkeypatch.setattr(updater, "SETTLE_MS", 0)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__, "duckdb", "pyarrow.parquet"])
    chance, kills, gone = random.Random(0), 0, list[str]()
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
            late, longest_s = shop.come(), 1.0
            shop.client.privacy.erase(late)
            shop.worker().run()
            while kills < KILLS:
                user = shop.come()
                before = shop.of_stayer()
                begun = shop.client.privacy.erase(user, suppress=False)
                gone.append(user)
                with ingesting(shop, late) as taken:
                    for _ in range(8):  # the last ones may come to their end
                        one = processes.Process(target=carry_out, args=(tmp_path, store.url, 4))
                        one.start()
                        one.join(chance.uniform(0.0, longest_s))
                        kills += one.is_alive()
                        one.kill()
                        one.join()
                    started_s = time.monotonic()
                    shop.worker().run()
                    longest_s = min(LATEST_S, max(longest_s, time.monotonic() - started_s))
                assert taken() > 8
                shop.check(begun["erasure_id"], user, before)
        finally:
            api.stop()
    names = [name for user in gone for name in shop.pseudonyms(user)]
    found = [line for line in search(tmp_path, names) if not line.startswith("erasures/")]
    assert [*found, *search(tmp_path, [*gone, late])] == []
    assert search(tmp_path, shop.pseudonyms(late))  # tombstones: the search sees what there is
