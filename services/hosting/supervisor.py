"""Supervision: the service in a process of its own, started again when it is lost.

Ray cannot go on without its own processes, nor start them again. So whoever serves ends with
them (`LOST`), and this parent, which holds nothing, starts everything anew.
"""

import sys
import time
from typing import Final

import structlog

from services.hosting import child
from services.runtime.signals import Signals
from services.settings import Settings

LOST: Final = 75
"""Exit code: of a service whose Ray has ended; of the supervisor when it gives up."""
WAITS_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Waits before a start; when the last has been in vain, the supervisor gives up."""
STEADY_S: Final = 600.0
"""A service that was up so long begins with the first wait again."""
_FAILED_STARTS: Final = (1, 2)
"""Exit codes of a start that was refused, and that no second one would mend."""

_log = structlog.get_logger(__name__)


def supervise(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM, or until no start helps; return the exit code."""
    attempt = 0
    with Signals() as signals:
        while True:
            code, lasted_s = _serve_once(settings, signals)
            if code is None:
                return 0
            if attempt == 0 and code in _FAILED_STARTS and lasted_s < STEADY_S:
                return code  # it has said why
            if lasted_s >= STEADY_S:
                attempt = 0
            if attempt == len(WAITS_S):
                _log.error("service_given_up", exit_code=code, starts=attempt + 1)
                say(
                    f"portrait: the service ended {attempt + 1} times (exit code {code}): "
                    f"giving up; see {settings.home / 'run' / 'logs'}"
                )
                return LOST
            wait_s = WAITS_S[attempt]
            attempt += 1
            _log.error("service_lost", exit_code=code, attempt=attempt, wait_s=wait_s)
            say(f"the service has ended (exit code {code}): starting it again in {wait_s:g} s")
            signals.wait(timeout_s=wait_s)
            if signals.has_come():
                return 0


def _serve_once(settings: Settings, signals: Signals) -> tuple[int | None, float]:
    """Return exit code, or None if we were told to end, and how long it was up, seconds."""
    since_s = time.monotonic()
    with child.run_service(settings) as process:
        if signals.wait({"service": process.pid}) is None:
            return None, 0
        return process.wait(), time.monotonic() - since_s


def say(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201
