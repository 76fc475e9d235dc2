"""Limits of a request before it is understood: the size of its head, its body, its time.

`within` is put around the ASGI ``receive`` of every request, so the bounds hold for every
route, whoever reads the body. Tighter ones (32 KB for one event) are the routes' own.
"""

import asyncio
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from feature_repo.events.schema import MAX_BATCH_BYTES
from services.http.problems import Problem, ProblemError

MAX_HEADER_BYTES: Final = 16 * 1024
"""Names and values of all header fields of a request."""
MAX_BODY_BYTES: Final = MAX_BATCH_BYTES
"""Body of any request, as it comes over the wire."""

CLOSING: Final = frozenset({408, 413, 431})
"""Answers after which the connection is closed: the rest of the request is not read."""


def find_problem(scope: Scope, headers: Headers) -> Problem | None:
    """Return the problem of a request whose head alone breaks a bound, else None."""
    size = sum(len(name) + len(value) for name, value in scope["headers"])
    if size > MAX_HEADER_BYTES:
        return Problem("headers-too-large", f"the header fields take {size:,} bytes: at most 16 KB")
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_BODY_BYTES:
        return Problem("too-large", f"the body is over {MAX_BODY_BYTES:,} bytes")
    return None


def within(receive: Receive, timeout_s: float) -> Receive:
    """Return ``receive`` with bounds on the body.

    Parameters
    ----------
    receive
        ASGI callable that yields the parts of the request.
    timeout_s
        Longest time from now until the last part, seconds.

    Returns
    -------
    Receive
        It raises `ProblemError`: 408 when the body is late, 413 when it is too large.
    """
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    size, whole = 0, False

    async def receive_bounded() -> Message:
        nonlocal size, whole
        if whole:  # what comes now is the end of the connection: wait for that without bound
            return await receive()
        try:
            async with asyncio.timeout_at(deadline_s):
                message = await receive()
        except TimeoutError:
            raise ProblemError(
                "timeout", f"the body did not arrive within {timeout_s:g} s"
            ) from None
        whole = message["type"] != "http.request" or not message.get("more_body", False)
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            raise ProblemError("too-large", f"the body is over {MAX_BODY_BYTES:,} bytes")
        return message

    return receive_bounded
