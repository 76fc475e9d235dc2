"""Routes of audiences: their definitions, how many they describe, who, and as a file."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response, StreamingResponse

from feature_repo.audiences import language
from feature_repo.audiences.plan import plan
from feature_repo.audiences.ready import ready
from feature_repo.audiences.rules import Definition
from feature_repo.audiences.traits import TRAITS
from feature_repo.audiences.values import moment_ms
from feature_repo.entity import ENTITY_ID_LENGTH
from feature_repo.errors import InvalidRuleError
from feature_repo.events import MAX_BATCH_BYTES, iso
from services import body
from services.answers import answer, gateway
from services.audience_answers import MAX_PAGE, Answers
from services.audience_definitions import Audience, check
from services.audience_stream import STREAM_ID, newest, stream
from services.problems import ProblemError
from services.state import GatewayState

router = APIRouter(prefix="/v1/audiences", tags=["audiences"])

YAML_TYPES: Final = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})

Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", max_length=64)]
AsOf = Annotated[
    str | None,
    Query(max_length=40, description="A day or an RFC 3339 time: members as they were; else now"),
]
_T = TypeVar("_T")
_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "/v1/audiences/schema"}},
            "application/yaml": {"schema": {"type": "string"}},
        },
    }
}


@router.get("")
async def list_audiences(request: Request) -> Response:
    """Return all audiences, the shop's own and the ready ones, without their rules."""
    state = gateway(request)
    await state.audience_index.present()  # from it come the categories of ready audiences
    stored, known = await _known(state)
    own = [_head(each.name, each.definition, known, each) for each in stored.values()]
    given = [_head(n, each, known, None) for n, each in known.items() if n not in stored]
    return answer({"audiences": own + given})


@router.post("", openapi_extra=_BODY)
async def post_audience(request: Request) -> Response:
    """Create an audience whose ``name`` is in the body: 201, or 409 if the name is taken."""
    document = await _document(request)
    name = document.pop("name", None)
    if not isinstance(name, str):
        raise InvalidRuleError([{"pointer": "/name", "detail": "this is required"}])
    language.check_name(name)
    return await _put(gateway(request), name, language.read(document), only_new=True)


@router.get("/schema")
async def get_schema() -> Response:
    """Return the JSON Schema of a definition."""
    return answer(language.schema())


@router.get("/traits")
async def get_traits() -> Response:
    """Return the traits that rules may name, each with its kind, and whether it is real-time."""
    return answer(
        {
            "traits": [
                {"name": t.name, "kind": t.kind, "meaning": t.meaning, "values": list(t.values),
                 "realtime": t.view is None}
                for t in TRAITS.values()
            ]
        }
    )  # fmt: skip


@router.post("/preview", openapi_extra=_BODY)
async def preview(request: Request, as_of: AsOf = None) -> Response:
    """Return how many members a definition would have, storing nothing."""
    state = gateway(request)
    document = await _document(request)
    document.pop("name", None)
    definition = language.pseudonymous(language.read(document), state.tenant)
    stored = await state.bounded(state.audiences.all())
    check("preview", definition, {name: each.definition for name, each in stored.items()})
    return answer(await _asked(state, as_of, lambda answers: answers.preview(definition)))


@router.get("/overlap")
async def get_overlap(
    request: Request,
    names: Annotated[str, Query(max_length=1000, description="2 to 10 names, comma-separated")],
    as_of: AsOf = None,
) -> Response:
    """Return the sizes of audiences and of what every two of them share."""
    chosen = [name.strip() for name in names.split(",")]
    return answer(await _asked(gateway(request), as_of, lambda answers: answers.overlap(chosen)))


@router.get("/changes")
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
    state = gateway(request)
    start = request.headers.get("last-event-id") or after
    if start is not None and not STREAM_ID.fullmatch(start):
        raise ProblemError(
            "invalid", "after is not the id of an event",
            errors=[{"pointer": "/query/after", "detail": "pass the id of the last event seen"}],
        )  # fmt: skip
    wanted = None if names is None else frozenset(name.strip() for name in names.split(","))
    begin = start or await state.bounded(newest(state.store))
    return StreamingResponse(
        stream(state.store, begin, wanted, request.is_disconnected),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


@router.put("/{name}", openapi_extra=_BODY)
async def put_audience(request: Request, name: Name) -> Response:
    """Create an audience (201) or replace it (200)."""
    document = await _document(request)
    if document.pop("name", name) != name:
        detail = "name in the body differs from the path's"
        raise InvalidRuleError([{"pointer": "/name", "detail": detail}])
    return await _put(gateway(request), name, language.read(document))


@router.get("/{name}")
async def get_audience(request: Request, name: Name) -> Response:
    """Return an audience with its rule, and how it is kept up."""
    stored, known = await _known(gateway(request))
    return answer(_shown(name, known, stored.get(name)))


@router.delete("/{name}", status_code=204)
async def delete_audience(request: Request, name: Name) -> Response:
    """Remove an audience; 409 while another one names it."""
    state = gateway(request)
    await state.bounded(state.audiences.delete(name))
    return Response(status_code=204)


@router.get("/{name}/preview")
async def preview_stored(request: Request, name: Name, as_of: AsOf = None) -> Response:
    """Return how many members an audience has."""
    state = gateway(request)
    return answer(await _asked(state, as_of, lambda answers: answers.preview_of(name)))


@router.get("/{name}/members")
async def get_members(
    request: Request,
    name: Name,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 1000,
    cursor: Annotated[str | None, Query(max_length=ENTITY_ID_LENGTH)] = None,
    as_of: AsOf = None,
) -> Response:
    """Return a page of an audience's members: entity ids, sorted."""
    state = gateway(request)
    page = await _asked(state, as_of, lambda answers: answers.page(name, cursor or "", limit + 1))
    more = len(page) > limit
    return answer({"members": page[:limit], "next_cursor": page[limit - 1] if more else None})


@router.get("/{name}/export")
async def export(request: Request, name: Name, as_of: AsOf = None) -> Response:
    """Return all members of an audience as CSV, one column ``user``."""
    state = gateway(request)
    answers = await _answers(state, as_of)
    pages = answers.everyone(name)
    none = list[str]()
    first = await asyncio.to_thread(next, pages, none)

    async def lines() -> AsyncIterator[bytes]:
        yield b"user\r\n"
        page = first
        while page:
            yield _csv(page)
            page = await asyncio.to_thread(next, pages, none)

    headers = {"content-disposition": f'attachment; filename="{name}.csv"'}
    return StreamingResponse(lines(), media_type="text/csv; charset=utf-8", headers=headers)


def _csv(members: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([member] for member in members)
    return text.getvalue().encode()


async def _document(request: Request) -> dict[str, Any]:
    data = await body.read(request, limit=MAX_BATCH_BYTES, types=body.JSON_TYPES | YAML_TYPES)
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    document = language.parse_yaml(data) if media in YAML_TYPES else body.parse(data)
    if not isinstance(document, dict):
        raise InvalidRuleError([{"pointer": "", "detail": "expected an object"}])
    return document


async def _put(
    state: GatewayState, name: str, definition: Definition, *, only_new: bool = False
) -> Response:
    stored, new = await state.bounded(
        state.audiences.put(name, definition, now_ms=state.clock.now_ms(), only_new=only_new)
    )
    _, known = await _known(state)
    headers = {"location": f"/v1/audiences/{name}"} if new else None
    return answer(_shown(name, {**known, name: stored.definition}, stored), 201 if new else 200,
                  headers)  # fmt: skip


async def _known(state: GatewayState) -> tuple[dict[str, Audience], dict[str, Definition]]:
    """Return what is stored, and every definition by name, the ready ones too."""
    stored = await state.bounded(state.audiences.all())
    own = {name: each.definition for name, each in stored.items()}
    return stored, own | ready(state.audience_index.categories)


async def _answers(state: GatewayState, as_of: str | None) -> Answers:
    index = await state.audience_index.present()
    _, known = await _known(state)
    return Answers(index, known, _moment(state, as_of))


async def _asked(state: GatewayState, as_of: str | None, ask: Callable[[Answers], _T]) -> _T:
    answers = await _answers(state, as_of)
    async with state.audience_index.turns:
        return await asyncio.to_thread(ask, answers)


def _moment(state: GatewayState, as_of: str | None) -> int:
    if as_of is None:
        return state.clock.now_ms()
    try:
        return moment_ms(as_of)
    except ValueError as error:
        raise ProblemError(
            "invalid", str(error), errors=[{"pointer": "/query/as_of", "detail": str(error)}]
        ) from None


def _named(name: str, known: dict[str, Definition]) -> Definition:
    if name not in known:
        raise ProblemError("not-found", f"no audience is named {name}")
    return known[name]


def _head(
    name: str, definition: Definition, known: dict[str, Definition], stored: Audience | None
) -> dict[str, Any]:
    kept_up = plan(definition, known)
    return {
        "name": name,
        "title": definition.title,
        "ready": stored is None,
        "mode": kept_up.mode,
        "consent": definition.consent,
        "contactable": bool(definition.consent),
        "created_at": None if stored is None else iso(stored.created_ms),
        "updated_at": None if stored is None else iso(stored.updated_ms),
    }


def _shown(name: str, known: dict[str, Definition], stored: Audience | None) -> dict[str, Any]:
    definition = _named(name, known)
    kept_up = plan(definition, known).as_dict()
    return {**_head(name, definition, known, stored), **language.shown(definition), "plan": kept_up}
