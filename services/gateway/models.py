"""Routes of models: which there are, their cards, and changes of their aliases."""

import asyncio
from pathlib import Path as FilePath
from typing import Annotated, Final, Literal

from fastapi import Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import PlainTextResponse, Response

from services.context.answers import answer, context_of
from services.context.context import Context
from services.erasure.ledger import list_done
from services.http import body, scopes
from services.http.openapi import body_of
from services.http.problems import ProblemError
from services.models import cards, folder, registry, row_counts
from services.models import schemas as said
from services.models.cards import ErasureDone
from services.models.promotion import Promotion
from services.models.registry import Aliases, AliasName
from services.recommend.serving import ServedModels

router = scopes.router("admin", "models", "/v1/models")

MAX_BYTES: Final = 4_096
_MARKDOWN: Final = "text/markdown; charset=utf-8"
ModelName = Annotated[
    str, Path(pattern=f"^{folder.NAME}$", description="Name of a model: that of its directory")
]


class PromoteRequest(BaseModel):
    """What a model is to be."""

    model_config = ConfigDict(extra="forbid")

    alias: Annotated[AliasName, Field(description="What it is to be")] = "production"
    force: Annotated[
        bool,
        Field(description="In spite of what the gate found; that it does not fit still counts"),
    ] = False


@router.get("", responses=said.LIST, dependencies=[scopes.needs("server")])
async def get_models(request: Request) -> Response:
    """Return the models, their aliases, and which one is in use here."""
    context = context_of(request)
    aliases = await context.await_bounded(registry.read_async(context.store))
    counts = await context.await_bounded(row_counts.read_async(context.store))
    return answer(await asyncio.to_thread(_list, context, aliases, row_counts.sum_up(counts)))


@router.get("/{name}", responses=said.CARD, dependencies=[scopes.needs("server")])
async def get_model(
    request: Request,
    name: ModelName,
    format: Annotated[  # noqa: A002 - the name that exports have
        Literal["json", "markdown"], Query(description="Form of the card")
    ] = "json",
) -> Response:
    """Return a model's card."""
    context = context_of(request)
    aliases = await context.await_bounded(registry.read_async(context.store))
    card = await asyncio.to_thread(_card, context.settings.home, name, aliases)
    if card is None:
        raise ProblemError("not-found", "there is no model of this name")
    if format == "json":
        return answer(card)
    return PlainTextResponse(cards.to_markdown(card), media_type=_MARKDOWN)


@router.post("/rollback", responses=said.MOVED)
async def post_rollback(
    request: Request,
    production: Annotated[
        str | None,
        Query(alias="from", max_length=128, description="Only if this is production; else 409"),
    ] = None,
) -> Response:
    """Make the model production again that was it before: within five seconds everywhere."""
    before, after = await _promotion(request).roll_back(production)
    request.state.target = after.names()["production"]  # for the audit
    return _to_answer(before, after)


@router.post(
    "/{name}/promote", responses=said.MOVED,
    openapi_extra=body_of(PromoteRequest, {"alias": "production"}),
)  # fmt: skip
async def post_promotion(request: Request, name: ModelName) -> Response:
    """Give a model an alias, if its gate lets it: within five seconds everywhere."""
    given = await body.model(request, PromoteRequest, limit=MAX_BYTES)
    return _to_answer(*await _promotion(request).promote(name, given.alias, is_forced=given.force))


@router.delete("/{name}", responses=said.MOVED)
async def delete_model(
    request: Request,
    name: ModelName,
    force: Annotated[bool, Query(description="Though rows follow it, by the last count")] = False,
) -> Response:
    """Remove a model that has no alias, and that no rows follow."""
    return _to_answer(*await _promotion(request).remove(name, is_forced=force))


def _promotion(request: Request) -> Promotion:
    context = context_of(request)
    caller = request.scope["state"]["caller"]
    return Promotion(context.store, context.settings.home, caller.id, context.settings.model)


def _to_answer(before: Aliases, after: Aliases) -> Response:
    names = after.names()
    moved: said.ModelMoved = {
        "production": names["production"],
        "previous": before.names()["production"],
        "shadow": names["shadow"],
        "candidate": names["candidate"],
    }
    return answer(moved)


def _list(context: Context, aliases: Aliases, encoding: said.EncodingProgress) -> said.ModelList:
    models = context.of(ServedModels)
    found = folder.list_models(context.settings.home)
    pinned = None if context.settings.model is None else folder.read(context.settings.model)
    if pinned is not None and pinned.path not in {each.path for each in found}:
        found.append(pinned)
    listed: list[said.ListedModel] = [
        {
            "name": each.name,
            "version": each.version,
            "aliases": aliases.of(each.name),
            "in_use": models.newest.version == each.version,
            "refused": models.refusals.get(each.version),
            "recipe": each.manifest.get("recipe"),
            "created_at": each.manifest.get("created_at"),
        }
        for each in found
    ]
    names = aliases.names()
    return {
        "models": listed,
        "production": names["production"],
        "shadow": names["shadow"],
        "candidate": names["candidate"],
        "previous": None if aliases.previous is None else aliases.previous.name,
        "in_use": models.newest.version or None,
        "encoding": encoding,
    }


def _card(home: FilePath, name: str, aliases: Aliases) -> said.ModelCard | None:
    model = folder.find(home, name)
    if model is None:
        return None
    return cards.make_card(home, model, aliases, [ErasureDone(*each) for each in list_done(home)])
