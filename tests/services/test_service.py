"""The whole service as it is run: embedded server, Ray Serve, HAProxy, in its own process."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
import redis
from waiting import wait_until

from feature_repo.archive.event_archive import Archive
from feature_repo.errors import InvalidSettingError
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.online.live_rows import read_live
from feature_repo.user_profile import explicit
from services.client import Client
from services.hosting.embedded import connect, free_port, running_url
from services.hosting.serve import check, running
from services.rebuild.run import rebuild
from services.settings import Settings

ADMIN_KEY = "k-test-Xq3vT9mWz7LbR2hYd8NfKc5s"
EVENTS = 1200
USERS = 40


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp("service")
    before = os.umask(0o077)  # as the command line does, whose part this module plays
    try:
        yield Settings(
            home=home, redis_url=None, port=free_port(), archive_every_s=1, api_key=ADMIN_KEY
        )
    finally:
        os.umask(before)


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[Client]:
    with connect(settings) as url, running(settings) as client:
        settings.export(url)
        yield client


def test_the_worked_example_comes_out_exactly(client: Client) -> None:
    user = {"user_id": "123"}
    client.post_event(user | {"type": "view_item", "items": [{"item_id": "A"}]})
    receipt = client.post_event(
        user | {"type": "purchase", "order_id": "1", "items": [{"item_id": "B"}]}
    )["receipt"]
    response = client.http.get(f"/v1/users/123/profile?view=seed&after={receipt}")
    assert response.text == (
        '{"User ID":123,"User Behavior":["Browse Product A","Purchase Product B"],'
        '"Updated User Profile":{"Interest":["Product A","Product B"],'
        '"Purchase History":["Product B"]}}'
    )


def test_a_client_cannot_steer_serve(client: Client) -> None:
    headers = {"x-request-timeout-seconds": "0.000001", "x-request-id": "mine-7"}
    response = client.http.get("/v1/models", headers=headers)
    assert (response.status_code, response.headers["x-request-id"]) == (200, "mine-7")
    assert len(response.headers.get_list("x-request-id")) == 1


def test_rows_are_the_fold_of_what_was_acknowledged(client: Client, settings: Settings) -> None:
    events = [
        {
            "id": f"fold-{n}", "type": "view_item", "user_id": f"fold-{n % USERS}",
            "items": [{"item_id": f"item-{n % 17}"}],
        }
        for n in range(EVENTS)
    ]  # fmt: skip
    for start in range(0, EVENTS, 300):
        answer = client.post_batch(events[start : start + 300])
        assert answer["accepted"] == 300
        assert client.post_batch(events[start : start + 300])["duplicates"] == 300
    client.wait_applied(answer["receipt"])
    pseudonyms = Pseudonyms.load(settings.home)
    users = {pseudonyms.of_user(f"fold-{n}"): f"fold-{n}" for n in range(USERS)}
    live = live_rows(settings, list(users))
    archive = Archive(settings.home / "archive" / "events")
    archived = wait_for_archive(archive, list(users), EVENTS)
    for pseudonym, row in zip(users, live, strict=True):
        assert row is not None
        assert row.version == EVENTS // USERS
        assert row.profile == explicit.encode(explicit.fold(archived[pseudonym]))
    # Log tail and archive together show each event once.
    shown = client.events("fold-0", limit=1000)["events"]
    ids = [event["id"] for event in shown]
    assert ids == [f"fold-{n}" for n in reversed(range(0, EVENTS, USERS))]


def test_a_rebuild_beside_the_running_service_changes_nothing(
    client: Client, settings: Settings
) -> None:
    receipt = client.post_event({"type": "login", "user_id": "fold-1"})["receipt"]
    client.profile("fold-1", after=receipt)
    entities = [Pseudonyms.load(settings.home).of_user(f"fold-{n}") for n in range(USERS)]
    before = live_rows(settings, entities)
    assert rebuild(settings) >= USERS
    assert live_rows(settings, entities) == before
    # The updater has its leases back.
    answer = client.post_event({"type": "login", "user_id": "fold-1"}, return_profile=True)
    assert answer["profile"]["version"] == EVENTS // USERS + 2


def test_everything_that_listens_listens_on_loopback(client: Client, settings: Settings) -> None:
    assert client.ready()
    tree = psutil.Process().children(recursive=True)
    names = {process.name() for process in tree}
    assert {"gcs_server", "raylet", "haproxy", "valkey-server", "ray::DashboardAgent"} <= names
    found = listeners({process.pid for process in tree})
    assert settings.port in {port for _, port in found}
    assert {address for address, _ in found if not address.is_loopback} == set()


def listeners(pids: set[int]) -> set[tuple[IPv4Address | IPv6Address, int]]:
    """Return where these processes listen for TCP, as the kernel has it."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            inodes |= {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                number, port = fields[1].split(":")
                words = [number[n : n + 8] for n in range(0, len(number), 8)]
                address = ip_address(b"".join(bytes.fromhex(word)[::-1] for word in words))
                mapped = getattr(address, "ipv4_mapped", None)
                found.add((mapped or address, int(port, 16)))
    return found


def test_nobody_else_may_read_what_is_kept(client: Client, settings: Settings) -> None:
    shop = settings.home.parent / "shop.ndjson"
    shop.write_text(
        '{"type":"login","user_id":"u","id":"1","time":"2024-01-01T00:00:00Z"}\n{"user_id":"u"}\n'
    )
    home = settings.home.parent / "imported"
    command = [
        sys.executable,
        "-c",
        "from services.commands.cli import main; main()",
        "import",
        "file",
    ]
    variables = os.environ | {"PORTRAIT_HOME": str(home)}
    subprocess.run([*command, str(shop)], env=variables, check=True, capture_output=True)
    assert client.ready()
    for top in (home, settings.home):
        paths = [top, *top.rglob("*")]
        assert len(paths) > 10
        open_ = [path for path in paths if not path.is_symlink() and path.stat().st_mode & 0o077]
        assert open_ == []


def test_no_log_holds_the_id_of_a_user(client: Client, settings: Settings) -> None:
    user = "tell-tale-4711"
    client.post_event({"type": "login", "user_id": user}, return_profile=True)
    statuses = [
        client.http.get(path).status_code
        for path in (
            f"/v1/users/{user}/profile", f"/v1/users/{user}x/profile",
            f"/v1/users/{user}/profile?view={user}", f"/{user}",
            f"/v1/users/{user}/recommendations",
        )
    ]  # fmt: skip
    assert statuses == [200, 404, 422, 404, 200]
    folder = Path((settings.home / "run" / "folder").read_text().split(" ", 1)[1])
    logs = [*(settings.home / "run").rglob("*.log"), *(folder / "ray").resolve().rglob("logs/**/*")]
    names = {path.name for path in logs}
    assert {"gateway-0.log", "updater-0.log", "proxy-0.log", "serve-0.log"} <= names
    assert any(name.startswith("replica_portrait_Gateway") for name in names)
    telling = [path for path in logs if path.is_file() and user.encode() in path.read_bytes()]
    assert telling == []


def test_two_services_on_a_machine_do_not_answer_for_each_other(
    client: Client, tmp_path: Path
) -> None:
    # As soon as it is ready: then its own gateway has only just come up.
    with running(Settings(home=tmp_path, redis_url=None, port=free_port())) as other:
        for each in (other, client):  # each knows its own key alone
            event = {"type": "login", "user_id": "two-services", "id": each.base_url}
            receipt = each.post_event(event)["receipt"]
            shown = each.events("two-services", after=receipt)["events"]
            assert [event["id"] for event in shown] == [each.base_url]
        # At the end of its life: without Ray's own processes it ends at once, with everything.
        owner, _, folder = (tmp_path / "run" / "folder").read_text().partition(" ")
        kill_gcs(int(owner))
        wait_until(lambda: not Path(folder).exists(), "the end of the service")
        wait_until(lambda: not [x for x in command_lines() if folder in x], "the end of Ray")
    assert b"Ray's gcs_server has ended" in (tmp_path / "run" / "serve.log").read_bytes()


def test_a_replica_killed_hard_is_replaced(client: Client) -> None:
    pids = serve_replicas("Updater")
    assert pids
    os.kill(pids[0], signal.SIGKILL)
    event = {"type": "login", "user_id": "after-the-kill"}
    receipt = client.post_event(event)["receipt"]
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        response = client.http.get(f"/v1/users/after-the-kill/profile?after={receipt}")
        if response.status_code == 200:
            break
    assert orjson.loads(response.content)["version"] == 1


def test_sigterm_leaves_nothing_behind(tmp_path: Path) -> None:
    variables = {
        "PORTRAIT_HOME": str(tmp_path), "PORTRAIT_PORT": str(free_port()),
        "PORTRAIT_API_KEY": ADMIN_KEY,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "services.hosting.serve"],
        env={k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PORTRAIT_"))}
        | variables,
        stderr=subprocess.DEVNULL,
    )
    try:
        note = tmp_path / "run" / "folder"
        wait_until(
            lambda: note.exists() and list(Path(note.read_text().split(" ", 1)[1]).glob("ray/*")),
            "Ray's folder", 60,
        )  # fmt: skip
        folder = Path(note.read_text().split(" ", 1)[1])
        # In the middle of starting: Ray is up, the application is not.
        process.send_signal(signal.SIGINT)
        process.wait(60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert not folder.exists()
    assert running_url(tmp_path) is None
    assert not [c for c in command_lines() if str(folder) in c or str(tmp_path) in c]


def test_hosts_that_others_reach_need_a_key() -> None:
    with pytest.raises(InvalidSettingError, match="PORTRAIT_API_KEY"):
        check(Settings(host="0.0.0.0", port=free_port(), api_key=None))


def kill_gcs(owner: int) -> None:
    tree = psutil.Process(owner).children(recursive=True)
    next(one for one in tree if one.name() == "gcs_server").kill()


def live_rows(settings: Settings, entities: list[str]) -> list[Any]:
    url = running_url(settings.home)
    assert url is not None
    with redis.Redis.from_url(url) as store:
        return read_live(store, entities)


def wait_for_archive(archive: Archive, users: list[str], count: int) -> dict[str, Any]:
    found = dict[str, Any]()

    def there() -> bool:
        found.update(archive.histories(users))
        return sum(map(len, found.values())) >= count

    wait_until(there, f"{count} events in the archive")
    return found


def command_lines() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def serve_replicas(name: str) -> list[int]:
    """Return the pids of this test's own replicas (others may run on the machine)."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if f"ServeReplica:portrait:{name}" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found
