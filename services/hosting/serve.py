"""Starting and ending the service: store, Ray, Serve and its HAProxy, all on loopback.

`serve_forever` is ``portrait serve``. `running` starts the same in a process of its own for
whoever needs a service for a while (demo, bench, tests). Nothing is left behind after
Ctrl-C, SIGTERM or a failed start; what ``kill -9`` leaves in /tmp, the next start removes.
"""

import contextlib
import ipaddress
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import httpx2
import redis

from feature_repo.connection import connect as connect_store
from feature_repo.errors import InvalidSettingError, PortraitError, StoreUnavailableError
from services.client import Client
from services.hosting.embedded import connect, die_with
from services.hosting.haproxy import drain
from services.hosting.ray_runtime import environment, start_application, start_ray, stop_ray
from services.http import api_keys
from services.logs import configure, hush_feast
from services.recommend import rule_book
from services.settings import Settings
from services.signals import Signals

READY_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 40.0
DRAIN_NOTICE_S: Final = 1.0
"""For so long the service still answers after readiness has turned to 503."""
DRAIN_S: Final = 6.0
"""For so long, at most, requests in flight may go on after that (HAProxy itself gives them 5 s)."""


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
        with Signals() as signals, _child(settings, None):
            signals.wait()
        return
    with Signals() as signals, _service(settings, signals) as key:
        if key is not None:
            _say(f"API key (admin): {key}")
        _say(f"serving on {base_url(settings)} — docs at {base_url(settings)}/docs, Ctrl-C ends")
        signals.wait()
        _say("stopping")


@contextmanager
def running(settings: Settings, *, code: Path | None = None) -> Iterator[Client]:
    """Serve in a process of its own, yield a client once it is ready, end it afterwards.

    Parameters
    ----------
    settings
        As for `serve_forever`; without an API key one is made for the occasion.
    code
        Folder with other packages of the same names, which run in place of these.
    """
    check(settings)
    key = settings.api_key.get_secret_value() if settings.api_key else api_keys.generate()
    with _child(settings, key, code), Client(base_url(settings), key) as client:
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
        See `serve_forever`; also if the file of rules is wrong.
    """
    rule_book.load(settings.rules)
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
def _service(settings: Settings, signals: Signals) -> Iterator[str | None]:
    """Bring everything up, yield the generated key if there is one, take everything down."""
    configure(settings.log_level)
    with ExitStack() as stack:
        url = stack.enter_context(connect(settings))
        settings.export(url)
        generated = _prepare_store(settings, url)
        folder = stack.enter_context(_run_folder(settings))
        environment(settings, folder)
        stack.callback(stop_ray)
        start_ray(folder)
        signals.arm()
        drain_file = folder / "draining"
        start_application(settings, url, drain_file)
        signals.arm()
        _wait_until_ready(settings, None)
        stack.callback(_announce_end, drain_file)
        yield generated


def _announce_end(drain_file: Path) -> None:
    """Let readiness fail before anything stops, so that load balancers turn away.

    Then take no more connections, and let the requests in flight be answered.
    """
    drain_file.touch()
    time.sleep(DRAIN_NOTICE_S)
    drain(drain_file.parent, DRAIN_S)


def _prepare_store(settings: Settings, url: str) -> str | None:
    from feature_repo import registry_stamp
    from feature_repo import store as feast_store
    from feature_repo.archive import Archive
    from services import catalogue, popularity

    if not registry_stamp.is_current(settings.home):
        feast_store.apply()
        hush_feast()
        registry_stamp.note(settings.home)
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
def _child(settings: Settings, key: str | None, code: Path | None = None) -> Iterator[None]:
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
    if code is not None:
        variables["PYTHONPATH"] = str(code)  # Ray's workers inherit it
    log = settings.home / "run" / "serve.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        # With a key of our own there is nothing to print; without, the child prints it.
        output = None if key is None else stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            [sys.executable, "-m", "services.hosting.serve"],
            env=kept | variables,
            cwd=code,
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
