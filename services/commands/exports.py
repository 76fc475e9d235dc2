"""Command on exports: all that is kept of a user, written to a file by the running service."""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

import orjson
import typer

from feature_repo.errors import InvalidInputError, PortraitError
from feature_repo.events.fields import MAX_ID
from services.commands.application import Home, Json, print_json
from services.commands.privacy import privacy
from services.commands.running_service import Url, running_service
from services.runtime.progress import ProgressStep, step

if TYPE_CHECKING:
    from services.client import Client

_MEGABYTE: Final = 1_000_000
_TAIL: Final = 1_000
_COUNTS: Final = b'"counts":'
_END: Final = b',"complete":true}'


@privacy.command("export")
def export(
    user: Annotated[str, typer.Argument(help="The shop's own user id, or an anonymous id")],
    out: Annotated[
        Path | None, typer.Option(help="JSON file to write, for your eyes only; default: stdout")
    ] = None,
    url: Url = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Write everything that is kept of a user as one JSON document.

    The file appears once it is whole. `portrait import export FILE` reads it again.

    Examples: `portrait privacy export 123 --out 123.json` ·
    `portrait privacy export 123 | jq .counts`
    """
    if not 1 <= len(user) <= MAX_ID:
        raise InvalidInputError(f"USER has {len(user)} characters: 1 to {MAX_ID} are an id")
    if out is None:
        with running_service(url, home) as client:
            _write(client, user, sys.stdout.buffer, lambda size: None)
        return
    if out.is_dir():
        raise InvalidInputError(f"--out {out} is a folder: name a file to write")
    with (
        running_service(url, home) as client, step(f"export to {out}") as tell,
        _replacing(out) as file,
    ):  # fmt: skip
        size, counts = _write(client, user, file, lambda done: _tell(tell, done))
        tell.note = f"{counts['events']:,} events, {size:,} bytes"
    if json:
        print_json({"file": str(out), "bytes": size, "counts": counts, "complete": True})


def _tell(tell: ProgressStep, size: int) -> None:
    tell(0, 0, f"{size / _MEGABYTE:.0f} MB so far")


def _write(client: "Client", user: str, file: BinaryIO, tell: Any) -> tuple[int, dict[str, int]]:
    """Write a whole export; return its bytes and what is counted at its end.

    Raises
    ------
    PortraitError
        If it is broken off.
    """
    import httpx2

    size, tail = 0, b""
    try:
        for piece in client.stream_export(user):
            file.write(piece)
            size, tail = size + len(piece), (tail + piece)[-_TAIL:]
            tell(size)
    except httpx2.TransportError:
        if not size:
            raise
        tail = b""
    file.flush()
    if not tail.rstrip().endswith(_END):
        raise PortraitError(
            f"the export was broken off after {size:,} bytes and is not whole: repeat it; the "
            "service's log says why"
        )
    text = tail[tail.rindex(_COUNTS) + len(_COUNTS) : tail.rindex(_END)]
    counts: dict[str, int] = orjson.loads(text)
    return size, counts


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file, readable by its owner only, that takes the place of ``path`` at the end."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
