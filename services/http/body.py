"""Request bodies: read with bounds, inflated with bounds, split into single documents.

Belongs here: bytes. What the documents mean is for the routes to say.
"""

import json
import zlib
from typing import Any, Final

import msgspec
import orjson
from starlette.requests import ClientDisconnect, Request

from feature_repo.events import MAX_BATCH_EVENTS
from services.http.problems import ProblemError

JSON_TYPES: Final = frozenset({"application/json"})
NDJSON_TYPES: Final = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})


async def read(request: Request, *, limit: int, types: frozenset[str] = JSON_TYPES) -> bytes:
    """Return the inflated body.

    Parameters
    ----------
    limit
        Most bytes, before and after inflating.
    types
        Media types allowed.

    Raises
    ------
    ProblemError
        413 beyond ``limit`` (inflating stops there), 415 for another type or encoding, 400
        for broken gzip.
    """
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media not in types:
        allowed = ", ".join(sorted(types))
        raise ProblemError(
            "unsupported-media-type", f"content type {media[:80]!r}: send one of {allowed}"
        )
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", ""}:
        raise ProblemError(
            "unsupported-media-type", f"content encoding {encoding[:40]!r}: send gzip or none"
        )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise _too_large(limit)
    raw = bytearray()
    try:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > limit:
                raise _too_large(limit)
    except ClientDisconnect:
        raise ProblemError("malformed", "the connection closed before the body was whole") from None
    return _inflate(bytes(raw), limit) if encoding == "gzip" else bytes(raw)


def _inflate(data: bytes, limit: int) -> bytes:
    inflated = bytearray()
    while data:
        stream = zlib.decompressobj(wbits=31)
        try:
            inflated += stream.decompress(data, limit + 1 - len(inflated))
        except zlib.error:
            raise ProblemError("malformed", "the body is not valid gzip") from None
        if len(inflated) > limit:
            raise _too_large(limit)
        if not stream.eof:
            raise ProblemError("malformed", "the gzip body is cut short")
        data = stream.unused_data
    return bytes(inflated)


def _too_large(limit: int) -> ProblemError:
    return ProblemError("too-large", f"the body is over {limit:,} bytes")


def parse(data: bytes) -> Any:
    """Return a JSON document.

    Raises
    ------
    ProblemError
        400 if it is not JSON, 422 if it holds NaN or Infinity.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _unparsable(data, error.lineno, error.colno) from None


def _unparsable(data: bytes, line: int, column: int) -> ProblemError:
    if has_non_finite(data):
        return ProblemError(
            "invalid",
            "NaN and Infinity are no JSON numbers",
            errors=[{"pointer": "", "detail": "NaN and Infinity are not accepted"}],
        )
    return ProblemError("malformed", f"the body is not JSON: line {line}, column {column}")


def has_non_finite(data: bytes) -> bool:
    """Say whether ``data`` is JSON but for NaN or Infinity.

    Examples
    --------
    >>> has_non_finite(b'{"value": NaN}'), has_non_finite(b'{"value": "NaN"')
    (True, False)
    """
    found = list[str]()
    try:
        json.loads(data, parse_constant=found.append)
    except (ValueError, RecursionError):
        return False
    return bool(found)


def split(data: bytes, *, lines: bool) -> list[bytes]:
    """Return the single documents of a batch: the array's elements or the lines, unparsed.

    Raises
    ------
    ProblemError
        400 if an array body is no JSON array, 413 beyond `MAX_BATCH_EVENTS`, 422 if empty.
    """
    if lines:
        documents = [line for line in data.splitlines() if line.strip()]
    else:
        try:
            documents = [bytes(raw) for raw in msgspec.json.decode(data, type=list[msgspec.Raw])]
        except msgspec.ValidationError:
            raise ProblemError(
                "invalid", "a batch is a JSON array of events",
                errors=[{"pointer": "", "detail": "expected an array"}],
            ) from None  # fmt: skip
        except msgspec.DecodeError:
            parse(data)  # says where, or that a number is not finite
            raise ProblemError("malformed", "the body is not a JSON array") from None
    if len(documents) > MAX_BATCH_EVENTS:
        raise ProblemError(
            "too-large", f"{len(documents):,} events in one batch: at most {MAX_BATCH_EVENTS:,}"
        )
    if not documents:
        raise ProblemError("invalid", "the batch is empty: send at least one event")
    return documents
