"""Log lines: JSON, one a line, in files below ``home/run/logs``; pseudonyms only.

Each process of a service has a file of its own, of mode 0600, that never grows beyond
`MAX_BYTES` and keeps `KEPT` predecessors. No line holds a user's id, nor anything else that a
request brought: of an exception it has the kind and the places, never the message, of
a request the route, never the path.
"""

import fcntl
import itertools
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

import structlog

from services.runtime import log_lines
from services.settings import Settings

MAX_BYTES: Final = 10_000_000
KEPT: Final = 4
_OURS: Final = "portrait"
_ALWAYS_ON_STDERR: Final = ("serve", "supervisor")


def folder(home: Path) -> Path:
    """Return the folder of the log files."""
    return home / "run" / "logs"


def configure(settings: Settings, name: str) -> None:
    """Write this process's lines, and the warnings of its libraries, to a file of its own.

    Parameters
    ----------
    name
        What the process is; the file is ``NAME-N.log``, N the first number that is free.
    """
    handlers: list[logging.Handler] = [_PrivateFile(folder(settings.home), name)]
    if settings.log_to_stderr or name in _ALWAYS_ON_STDERR:
        sent = log_lines.STDERR_VARIABLE in os.environ
        handlers.append(log_lines.LineSender() if sent else logging.StreamHandler(sys.__stderr__))
    for handler in handlers:
        handler.setFormatter(_Line())
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one.formatter, _Line)]:
        root.removeHandler(old)
        old.close()
    root.handlers += handlers
    logging.getLogger(_OURS).setLevel(settings.log_level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_trace,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=lambda *_: logging.getLogger(_OURS),
        cache_logger_on_first_use=True,
    )


@contextmanager
def file_writer(settings: Settings, name: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that writes a line to a file such as `configure` makes."""
    file = _PrivateFile(folder(settings.home), name)
    try:

        def write(line: str) -> None:
            file.handle(logging.makeLogRecord({"msg": line}))

        yield write
    finally:
        file.close()


def hush_feast() -> None:
    """Keep Feast's advice and every library's deprecations off the terminal.

    Call it after Feast is imported, which asks for deprecations to be shown.
    """
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.getLogger("feast").setLevel(logging.ERROR)


class _PrivateFile(RotatingFileHandler):
    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in itertools.count():  # a process that is about to end may still have its own
            self._lock = _private(str(folder / f".{name}-{number}.lock"), os.O_WRONLY | os.O_CREAT)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(self._lock)
            else:
                break
        super().__init__(folder / f"{name}-{number}.log", maxBytes=MAX_BYTES, backupCount=KEPT)

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", opener=_private)

    def close(self) -> None:
        super().close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class _Line(logging.Formatter):
    """Our own lines are JSON already; of a library's, only where it came from is safe to tell."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name == _OURS:
            return record.getMessage()
        fields: dict[str, Any] = {
            "logger": record.name,
            "where": f"{record.pathname}:{record.lineno}",
            "event": "library_warning",
            "exc_info": record.exc_info,
            "level": record.levelname.lower(),
        }
        stamped = structlog.processors.TimeStamper(fmt="iso", utc=True)(None, "", fields)
        return str(structlog.processors.JSONRenderer()(None, "", _with_trace(None, "", stamped)))


def _with_trace(logger: Any, method: str, fields: Any) -> Any:
    """Put the kind of an exception, and where it passed, in the place of the exception."""
    given = fields.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        fields["trace"] = [
            line for one in _chain(error) for line in (type(one).__qualname__, *_frames(one))
        ]
    return fields


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        if cause in chain:
            break
        chain.append(error := cause)
    return chain


def _frames(error: BaseException) -> list[str]:
    return [
        f"{frame.filename}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
