"""The service in a process of its own: how it is started, waited for and ended.

Belongs here: that process as its parent sees it. What it does is in `services.hosting.serve`.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import httpx2

from feature_repo.errors import StoreUnavailableError
from services.hosting.embedded import die_with, end_process
from services.settings import Settings

READY_TIMEOUT_S: Final = 180.0
STOP_TIMEOUT_S: Final = 40.0


@contextmanager
def run_service(
    settings: Settings,
    *,
    code: Path | None = None,
    log: Path | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start the service, yield its process at once, end it afterwards.

    Parameters
    ----------
    code
        Folder with other packages of the same names, which run in place of these.
    log
        File for what it prints; None: where we print.
    """
    variables = {
        f"PORTRAIT_{name.upper()}": json.dumps(value) if isinstance(value, dict) else str(value)
        for name, value in settings.model_dump(mode="json", exclude={"api_key"}).items()
        if value is not None
    }
    if settings.api_key is not None:
        variables["PORTRAIT_API_KEY"] = settings.api_key.get_secret_value()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PORTRAIT_"))}
    if code is not None:
        variables["PYTHONPATH"] = str(code)  # Ray's workers inherit it
    with ExitStack() as stack:
        output = None
        if log is not None:
            log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            output = stack.enter_context(log.open("wb"))
            log.chmod(0o600)
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
        stack.callback(end_process, process, STOP_TIMEOUT_S)
        yield process


def wait_until_ready(settings: Settings, process: "subprocess.Popen[bytes] | None") -> None:
    """Return when the service says that it is ready.

    Raises
    ------
    StoreUnavailableError
        If it does not within `READY_TIMEOUT_S`, or its process ends.
    """
    deadline_s, said = time.monotonic() + READY_TIMEOUT_S, "it does not answer"
    with httpx2.Client(base_url=base_url(settings), timeout=2) as client:
        while True:
            with contextlib.suppress(httpx2.TransportError):
                answer = client.get("/health/ready")
                if answer.status_code == 200:
                    return
                said = f"it says {answer.text[:300]}"
            ended = process is not None and process.poll() is not None
            if ended or time.monotonic() > deadline_s:
                raise StoreUnavailableError(
                    f"the service did not come up within {READY_TIMEOUT_S:.0f} s ({said}): "
                    f"see {settings.home / 'run'}, and run `portrait doctor`"
                )
            time.sleep(0.05)


def base_url(settings: Settings) -> str:
    """Return the URL that a client on this machine uses."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
