"""Routes that ask about audiences: how many, who, as a file, what is shared, who comes and goes."""

import io
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final, TypeVar

from fastapi import Query, Request
from starlette.responses import Response, StreamingResponse

from feature_repo.audiences import language
from feature_repo.audiences.rules import Definition
from feature_repo.events.pseudonyms import PSEUDONYM_LENGTH
from services.audiences import coarse
from services.audiences import schemas as said
from services.audiences.answers import MAX_PAGE, AudienceAnswers
from services.audiences.definitions import Definitions, check
from services.audiences.index import AudienceIndex
from services.audiences.requests import (
    AsOf,
    Name,
    all_known,
    find_definition,
    moment_of,
    read_document,
)
from services.audiences.stream import STREAM_ID, newest, stream
from services.context.answers import answer, context_of
from services.context.context import Context
from services.http import scopes
from services.http.problems import ProblemError
from services.runtime import workers
from services.runtime.spreadsheet import write_rows

router = scopes.router("analyst", "audiences", "/v1/audiences")

_PSEUDONYM: Final = r"^\{p[0-9]{3}\}[a-z2-7]{26}$"
_T = TypeVar("_T")


@router.post("/preview", responses=said.PREVIEW, openapi_extra=said.body())
async def preview(request: Request, as_of: AsOf = None) -> Response:
    """Return how many members a definition would have, storing nothing."""
    context = context_of(request)

    def read(document: dict[str, Any]) -> Definition:
        document.pop("name", None)
        return language.pseudonymous(language.read(document), context.pseudonyms)

    definition = await read_document(request, read)
    stored = await context.await_bounded(context.of(Definitions).all())
    known = {name: each.definition for name, each in stored.items()}
    await workers.READING.run(check, "preview", definition, known)
    return await _preview(request, as_of, definition)


@router.get("/overlap", responses=said.OVERLAP)
async def get_overlap(
    request: Request,
    names: Annotated[str, Query(max_length=1000, description="2 to 10 names, comma-separated")],
    as_of: AsOf = None,
) -> Response:
    """Return the sizes of audiences and of what every two of them share."""
    chosen = [name.strip() for name in names.split(",")]
    context, caller = context_of(request), request.state.caller
    if not coarse.is_coarse(caller):
        return answer(await _ask(context, as_of, lambda answers: answers.overlap(chosen)))
    answers, known = await _coarse_answers(context, as_of)
    for name in chosen:
        coarse.refuse_named_people(answers.find(name), known)
    return answer(await coarse.overlap(context, caller, answers, chosen))


@router.get(
    "/changes",
    responses=said.CHANGES,
    response_class=StreamingResponse,
    dependencies=[scopes.needs("server")],
)
async def get_changes(
    request: Request,
    names: Annotated[
        str | None, Query(max_length=1000, description="Only these, comma-separated")
    ] = None,
    after: Annotated[
        str | None, Query(max_length=41, description="Go on after this event; else from now on")
    ] = None,
) -> Response:
    """Stream who enters and leaves real-time audiences, as server-sent events.

    A stream lasts 20 seconds; clients such as EventSource then connect again by themselves and
    name the last event they saw.
    """
    context = context_of(request)
    start: str | None = request.headers.get("last-event-id") or after
    if start is not None and not STREAM_ID.fullmatch(start):
        raise ProblemError(
            "invalid", "after is not the id of an event",
            errors=[{"pointer": "/query/after", "detail": "pass the id of the last event seen"}],
        )  # fmt: skip
    wanted = None if names is None else frozenset(name.strip() for name in names.split(","))
    if start is None:
        start = await context.await_bounded(newest(context.store))
    return StreamingResponse(
        stream(context.store, start, wanted, request.is_disconnected),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


@router.get("/{name}/preview", responses=said.PREVIEW)
async def preview_stored(request: Request, name: Name, as_of: AsOf = None) -> Response:
    """Return how many members an audience has."""
    _, known = await all_known(context_of(request))
    return await _preview(request, as_of, find_definition(name, known))


@router.get("/{name}/members", responses=said.MEMBERS, dependencies=[scopes.needs("server")])
async def get_members(
    request: Request,
    name: Name,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 1000,
    cursor: Annotated[str | None, Query(pattern=_PSEUDONYM, max_length=PSEUDONYM_LENGTH)] = None,
    as_of: AsOf = None,
) -> Response:
    """Return a page of an audience's members: pseudonyms, sorted."""
    context = context_of(request)
    page = await _ask(context, as_of, lambda answers: answers.page(name, cursor or "", limit + 1))
    more = len(page) > limit
    members: said.Members = {
        "members": page[:limit], "next_cursor": page[limit - 1] if more else None
    }  # fmt: skip
    return answer(members)


@router.get(
    "/{name}/export",
    responses=said.EXPORT,
    response_class=StreamingResponse,
    dependencies=[scopes.needs("admin")],
)
async def export(request: Request, name: Name, as_of: AsOf = None) -> Response:
    """Return all members of an audience as CSV, one column ``user``."""
    context = context_of(request)
    answers = await _answers(context, as_of)
    pages = answers.everyone(name)
    none = list[str]()
    first = await workers.ASKING.run(next, pages, none)

    async def lines() -> AsyncIterator[bytes]:
        yield b"user\r\n"
        page = first
        while page:
            yield _csv(page)
            page = await workers.ASKING.run(next, pages, none)

    headers = {"content-disposition": f'attachment; filename="{name}.csv"'}
    return StreamingResponse(lines(), media_type="text/csv; charset=utf-8", headers=headers)


async def _preview(request: Request, as_of: str | None, definition: Definition) -> Response:
    context, caller = context_of(request), request.state.caller
    if not coarse.is_coarse(caller):
        return answer(await _ask(context, as_of, lambda answers: answers.preview(definition)))
    answers, known = await _coarse_answers(context, as_of)
    coarse.refuse_named_people(definition, known)
    return answer(await coarse.preview(context, caller, answers, definition))


async def _coarse_answers(
    context: Context, as_of: str | None
) -> tuple[AudienceAnswers, dict[str, Definition]]:
    index = await context.of(AudienceIndex).present()
    _, known = await all_known(context)
    moment_ms = coarse.midnight(moment_of(context, as_of), context.clock.now_ms())
    return AudienceAnswers(index, known, moment_ms), known


def _csv(members: list[str]) -> bytes:
    text = io.StringIO()
    write_rows(text, ([member] for member in members))
    return text.getvalue().encode()


async def _answers(context: Context, as_of: str | None) -> AudienceAnswers:
    index = await context.of(AudienceIndex).present()
    _, known = await all_known(context)
    return AudienceAnswers(index, known, moment_of(context, as_of))


async def _ask(context: Context, as_of: str | None, ask: Callable[[AudienceAnswers], _T]) -> _T:
    answers = await _answers(context, as_of)
    return await workers.ASKING.run(ask, answers)
