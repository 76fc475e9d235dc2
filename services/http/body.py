"""Request bodies: read with bounds, inflated with bounds, split into single documents.

Belongs here: bytes. What the documents mean is for the routes to say.
"""

import io
import re
import zlib
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec
import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from feature_repo.events.schema import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, problems
from services.http.problems import ProblemError
from services.runtime import workers

JSON_TYPES: Final = frozenset({"application/json"})
NDJSON_TYPES: Final = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
MAX_GZIP_MEMBERS: Final = 16
"""Gzip streams one after another in a body; most senders make one."""
MAX_ERRORS: Final = 100
"""Places of one document that an answer names as wrong."""
SMALL_BYTES: Final = 8 * 1024
"""Up to this size a body is read where it is: no reading of it takes 20 ms."""
_PIECE: Final = 64 * 1024
_NOTHING: Final = msgspec.Raw()
_ARRAY: Final = msgspec.defstruct(
    "_Array",
    [(f"document{n}", msgspec.Raw, _NOTHING) for n in range(MAX_BATCH_EVENTS + 1)],
    array_like=True,
)
"""An array: what stands behind the first document too many is passed over and takes no memory.
One of millions would hold the interpreter up, and with it every request, while it is made."""
_BYTE: Final = re.compile(r"\(byte (\d+)\)$")
_NON_FINITE: Final = re.compile(rb"(NaN|Infinity)\b")
_M = TypeVar("_M", bound=BaseModel)


def media_type(request: Request) -> str:
    """Return the media type of a request's body, without its parameters."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def read_batch(request: Request) -> tuple[bytes, bool]:
    """Return the inflated body of a batch, and whether it is lines; see `read`."""
    data = await read(request, limit=MAX_BATCH_BYTES, types=JSON_TYPES | NDJSON_TYPES)
    return data, media_type(request) in NDJSON_TYPES


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
        for broken gzip, or gzip of more than `MAX_GZIP_MEMBERS`.
    """
    media = media_type(request)
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
    if encoding != "gzip":
        return bytes(raw)
    return await workers.READING.run(_inflate, bytes(raw), limit)


def _inflate(data: bytes, limit: int) -> bytes:
    """Return what gzip holds; takes time in proportion to ``data`` and ``limit``."""
    view, inflated, start, members = memoryview(data), bytearray(), 0, 0
    while start < len(data):
        members += 1
        if members > MAX_GZIP_MEMBERS:
            raise ProblemError(
                "malformed",
                f"the gzip body has over {MAX_GZIP_MEMBERS} members: compress it as one",
            )
        stream = zlib.decompressobj(wbits=31)
        while not stream.eof:
            piece = view[start : start + _PIECE]
            if not piece:
                raise ProblemError("malformed", "the gzip body is cut short")
            try:
                inflated += stream.decompress(piece, limit + 1 - len(inflated))
            except zlib.error:
                raise ProblemError("malformed", "the body is not valid gzip") from None
            if len(inflated) > limit:
                raise _too_large(limit)
            start += len(piece) - len(stream.unused_data)  # a copy, of less than a piece
    return bytes(inflated)


def _too_large(limit: int) -> ProblemError:
    return ProblemError("too-large", f"the body is over {limit:,} bytes")


def parse(data: bytes) -> Any:
    """Return a JSON document.

    Raises
    ------
    ProblemError
        400 if it is not JSON or nested too deeply, 422 if it holds NaN or Infinity.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _unparsable(data, f"line {error.lineno}, column {error.colno}") from None


async def document(request: Request, *, limit: int) -> Any:
    """Return the JSON document of a request; see `read` and `parse`."""
    data = await read(request, limit=limit)
    return parse(data) if len(data) <= SMALL_BYTES else await workers.READING.run(parse, data)


async def model(request: Request, schema: type[_M], *, limit: int) -> _M:
    """Return the JSON document of a request as an object of ``schema``.

    Raises
    ------
    ProblemError
        See `read` and `parse`; 422 naming what is wrong, at most `MAX_ERRORS` places.
    """
    data = await read(request, limit=limit)
    if len(data) <= SMALL_BYTES:
        return _validate(data, schema)
    return await workers.READING.run(_validate, data, schema)


def _validate(data: bytes, schema: type[_M]) -> _M:
    try:
        return schema.model_validate(parse(data))
    except ValidationError as error:
        found = [{**e, "pointer": f"/body{e['pointer']}"} for e in problems(error)[:MAX_ERRORS]]
        where = ", ".join(each["pointer"] for each in found[:5])
        raise ProblemError("invalid", f"invalid: {where}", errors=found) from None


def invalid(error: ValidationError) -> ProblemError:
    """Return the problem of a document that says what is wrong, and where, in it."""
    found = problems(error)[:MAX_ERRORS]
    return ProblemError("invalid", found[0]["detail"], errors=found)


def _unparsable(data: bytes, where: str) -> ProblemError:
    if has_non_finite(data):
        return ProblemError(
            "invalid",
            "NaN and Infinity are no JSON numbers",
            errors=[{"pointer": "", "detail": "NaN and Infinity are not accepted"}],
        )
    return ProblemError("malformed", f"the body is not JSON: {where}")


def has_non_finite(data: bytes) -> bool:
    """Say whether what makes ``data`` no JSON is, first of all, NaN or Infinity.

    Looks for the place and makes nothing: of millions of values, that would hold all requests up.

    Examples
    --------
    >>> has_non_finite(b'{"value": NaN}'), has_non_finite(b'{"value": "NaN"')
    (True, False)
    """
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        at = _BYTE.search(str(error))
        return at is not None and _NON_FINITE.match(data, int(at[1])) is not None
    except RecursionError:
        return False
    return False


def split(data: bytes, *, lines: bool) -> list[bytes]:
    """Return the single documents of a batch: the array's elements or the lines, unparsed.

    Raises
    ------
    ProblemError
        400 if an array body is no JSON array, 413 beyond `MAX_BATCH_EVENTS`, 422 if empty.
    """
    if lines:
        written = (line.strip() for line in io.BytesIO(data))  # not all at once: of 5 MB of lines
        documents = list(islice(filter(None, written), MAX_BATCH_EVENTS + 1))
    else:
        try:
            found = msgspec.structs.astuple(msgspec.json.decode(data, type=_ARRAY))
            documents = [bytes(raw) for raw in found if raw is not _NOTHING]
        except msgspec.ValidationError:
            raise ProblemError(
                "invalid", "a batch is a JSON array of events",
                errors=[{"pointer": "", "detail": "expected an array"}],
            ) from None  # fmt: skip
        except RecursionError:
            raise ProblemError("malformed", "the body is nested too deeply") from None
        except msgspec.DecodeError as error:
            raise _unparsable(data, str(error).removeprefix("JSON is malformed: ")) from None
    if len(documents) > MAX_BATCH_EVENTS:
        raise ProblemError("too-large", f"over {MAX_BATCH_EVENTS:,} events in one batch: split it")
    if not documents:
        raise ProblemError("invalid", "the batch is empty: send at least one event")
    return documents
