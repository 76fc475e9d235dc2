"""The embedded store on real processes: killed, hung, out of room, and ended for good."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from waiting import wait_until

from feature_repo.errors import StoreUnavailableError
from services.hosting import embedded
from services.hosting.embedded import EmbeddedStore
from services.hosting.keeper import FIRST_S, Keeper


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    with EmbeddedStore(tmp_path / "store", "always") as started:
        yield started


def pid_of(folder: Path) -> int:
    try:
        return int((folder / "pid").read_text())
    except (OSError, ValueError):  # a start that failed took it away
        return 0


def kill(folder: Path) -> int:
    pid = pid_of(folder)
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_killed_server_comes_back_with_port_and_data(
    store: EmbeddedStore, tmp_path: Path
) -> None:
    url = store.url
    with redis.Redis.from_url(url) as client:
        for n in range(3):  # each is waited for longer than the one before
            client.rpush("acknowledged", n)
            killed = kill(tmp_path / "store")
            wait_until(lambda: pid_of(tmp_path / "store") != killed, "another process")  # noqa: B023
            wait_until(store.answers, "an answer")
        assert client.lrange("acknowledged", 0, -1) == [b"0", b"1", b"2"]
        assert int(client.info("server")["process_id"]) == pid_of(tmp_path / "store")
    assert store.url == url


def test_a_server_that_was_to_end_stays_away(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "store")
    store.start()
    kill(tmp_path / "store")
    store.stop()  # while its keeper is about to start it, or has just begun to
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("-keeper")]
    assert not store.answers()
    assert not servers_of(tmp_path)


def test_a_start_that_fails_is_tried_again_after_ever_longer_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits_s, tried, up = list[float](), list[str](), threading.Event()
    stopped_within = Keeper._wait_for_stop

    def without_waiting(keeper: Keeper, seconds: float) -> bool:
        waits_s.append(seconds)
        return stopped_within(keeper, 0)

    monkeypatch.setattr(Keeper, "_wait_for_stop", without_waiting)

    def process() -> int:
        if up.is_set():
            return os.getpid()
        raise ProcessLookupError

    def start() -> None:
        tried.append("start")
        if len(tried) < 3:
            raise OSError(28, "No space left on device")
        up.set()

    keeper = Keeper("a thing", process, start)
    assert up.wait(20)
    keeper.stop()
    assert len(tried) == 3
    assert [seconds for seconds in waits_s if seconds][:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]


def test_whoever_joined_keeps_the_server_when_its_owner_ends_it(tmp_path: Path) -> None:
    owner, guest = EmbeddedStore(tmp_path / "store"), EmbeddedStore(tmp_path / "store")
    owner.start()
    guest.start()
    assert not guest.started_here
    with redis.Redis.from_url(owner.url) as client:
        client.set("kept", 1)
        owner.stop()
        wait_until(guest.answers, "the guest's server")
        assert client.get("kept") == b"1"
    assert guest.started_here
    guest.stop()
    assert not servers_of(tmp_path)


def test_two_who_wait_start_one_server(tmp_path: Path) -> None:
    stores = [EmbeddedStore(tmp_path / "store") for _ in range(3)]
    for store in stores:
        store.start()
    for _ in range(2):
        killed = kill(tmp_path / "store")
        wait_until(lambda: pid_of(tmp_path / "store") != killed, "another process")  # noqa: B023
        wait_until(stores[0].answers, "an answer")
    assert len(servers_of(tmp_path)) == 1
    for store in stores:
        store.stop()
    assert not servers_of(tmp_path)


def test_the_server_goes_with_the_process_that_started_it_again(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from services.hosting.embedded import EmbeddedStore;"
        "store = EmbeddedStore(pathlib.Path(sys.argv[1])); store.start();"
        "print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "store")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        killed = kill(tmp_path / "store")
        wait_until(lambda: pid_of(tmp_path / "store") != killed, "another process")
        wait_until(EmbeddedStore(tmp_path / "store").answers, "an answer")
        process.kill()
    wait_until(lambda: not servers_of(tmp_path), "the end of the server")


def test_a_server_that_hangs_gets_no_second_one_beside_it(
    store: EmbeddedStore, tmp_path: Path
) -> None:
    os.kill(pid_of(tmp_path / "store"), signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailableError, match="is taken"):
            EmbeddedStore(tmp_path / "store").start()
    finally:
        os.kill(pid_of(tmp_path / "store"), signal.SIGCONT)
    assert len(servers_of(tmp_path)) == 1


def test_a_server_that_reads_a_long_log_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedStore(tmp_path / "store") as store, redis.Redis.from_url(store.url) as client:
        pipe = client.pipeline(transaction=False)
        for n in range(6000):
            pipe.set(f"key-{n}", n)
        pipe.execute()
    text = store._configuration()
    slow = text + "key-load-delay 200\n"  # µs a key
    monkeypatch.setattr(EmbeddedStore, "_configuration", lambda self: slow)
    monkeypatch.setattr(embedded, "START_TIMEOUT_S", 0.6)
    with EmbeddedStore(tmp_path / "store") as again, redis.Redis.from_url(again.url) as client:
        assert client.dbsize() == 6000
    assert again.url == store.url


def servers_of(folder: Path) -> list[int]:
    """Return the servers whose files lie below ``folder``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "valkey-server" in line and str(folder) in _folder_of(path.parent, line):
            found.append(int(path.parent.name))
    return found


def _folder_of(process: Path, line: str) -> str:
    try:
        return line + str((process / "cwd").readlink())
    except OSError:
        return line
