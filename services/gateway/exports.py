"""Routes of exports: all that is kept of a user, and the schema of it."""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from threading import BoundedSemaphore
from typing import Final

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from feature_repo.errors import BusyError
from services.context import users
from services.context.answers import answer, context_of
from services.context.context import Context
from services.context.users import After, UserId
from services.export.document import ExportSubject, write_export
from services.export.pool import MOST_AT_ONCE
from services.export.same_user import SameUser
from services.export.schemas import EXPORT_SCHEMA, EXPORTED, SCHEMA_PATH, make_schema
from services.gateway.privacy import standing_of
from services.gateway.profiles import current
from services.http import scopes
from services.http.problems import unknown_user
from services.runtime import workers

router = scopes.router("admin", "privacy")
_AT_ONCE: Final = BoundedSemaphore(MOST_AT_ONCE)


@router.get("/v1/users/{user_id}/export", responses=EXPORTED)
async def get_export(request: Request, user_id: UserId, after: After = None) -> Response:
    """Return everything that is kept of a user, written while it is read.

    ``complete`` is the last member: a text that ends before it was broken off.
    """
    context, begun_ms = context_of(request), time.time_ns() // 1_000_000
    pseudonym, row = await users.find(context, user_id, after)
    profile = None if row is None else await current(context, pseudonym, user_id)
    if row is None or profile is None:
        raise unknown_user()
    same = SameUser(context, pseudonym, row, begun_ms)
    subject = ExportSubject(user_id, same, profile, standing_of(context, row))
    pieces = _in_turn(context, subject)
    first = await anext(pieces)  # what goes wrong until then is answered as a problem

    async def go_on() -> AsyncIterator[bytes]:
        async with aclosing(pieces):
            yield first
            async for piece in pieces:
                yield piece

    return StreamingResponse(go_on(), media_type="application/json")


async def _in_turn(context: Context, subject: ExportSubject) -> AsyncGenerator[bytes, None]:
    if not _AT_ONCE.acquire(blocking=False):
        raise BusyError(f"{MOST_AT_ONCE} exports are being written already: repeat it in a moment")
    try:
        now_ms = context.clock.now_ms(subject.row.time_ms)
        async for piece in write_export(context, subject, now_ms):
            yield piece
    finally:
        _AT_ONCE.release()


@router.get(SCHEMA_PATH, responses=EXPORT_SCHEMA, dependencies=[scopes.needs("open")])
async def get_export_schema() -> Response:
    """Return the JSON Schema (2020-12) of an export; it needs no key, as it tells of nobody."""
    return answer(await workers.READING.run(make_schema))
