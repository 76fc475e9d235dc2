"""Routes of audiences' definitions; what is asked of them is `questions`'."""

from typing import cast

from fastapi import Request
from starlette.responses import Response

from feature_repo.audiences import language
from feature_repo.audiences.plan import plan
from feature_repo.audiences.rules import Definition
from feature_repo.audiences.traits import TRAITS
from feature_repo.events.schema import iso
from services.audiences import schemas as said
from services.audiences.coarse import is_coarse, refuse_named_people
from services.audiences.definitions import Audience, Definitions
from services.audiences.index import AudienceIndex
from services.audiences.requests import Name, all_known, find_definition, read_named
from services.context.answers import answer, context_of
from services.context.context import Context
from services.http import scopes
from services.runtime import workers

router = scopes.router("analyst", "audiences", "/v1/audiences")


@router.get("", responses=said.LIST)
async def list_audiences(request: Request) -> Response:
    """Return all audiences, the shop's own and the ready ones, without their rules."""
    context = context_of(request)
    await context.of(AudienceIndex).present()  # from it come the categories of ready audiences
    stored, known = await all_known(context)
    return await workers.READING.run(_list_response, stored, known)


@router.post("", status_code=201, responses=said.CREATED, openapi_extra=said.body(named=True))
async def post_audience(request: Request) -> Response:
    """Create an audience whose ``name`` is in the body: 201, or 409 if the name is taken."""
    name, definition = await read_named(request, language.read)
    await _check_people(request, definition)
    return await _put(context_of(request), name, definition, only_new=True)


@router.get("/schema", responses=said.SCHEMA)
async def get_schema() -> Response:
    """Return the JSON Schema of a definition."""
    return answer(await workers.READING.run(language.schema))


@router.get("/traits", responses=said.TRAITS)
async def get_traits() -> Response:
    """Return the traits that rules may name, each with its kind, and whether it is real-time."""
    traits: list[said.AudienceTrait] = [
        {"name": t.name, "kind": t.kind, "meaning": t.meaning, "values": list(t.values),
         "realtime": t.view is None}
        for t in TRAITS.values()
    ]  # fmt: skip
    return answer({"traits": traits})


@router.put("/{name}", responses=said.PUT, openapi_extra=said.body())
async def put_audience(request: Request, name: Name) -> Response:
    """Create an audience (201) or replace it (200)."""
    _, definition = await read_named(request, language.read, name)
    await _check_people(request, definition)
    return await _put(context_of(request), name, definition)


@router.get("/{name}", responses=said.SHOWN)
async def get_audience(request: Request, name: Name) -> Response:
    """Return an audience with its rule, and how it is kept up."""
    stored, known = await all_known(context_of(request))
    if is_coarse(request.state.caller):
        refuse_named_people(find_definition(name, known), known)
    found = await workers.READING.run(_to_response, name, known, stored.get(name))
    return answer(found)


@router.delete("/{name}", status_code=204, dependencies=[scopes.needs("admin")])
async def delete_audience(request: Request, name: Name) -> Response:
    """Remove an audience; 409 while another one names it."""
    context = context_of(request)
    await context.await_bounded(context.of(Definitions).delete(name))
    return Response(status_code=204)


async def _check_people(request: Request, definition: Definition) -> None:
    if is_coarse(request.state.caller):
        _, known = await all_known(context_of(request))
        refuse_named_people(definition, known)


async def _put(
    context: Context, name: str, definition: Definition, *, only_new: bool = False
) -> Response:
    stored, new = await context.await_bounded(
        context.of(Definitions).put(
            name, definition, now_ms=context.clock.now_ms(), only_new=only_new
        )
    )
    _, known = await all_known(context)
    headers = {"location": f"/v1/audiences/{name}"} if new else None
    known = {**known, name: stored.definition}
    return answer(
        await workers.READING.run(_to_response, name, known, stored), 201 if new else 200, headers
    )


def _list_response(stored: dict[str, Audience], known: dict[str, Definition]) -> Response:
    own = [_head(each.name, each.definition, known, each) for each in stored.values()]
    given = [_head(n, each, known, None) for n, each in known.items() if n not in stored]
    return answer({"audiences": own + given})


def _head(
    name: str, definition: Definition, known: dict[str, Definition], stored: Audience | None
) -> said.AudienceHead:
    return {
        "name": name,
        "title": definition.title,
        "ready": stored is None,
        "mode": plan(definition, known)["mode"],
        "consent": definition.consent,
        "contactable": bool(definition.consent),
        "created_at": None if stored is None else iso(stored.created_ms),
        "updated_at": None if stored is None else iso(stored.updated_ms),
    }


def _to_response(
    name: str, known: dict[str, Definition], stored: Audience | None
) -> said.AudienceDetail:
    definition = find_definition(name, known)
    head, document = _head(name, definition, known, stored), language.to_document(definition)
    shown = {**head, **document, "plan": plan(definition, known)}
    return cast("said.AudienceDetail", shown)
