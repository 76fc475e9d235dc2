"""Disks that are really full: of the store, with each fsync policy, and of the archive."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_nodes import Node
from test_faults import ALWAYS, accepted, ids_of, post, refused, shop
from waiting import wait_until

from feature_repo.archive.event_archive import Archive
from feature_repo.events.pseudonyms import Pseudonyms, partition_of
from services.client import Client
from services.event_log.keys import cursor_key, log_key
from services.hosting.embedded import EmbeddedStore


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"needs root and mount: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte; removing the returned file makes room again."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def post_until_refused(client: Client, names: Iterator[str]) -> tuple[list[str], str]:
    """Return the ids that were acknowledged, and the first that was refused."""
    taken = list[str]()
    for name in names:
        answer = post(client, name)
        if answer.status_code != 202:
            refused(answer)
            return taken, name
        taken.append(name)
    raise AssertionError("never refused")


def numbered() -> Iterator[str]:
    return (f"e{n}" for n in range(100_000))


def test_a_full_disk_under_everysec_refuses_events_and_reads_go_on(
    disk: Path, tmp_path: Path
) -> None:
    everysec = ("--appendonly", "yes", "--appendfsync", "everysec")
    with (
        Node(disk / "store", *everysec) as node,
        shop(tmp_path / "home", node.url) as (_, client),
    ):
        receipt = post(client, "first").json()["receipt"]
        client.profile("u", after=receipt)
        filler = fill(disk)
        taken, missed = post_until_refused(client, numbered())
        assert "MISCONF" in refused(post(client, missed))["detail"]
        assert client.http.get("/v1/users/u/profile").status_code == 200
        assert client.recommendations("u")["degraded"] is False
        wait_until(lambda: not client.ready(), "no readiness")
        assert client.http.get("/health/ready").json()["checks"]["writes"]["refusal"] == "MISCONF"
        filler.unlink()
        receipt = accepted(client, missed)["receipt"]
        whole = ["first", *taken, missed]
        assert client.profile("u", after=receipt)["event_count"] == len(whole)
        # What the file holds is whole, too.
        with node.client() as store:
            wait_until(
                lambda: store.info("persistence")["aof_last_write_status"] == "ok", "a flush"
            )
            assert store.execute_command("WAITAOF", 1, 0, 5000)[0] == 1
        node.kill()
        node.start()
        wait_until(client.ready, "readiness")
        assert ids_of(client) == whole
        assert client.profile("u")["event_count"] == len(whole)


def test_a_full_disk_under_always_loses_nothing_and_the_store_comes_back(
    disk: Path, tmp_path: Path
) -> None:
    with (
        EmbeddedStore(disk / "store", "always") as store,
        shop(tmp_path / "home", store.url) as (_, client),
    ):
        receipt = post(client, "first").json()["receipt"]
        client.profile("u", after=receipt)
        filler = fill(disk)
        taken, missed = post_until_refused(client, numbered())
        wait_until(lambda: client.recommendations("u")["degraded"], "the end of the server")
        refused(client.http.get("/v1/users/u/profile"))
        refused(post(client, missed))
        filler.unlink()
        receipt = accepted(client, missed)["receipt"]
        assert ids_of(client) == ["first", *taken, missed]
        wait_until(client.ready, "readiness")
        assert client.profile("u", after=receipt)["event_count"] == len(taken) + 2


def test_a_full_disk_of_the_archive_stops_neither_events_nor_updates(
    disk: Path, tmp_path: Path
) -> None:
    with (
        Node(tmp_path / "store", *ALWAYS) as node,
        node.client() as store,
        shop(disk / "home", node.url) as (api, client),
    ):
        pseudonym = Pseudonyms.load(api.settings.home, api.settings.partitions).of_user("u")
        log, cursor = log_key(partition_of(pseudonym)), cursor_key(partition_of(pseudonym))
        archive = Archive(api.settings.home / "archive" / "events")

        def archived() -> list[str]:
            return [event.id for _, history in archive.histories([pseudonym]) for event in history]

        post(client, "first")
        wait_until(lambda: archived() == ["first"], "the first part")
        wait_until(lambda: store.hget(cursor, "archiving") is None, "the end of its span")
        filler = fill(disk)
        marker = store.hget(cursor, "archived")
        for n in range(50):
            receipt = post(client, f"e{n}").json()["receipt"]
        whole = ["first", *(f"e{n}" for n in range(50))]
        assert client.profile("u", after=receipt)["event_count"] == len(whole)
        wait_until(lambda: store.hget(cursor, "archiving") is not None, "a span was begun")
        assert store.hget(cursor, "archived") == marker
        assert store.xlen(log) == len(whole)  # nothing was trimmed
        assert ids_of(client) == whole
        assert client.ready()
        filler.unlink()
        wait_until(lambda: store.xlen(log) == 1, "a trimmed log")
        assert archived() == whole
        assert ids_of(client) == whole
        assert not list(archive.root.resolve().glob("*.tmp"))
