"""Starting and ending the service: store, Ray, Serve and its HAProxy, all on loopback.

`serve_forever` is ``portrait serve``. `running` starts the same in a process of its own for
whoever needs a service for a while (demo, bench, tests). Nothing is left behind after
Ctrl-C, SIGTERM or a failed start; what ``kill -9`` leaves in /tmp, the next start removes.
"""

import ipaddress
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import redis
import structlog
from pydantic import SecretStr

from feature_repo.archive import currency
from feature_repo.audiences.denials import read_denying
from feature_repo.errors import InvalidSettingError, PortraitError, StoreUnavailableError
from feature_repo.online.connection import connect as connect_store
from feature_repo.online.connection import in_our_words, translated
from services.client import Client
from services.hosting import admin_key, child
from services.hosting.child import base_url, wait_until_ready
from services.hosting.embedded import can_listen, connect
from services.hosting.haproxy import LOG_SOCKET, drain
from services.hosting.ray_runtime import environment, start_application, start_ray, stop_ray
from services.hosting.store_bound import tell_full
from services.hosting.supervisor import LOST, say, supervise
from services.http import api_keys
from services.recommend import rule_book
from services.runtime.log_lines import STDERR_VARIABLE, take_lines
from services.runtime.logs import configure, file_writer, folder, hush_feast
from services.runtime.signals import Signals
from services.settings import Settings, tighten
from training.fit import local_ray

DRAIN_NOTICE_S: Final = 1.0
"""For so long the service still answers after readiness has turned to 503."""
DRAIN_S: Final = 6.0
"""For so long, at most, requests in flight may go on after that (HAProxy itself gives them 5 s)."""

_log = structlog.get_logger(__name__)


class RayLostError(Exception):
    """A process that Ray cannot be without has ended."""


def serve_forever(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM, in a process of its own that is started again when lost.

    Returns
    -------
    int
        Exit code; see `services.hosting.supervisor`.

    Raises
    ------
    InvalidSettingError
        If the host is reachable from outside and no API key is set, or the port is taken.
    """
    check(settings)
    configure(settings, "supervisor")
    return supervise(settings)


def serve(settings: Settings) -> None:
    """Serve in this process until SIGINT or SIGTERM.

    Raises
    ------
    InvalidSettingError
        See `serve_forever`.
    StoreUnavailableError
        If the store does not answer, or the service does not come up.
    RayLostError
        If Ray has ended; what ran on it is killed.
    """
    check(settings)
    with Signals() as signals, _service(settings, signals) as key:
        if key is not None:
            say(f"API key (admin): {key}")
            say(f"it is kept in {settings.home / admin_key.FILE}, and the same at the next start")
        say(f"serving on {base_url(settings)} — docs at {base_url(settings)}/docs, Ctrl-C ends")
        ended = signals.wait(local_ray.vital())
        if ended is not None:
            _log.error("ray_lost", process=ended)
            raise RayLostError(f"Ray's {ended} has ended, and with it the service")
        say("stopping")


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
    settings = settings.model_copy(update={"api_key": SecretStr(key)})
    log = settings.home / "run" / "serve.log"
    with child.run_service(settings, code=code, log=log) as process:
        wait_until_ready(settings, process)
        with Client(base_url(settings), key) as client:
            yield client


def check(settings: Settings) -> None:
    """Refuse settings that cannot or must not be served.

    Raises
    ------
    InvalidSettingError
        See `serve_forever`; also if the file of rules is wrong, the home keeps another currency,
        or the admin key could be guessed.
    """
    if settings.api_key is None:
        admin_key.read(settings.home)
    else:
        api_keys.check_key(settings.api_key.get_secret_value())
    rule_book.load(settings.rules)
    currency.check(settings.home, settings.currency)
    if settings.api_key is None and not _is_loopback(settings.host):
        raise InvalidSettingError(
            f"host {settings.host} can be reached from other machines: set PORTRAIT_API_KEY first"
        )
    if not can_listen(settings.host, settings.port):
        raise InvalidSettingError(
            f"cannot listen on {settings.host}:{settings.port}: "
            "end what uses the port, or choose another with --port"
        )


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
    tighten(settings.home)
    configure(settings, "serve")
    with ExitStack() as stack:
        url = stack.enter_context(connect(settings))
        settings.export(url)
        generated = _prepare_store(settings, url)
        folder = stack.enter_context(_run_folder(settings))
        environment(settings, folder, stack.enter_context(_lines(settings, folder)))
        stack.enter_context(_ray(folder))
        signals.arm()
        drain_file = folder / "draining"
        start_application(settings, url, drain_file)
        signals.arm()
        wait_until_ready(settings, None)
        stack.enter_context(_announce_end(drain_file))
        yield generated


@contextmanager
def _lines(settings: Settings, folder: Path) -> Iterator[dict[str, str]]:
    """Take the lines of HAProxy and, if wanted, of the replicas; yield variables for these."""
    with ExitStack() as stack:
        write = stack.enter_context(file_writer(settings, "proxy"))

        def note(line: str) -> None:
            write(line)
            if settings.log_to_stderr:
                say(line)

        stack.enter_context(take_lines(folder / LOG_SOCKET, note))
        if not settings.log_to_stderr:
            yield {}
            return
        stack.enter_context(take_lines(folder / "stderr.sock", say))
        yield {STDERR_VARIABLE: str(folder / "stderr.sock")}


@contextmanager
def _ray(folder: Path) -> Iterator[None]:
    try:
        start_ray(folder)
        yield
    except RayLostError:
        local_ray.kill()
        raise
    except BaseException:
        stop_ray()
        raise
    stop_ray()


@contextmanager
def _announce_end(drain_file: Path) -> Iterator[None]:
    """Let readiness fail before anything stops, so that load balancers turn away.

    Then take no more connections, and let the requests in flight be answered.
    """
    yield
    drain_file.touch()
    time.sleep(DRAIN_NOTICE_S)
    drain(drain_file.parent, DRAIN_S)


def _prepare_store(settings: Settings, url: str) -> str | None:
    from feature_repo.archive.event_archive import Archive
    from feature_repo.feast_stores import registry_stamp
    from feature_repo.feast_stores import store as feast_store
    from services.catalogue import catalogue, popularity
    from services.models import registry

    if not registry_stamp.is_current(settings.home):
        feast_store.apply()
        hush_feast()
        registry_stamp.note(settings.home)
    client = connect_store(url, timeout_s=30)
    if settings.redis_url is None:
        with translated():
            tell_full(client, say)
    generated: str | None = None
    try:
        if settings.api_key is None:
            generated, ended = admin_key.prepare(client, settings.home)
            if ended is not None:
                say(f"the key in {settings.home / admin_key.FILE} was {ended}: it holds a new one")
        else:
            admin_key.register(client, None)
        if settings.model is None:
            before = registry.read(client)
            adopted = registry.adopt(client, settings.home).production
            if adopted is not None and before.production is None:
                say(f"no model was production yet: the newest is from now on, {adopted.name}")
        catalogue.load_archive(client, settings.home)
        if not client.exists(popularity.KEY):
            denying = read_denying(settings.home, "analytics", settings.standing)
            popularity.seed(client, Archive(settings.home / "archive" / "events"), denying)
    except redis.RedisError as error:
        raise in_our_words(error) or StoreUnavailableError(
            f"the store does not do what a start needs ({type(error).__name__})"
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


def main() -> None:
    """Serve with the settings of the environment; a failure is one line and exit code 1.

    Should Ray be lost, everything else is ended in order, and the exit code is `LOST`.
    """
    os.umask(0o077)
    settings = Settings()
    try:
        serve(settings)
    except PortraitError as error:
        say(f"portrait: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except RayLostError as error:
        say(f"portrait: {error}")
        os._exit(LOST)  # at an orderly exit Ray would wait for what is gone
    except Exception as error:  # noqa: BLE001 - the last place where it can become a line
        _log.error("service_failed", exc_info=error)
        cause, where = type(error).__name__, folder(settings.home)
        say(f"portrait: the service failed unexpectedly ({cause}); the details are below {where}")
        sys.exit(1)


if __name__ == "__main__":
    main()
