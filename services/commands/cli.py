"""The ``portrait`` command: thin entrances to what the rooms do."""

import atexit
import os
import sys
import traceback

import structlog

from feature_repo.errors import PortraitError
from services.commands import (
    audience,
    audit,
    campaign,
    data,
    erasures,
    exports,
    keys,
    laboratory,
    models,
    privacy,
    report,
    service,
)
from services.commands.application import app, opened, say, settings_with

__all__ = [
    "app",
    "audience",
    "audit",
    "campaign",
    "data",
    "erasures",
    "exports",
    "keys",
    "main",
    "models",
    "privacy",
    "report",
    "service",
]

laboratory.add_commands(app)


def main() -> None:
    """Run the command line; what it writes is for its user alone."""
    os.umask(0o077)
    atexit.register(_hush)
    try:
        app()
    except Exception as error:  # noqa: BLE001 - the last place where it can become a line
        say(_log_unexpected(error))
        sys.exit(1)


def _log_unexpected(error: Exception) -> str:
    """Log where an exception passed, and return the line about it; never its message."""
    from services.runtime import logs

    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    told = f"{command} failed unexpectedly ({type(error).__name__})".lstrip()
    try:
        settings = opened[0] if opened else settings_with()
        logs.configure(settings, "cli")
        structlog.get_logger().error("command_failed", command=command, exc_info=error)
    except (OSError, PortraitError):
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{told} in {last.filename}, line {last.lineno}"
    return f"{told}; the details are in cli-*.log below {logs.folder(settings.home)}"


def _hush() -> None:
    # DuckDB's binding prints pages about leaked objects while the interpreter goes down.
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
