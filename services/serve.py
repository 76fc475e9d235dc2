"""Starting and ending the service: store, Ray, Serve and its HAProxy, all on loopback.

`serve_forever` is ``portrait serve``. `running` starts the same in a process of its own for
whoever needs a service for a while (demo, bench, tests). Nothing is left behind after
Ctrl-C, SIGTERM or a failed start; what ``kill -9`` leaves in /tmp, the next start removes.
"""

import contextlib
import ipaddress
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

import httpx2
import redis

from feature_repo.connection import connect as connect_store
from feature_repo.errors import InvalidSettingError, PortraitError, StoreUnavailableError
from services import api_keys
from services.client import Client
from services.embedded import connect, die_with, free_port
from services.haproxy import write_launcher
from services.settings import Settings

READY_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 40.0
_OBJECT_STORE_BYTES: Final = 80 * 1024 * 1024
APPLICATION: Final = "portrait"


def serve_forever(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises
    ------
    InvalidSettingError
        If the host is reachable from outside and no API key is set, or the port is taken.
    StoreUnavailableError
        If the store does not answer, or the service does not come up.
    """
    check(settings)
    if "ray" in sys.modules:
        # Serve reads its settings when first imported: a process that has used Ray for
        # something else cannot change them any more, a new one can.
        with _Signals() as signals, _child(settings, None):
            signals.wait()
        return
    with _Signals() as signals, _service(settings, signals) as key:
        if key is not None:
            _say(f"API key (admin): {key}")
        _say(f"serving on {base_url(settings)} — docs at {base_url(settings)}/docs, Ctrl-C ends")
        signals.wait()
        _say("stopping")


@contextmanager
def running(settings: Settings) -> Iterator[Client]:
    """Serve in a process of its own, yield a client once it is ready, end it afterwards.

    Parameters
    ----------
    settings
        As for `serve_forever`; without an API key one is made for the occasion.
    """
    check(settings)
    key = settings.api_key.get_secret_value() if settings.api_key else api_keys.generate()
    with _child(settings, key), Client(base_url(settings), key) as client:
        yield client


def base_url(settings: Settings) -> str:
    """Return the URL that a client on this machine uses."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def check(settings: Settings) -> None:
    """Refuse settings that cannot or must not be served.

    Raises
    ------
    InvalidSettingError
        See `serve_forever`.
    """
    if settings.api_key is None and not _is_loopback(settings.host):
        raise InvalidSettingError(
            f"host {settings.host} can be reached from other machines: set PORTRAIT_API_KEY first"
        )
    import socket

    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError:
            raise InvalidSettingError(
                f"cannot listen on {settings.host}:{settings.port}: "
                "end what uses the port, or choose another with --port"
            ) from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _service(settings: Settings, signals: "_Signals") -> Iterator[str | None]:
    """Bring everything up, yield the generated key if there is one, take everything down."""
    with ExitStack() as stack:
        url = stack.enter_context(connect(settings))
        settings.export(url)
        generated = _prepare_store(settings, url)
        folder = stack.enter_context(_run_folder(settings))
        environment(settings, folder)
        stack.callback(_stop_ray)
        _start_ray(settings, folder)
        signals.arm()
        _start_application(settings, url)
        signals.arm()
        _wait_until_ready(settings, None)
        yield generated


def _prepare_store(settings: Settings, url: str) -> str | None:
    from feature_repo import store as feast_store
    from feature_repo.archive import Archive
    from services import catalogue, popularity

    feast_store.apply()
    client = connect_store(url, timeout_s=30)
    generated = None
    try:
        if settings.api_key is None:
            generated = api_keys.generate()
            api_keys.register(client, generated, name="generated", scope="admin")
        catalogue.load_archive(client, settings.home)
        if not client.exists(popularity.KEY):
            popularity.seed(client, Archive(settings.home / "archive" / "events"))
    except redis.RedisError as error:
        raise StoreUnavailableError(
            f"the store does not answer ({type(error).__name__}): check PORTRAIT_REDIS_URL"
        ) from error
    finally:
        client.close()
    return generated


def environment(settings: Settings, folder: Path) -> None:
    """Set what Ray and Serve read from the environment, before either is imported.

    Parameters
    ----------
    folder
        Private folder for sockets and configuration; its path must be short.
    """
    taken = {settings.port}

    def port() -> str:
        while (found := free_port()) in taken:
            pass
        taken.add(found)
        return str(found)

    variables = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(write_launcher(folder)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": port(),
        "RAY_SERVE_HAPROXY_STATS_PORT": port(),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "5",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # The handlers never block, so they may share the loop that reads the sockets.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's own ports listen on all interfaces; without the token nobody gets past them.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DEDUP_LOGS": "0",
        **dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TORCH_NUM_THREADS"), "1"
        ),
    }
    os.environ.update(variables)
    os.environ.pop("RAY_ADDRESS", None)


def _start_ray(settings: Settings, folder: Path) -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=max(2, len(os.sched_getaffinity(0))),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        object_store_memory=_OBJECT_STORE_BYTES,
        _temp_dir=str(folder / "ray"),
        _node_ip_address="127.0.0.1",
    )


def _start_application(settings: Settings, url: str) -> None:
    from ray import serve

    from services.app import build

    digest = None
    if settings.api_key is not None:
        digest = api_keys.digest(settings.api_key.get_secret_value())
    arguments = settings.model_dump(mode="json", exclude={"api_key", "redis_url"})
    with _quiet():
        serve.start(
            http_options={"host": settings.host, "port": settings.port},
            logging_config={"enable_access_log": False, "log_level": "WARNING"},
        )
        serve.run(
            build({**arguments, "redis_url": url, "admin_key_sha256": digest}),
            name=APPLICATION,
            route_prefix="/",
            logging_config={"enable_access_log": False, "log_level": "WARNING"},
        )


def _stop_ray() -> None:
    if "ray" not in sys.modules:
        return
    import ray
    from ray import serve

    if ray.is_initialized():
        with contextlib.suppress(Exception), _quiet():
            serve.shutdown()
        ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    import logging

    logger = logging.getLogger("ray.serve")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _run_folder(settings: Settings) -> Iterator[Path]:
    """Yield a private folder with a short path (unix sockets allow 107 bytes)."""
    note = settings.home / "run" / "folder"
    note.parent.mkdir(parents=True, exist_ok=True)
    if note.exists():
        owner, _, old = note.read_text().partition(" ")
        if not Path(f"/proc/{owner}").exists() and Path(old).name.startswith("portrait-"):
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="portrait-", dir="/tmp"))  # unix sockets: keep it short
    note.write_text(f"{os.getpid()} {folder}")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        note.unlink(missing_ok=True)


def _wait_until_ready(settings: Settings, process: "subprocess.Popen[bytes] | None") -> None:
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    with httpx2.Client(base_url=base_url(settings), timeout=2) as client:
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if client.get("/health/ready").status_code == 200:
                    return
            ended = process is not None and process.poll() is not None
            if ended or time.monotonic() > deadline_s:
                raise StoreUnavailableError(
                    f"the service did not come up within {READY_TIMEOUT_S:.0f} s: "
                    f"see {settings.home / 'run' / 'serve.log'}, and run `portrait doctor`"
                )
            time.sleep(0.05)


@contextmanager
def _child(settings: Settings, key: str | None) -> Iterator[None]:
    variables = {
        f"PORTRAIT_{name.upper()}": str(value)
        for name, value in settings.model_dump(mode="json", exclude={"api_key"}).items()
        if value is not None
    }
    if key is None and settings.api_key is not None:
        key = settings.api_key.get_secret_value()
    if key is not None:
        variables["PORTRAIT_API_KEY"] = key
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PORTRAIT_"))}
    log = settings.home / "run" / "serve.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        # With a key of our own there is nothing to print; without, the child prints it.
        output = None if key is None else stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            [sys.executable, "-m", "services.serve"],
            env=kept | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            start_new_session=True,  # Ctrl-C is for us; the child is then ended in order
            preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 - it only calls prctl
        )
        stack.callback(_end, process)
        _wait_until_ready(settings, process)
        yield


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Signals:
    """SIGINT and SIGTERM: an exception while starting, an orderly end while serving."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._waiting = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._previous = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        self.arm()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def arm(self) -> None:
        """Install the handlers; again after Ray, whose own make SIGTERM a crash."""
        for number in self._previous:
            signal.signal(number, self._handle)

    def wait(self) -> None:
        """Return when one of the signals has come."""
        self._waiting = True
        self._ended.wait()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._waiting or self._ended.is_set():
            self._ended.set()  # a second Ctrl-C must not break the clean-up of the first
            return
        self._ended.set()
        raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def main() -> None:
    """Serve with the settings of the environment; a failure is one line and exit code 1."""
    try:
        serve_forever(Settings())
    except PortraitError as error:
        _say(f"portrait: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
