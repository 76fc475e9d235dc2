"""Backups that are put back bring nobody back: a store, an archive, and what lies beside it."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from api_calls import view
from erasure_search import search
from gateway_thread import Api
from stalls import PATIENCE_S
from waiting import wait_until

from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.feast_stores import store as feast_store
from feature_repo.online.connection import connect
from services.client import ApiError, Client
from services.erasure import ledger, worker
from services.erasure.keys import KNOWN, PENDING
from services.hosting.embedded import EmbeddedStore
from services.settings import Settings
from services.update import updater

GONE, STAYS = "zebra07quartz", "stayer"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updater, "SETTLE_MS", 0)
    monkeypatch.setattr(ledger, "BEGUN_MS", 0)


@contextmanager
def serve(home: Path) -> Iterator[tuple[Client, Settings]]:
    """Serve a state folder with the store that lies in it."""
    with EmbeddedStore(home / "store") as store:
        settings = Settings(
            home=home, redis_url=store.url, partitions=4, archive_every_s=0.05,
            store_bound_s=PATIENCE_S, wrong_keys_per_min=0,
        )  # fmt: skip
        settings.export(store.url)
        feast_store.apply()
        api = Api(settings, store.url)
        api.start()
        try:
            with api.client() as client:
                api.start_updater()
                yield client, settings
        finally:
            api.stop()


def come(client: Client, user: str) -> None:
    ghost = {"anonymous_id": f"{user}-ghost", "session_id": f"{user}-session"}
    client.post_event({"type": "login", "id": f"{user}:1", **ghost}, return_profile=True)
    client.post_event(view(user, id=f"{user}:2", **ghost), return_profile=True)
    client.put_consents(user, {"email": True}, source=f"{user}-source")


def fill(home: Path) -> None:
    with serve(home) as (client, _):
        for user in (GONE, STAYS):
            come(client, user)
        rule = {"rule": {"user_ids": [GONE, STAYS]}, "consent": []}
        client.audiences.put("some", rule)
        wait_until(lambda: archived(home, GONE) >= 3, "the archiver")
        entities = pseudonyms(home, GONE) + pseudonyms(home, STAYS)
        (home / "features").mkdir(exist_ok=True)
        pq.write_table(pa.table({"entity": entities}), home / "features" / "x.parquet")


def erase(home: Path) -> str:
    with serve(home) as (client, _):
        name = client.privacy.erase(GONE)["erasure_id"]
        client.privacy.wait_erased(name)
    assert left(home) == []
    return name


def pseudonyms(home: Path, user: str) -> list[str]:
    named = Pseudonyms.load(home)
    return [named.of_user(user), named.of_anonymous(f"{user}-ghost")]


def archived(home: Path, user: str) -> int:
    parts = (home / "archive" / "events").resolve().glob("*.parquet")
    rows = [row for part in parts for row in pq.read_table(part)["user"].to_pylist()]
    return sum(row in pseudonyms(home, user) for row in rows)


def left(home: Path) -> list[str]:
    """Return where the erased one is, but for tombstones; nothing runs meanwhile."""
    raw = search(home, [GONE])
    kept = search(home, pseudonyms(home, GONE))
    return raw + [line for line in kept if not line.startswith(("erasures/", "store/"))]


def is_refused(client: Client) -> bool:
    with pytest.raises(ApiError, match="410"):
        client.profile(GONE)
    with pytest.raises(ApiError, match="410"):
        client.post_event(view(GONE))
    return True


def test_a_store_of_before_the_erasure_brings_nobody_back(tmp_path: Path) -> None:
    home, backup = tmp_path / "home", tmp_path / "backup"
    fill(home)
    shutil.copytree(home / "store", backup)
    assert search(backup, [GONE])  # the search sees what there is
    name = erase(home)
    shutil.rmtree(home / "store")
    shutil.copytree(backup, home / "store")
    with serve(home) as (client, settings):
        assert is_refused(client)
        with connect(str(settings.redis_url)) as store:
            wait_until(lambda: store.sismember(KNOWN, name) and not store.hlen(PENDING), "the end")
            stored = [key for key in store.scan_iter() if not key.endswith(b"}erased")]
            held = {key for key in stored for one in pseudonyms(home, GONE) if one.encode() in key}
            assert held == set()
        assert client.privacy.wait_erased(name)["status"] == "done"
        assert is_refused(client)
        profile = client.profile(STAYS)
        assert profile["identity"]["events_by_type"]["view_item"] == 1
        assert client.post_event(view(STAYS, id=f"{STAYS}:2"))["status"] == "duplicate"
    assert left(home) == []
    assert archived(home, STAYS) >= 3


def test_files_of_before_the_erasure_bring_nobody_back(tmp_path: Path) -> None:
    home, backup = tmp_path / "home", tmp_path / "backup"
    fill(home)
    for folder in ("archive", "features"):
        shutil.copytree(home / folder, backup / folder, symlinks=True)
    erase(home)
    before = archived(home, STAYS)
    for folder in ("archive", "features"):
        shutil.rmtree(home / folder)
        shutil.copytree(backup / folder, home / folder, symlinks=True)
    assert archived(home, GONE) >= 3
    with serve(home) as (client, _):
        wait_until(lambda: archived(home, GONE) == 0, "the worker")
        assert is_refused(client)
        wait_until(lambda: pq.read_table(home / "features" / "x.parquet").num_rows == 2, "features")
    assert left(home) == []
    assert archived(home, STAYS) == before


def test_who_is_yet_to_be_erased_is_counted_by_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that comes while restored files are looked for is not done by halves."""
    monkeypatch.setattr(ledger, "BEGUN_MS", 30_000)
    monkeypatch.setattr(worker, "is_drained", lambda *_: True)  # nobody applies events here
    home = tmp_path / "home"
    somebody = Pseudonyms.load(home).of_user(GONE)
    table = home / "features" / "x.parquet"
    table.parent.mkdir()
    pq.write_table(pa.table({"entity": [somebody]}), table)
    with EmbeddedStore(home / "store") as store, connect(store.url) as client:
        asked = ledger.create(home, [somebody], [GONE], suppress=True)
        erasing = worker.ErasureWorker(client, home, 4, time.sleep)
        erasing.run()
        assert pq.read_table(table).num_rows == 1
        client.hset(PENDING, asked.id, 0)
        assert erasing.run() == 1
        assert pq.read_table(table).num_rows == 0
    done = ledger.read(home, asked.id)
    assert done is not None
    assert {one.store: one.removed for one in done.stores}["features"] == 1
