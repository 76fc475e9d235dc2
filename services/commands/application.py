"""Application of all commands of ``portrait``: its errors and its options.

Expected failures become one line on stderr: exit code 2 when the caller can mend it, 1
when the store or a model is at fault, 130 after Ctrl-C. JSON, where a command offers it,
is the last line on stdout. What is not expected here, `services.commands.cli` turns into a line.
"""

import asyncio
import errno
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import orjson
import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from typer.core import TyperGroup

from feature_repo.errors import (
    ConflictError,
    InvalidInputError,
    InvalidSettingError,
    NotFoundError,
    PortraitError,
)
from feature_repo.events.schema import now_ms
from services.settings import Settings, tighten

_T = TypeVar("_T")
_PATH_ERRORS: Final = frozenset({
    errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT,
    errno.ENOTDIR, errno.EPERM, errno.EROFS,
})  # fmt: skip
"""What is wrong with a path that the caller named; a full disk is another matter."""

opened: Final[list[Settings]] = []
"""The settings of the command that runs, once they are read."""


class OneLineErrors(TyperGroup):
    """Turns expected failures of any command into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; see the module's text for the exit codes."""
        try:
            return super().invoke(ctx)
        except (InvalidInputError, NotFoundError, ConflictError) as error:
            message, code = str(error), 2
        except PortraitError as error:
            message, code = str(error), 1
        except (KeyboardInterrupt, SystemExit, RuntimeError) as error:
            # Ctrl-C comes as SystemExit out of Ray Train, as RuntimeError out of DuckDB.
            if isinstance(error, RuntimeError) and str(error) != "Query interrupted":
                raise
            message, code = "stopped; what was finished is kept, nothing is half-written", 130
        except OSError as error:
            if error.errno not in _PATH_ERRORS or error.filename is None:
                raise
            message, code = f"{error.filename}: {error.strerror}: check the path", 2
        say(message)
        raise typer.Exit(code)


def say(message: str) -> None:
    """Print one line on stderr; what a terminal would act on is shown, not done."""
    shown = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in message
    )
    print(f"portrait: {shown}", file=sys.stderr)  # noqa: T201


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Living user profiles for e-commerce.",
)

Home = Annotated[
    Path | None, typer.Option(help="State folder; default: PORTRAIT_HOME, else .portrait")
]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON, last, on stdout")]


def print_json(value: Any) -> None:
    """Print one line of JSON on stdout."""
    print(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode())  # noqa: T201


def settings_with(**given: Any) -> Settings:
    """Return the settings from the environment, options given on the command line first.

    Raises
    ------
    InvalidSettingError
        Naming the setting, the value's fault and the variable to mend.
    """
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        option = f" or --{name.replace('_', '-')}" if name in given else ""
        raise InvalidSettingError(f"PORTRAIT_{name.upper()}{option}: {first['msg']}") from None
    except SettingsError:
        raise InvalidSettingError(
            'PORTRAIT_EXCHANGE_RATES is no JSON object: write it as {"USD": 0.92, "GBP": 1.17}'
        ) from None
    if settings.home.exists() and not settings.home.is_dir():
        raise InvalidSettingError(f"PORTRAIT_HOME or --home: {settings.home} is no folder")
    opened[:] = [settings]
    tighten(settings.home)
    return settings


def moment(text: str) -> datetime:
    """Return a day or an RFC 3339 time as an aware datetime.

    Raises
    ------
    InvalidInputError
        If ``text`` is neither.

    Examples
    --------
    >>> moment("2017-12-18").isoformat()
    '2017-12-18T00:00:00+00:00'
    """
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"{text!r} is not a time: use a day (2017-12-18) or RFC 3339 (2017-12-18T06:00:00Z)"
        ) from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def as_of_ms(text: str | None) -> int:
    """Return the moment of ``--as-of``, epoch milliseconds; now without one."""
    return now_ms() if text is None else round(moment(text).timestamp() * 1000)


def with_store(home: Path | None, act: Callable[[Any], Awaitable[_T]]) -> _T:
    """Return what ``act`` does with an asyncio client of the store, started if need be."""
    from feature_repo.online.connection import connect_async, translated
    from services.hosting.embedded import connect

    async def run(url: str) -> _T:
        client = connect_async(url)
        try:
            with translated():
                return await act(client)
        finally:
            await client.aclose()

    with connect(settings_with(home=home)) as url:
        return asyncio.run(run(url))


def read_text(file: Path) -> str:
    """Return a file's text, or what is on stdin for ``-``."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} cannot be read: {type(error).__name__}") from None
