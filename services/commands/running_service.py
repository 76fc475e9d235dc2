"""The running service, as commands ask it: where it listens, with which key, and what goes wrong.

Not here: what the store or the files tell without it (`services.commands.application`).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_repo.errors import InvalidInputError
from services.commands.application import settings_with

if TYPE_CHECKING:
    from services.client import Client

Url = Annotated[
    str | None,
    typer.Option(
        help="Where the service listens; default: here, at PORTRAIT_PORT. "
        "Its key: PORTRAIT_API_KEY, else admin.key"
    ),
]


@contextmanager
def running_service(url: str | None, home: Path | None = None) -> Iterator["Client"]:
    """Yield a client of the service, which answers.

    Raises
    ------
    InvalidInputError
        If no key is known, nothing answers there, or what is asked is refused.
    """
    import httpx2

    from services.client import ApiError, Client, TransientApiError

    settings = settings_with(home=home)
    where = url or f"http://127.0.0.1:{settings.port}"
    key = _find_key(settings.home)
    try:
        with Client(where, key, attempts=1) as once:  # without the patience of the other calls
            once.live()
        with Client(where, key) as client:
            yield client
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        raise InvalidInputError(
            f"no service answers at {where} ({type(error).__name__}): start it with "
            "`portrait serve`, or say with --url where it listens"
        ) from None
    except TransientApiError:
        raise
    except ApiError as error:
        if error.status >= 500:
            raise
        raise InvalidInputError(f"{where} refuses it: {error}") from None


def _find_key(home: Path) -> str:
    from services.hosting import admin_key

    key = os.environ.get("PORTRAIT_API_KEY") or admin_key.read(home)
    if not key:
        raise InvalidInputError(
            f"PORTRAIT_API_KEY is not set, and {home} keeps no {admin_key.FILE}: "
            "the service's key goes there"
        )
    return key
