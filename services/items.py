"""Routes of the catalogue: single items, batches, and what is similar."""

from typing import Annotated, Any

from fastapi import Path, Query, Request
from pydantic import ValidationError
from starlette.responses import Response

from feature_repo.catalogue import Item
from feature_repo.events import MAX_BATCH_BYTES, MAX_EVENT_BYTES, iso, problems
from services.answer_schemas import ITEM, ITEM_BATCH, ITEM_PUT, SIMILAR
from services.answers import answer, gateway
from services.http import body, scopes
from services.http.openapi import ITEM_EXAMPLE, batch_of, body_of
from services.http.problems import ProblemError

router = scopes.router("server", "items", "/v1/items")

ItemId = Annotated[str, Path(min_length=1, max_length=128)]


@router.put("/{item_id}", responses=ITEM_PUT, openapi_extra=body_of(Item, ITEM_EXAMPLE))
async def put_item(request: Request, item_id: ItemId) -> Response:
    """Create an item (201) or replace it (200)."""
    state = gateway(request)
    given = body.parse(await body.read(request, limit=MAX_EVENT_BYTES))
    if not isinstance(given, dict):
        raise ProblemError("invalid", "an item is a JSON object")
    if given.setdefault("item_id", item_id) != item_id:
        detail = "item_id in the body differs from the path's"
        raise ProblemError("invalid", detail, errors=[{"pointer": "/item_id", "detail": detail}])
    try:
        item = Item.model_validate(given)
    except ValidationError as error:
        found = problems(error)
        raise ProblemError("invalid", found[0]["detail"], errors=found) from None
    known = await state.bounded(state.catalogue.get(item_id))
    await state.bounded(state.catalogue.put([item], state.clock.now_ms()))
    return answer(_shown(item), 201 if known is None else 200)


@router.get("/{item_id}", responses=ITEM)
async def get_item(request: Request, item_id: ItemId) -> Response:
    """Return an item."""
    state = gateway(request)
    item = await state.bounded(state.catalogue.get(item_id))
    if item is None:
        raise _unknown()
    return answer(_shown(item))


@router.delete("/{item_id}", status_code=204, dependencies=[scopes.needs("admin")])
async def delete_item(request: Request, item_id: ItemId) -> Response:
    """Remove an item from the catalogue; events that name it stay."""
    state = gateway(request)
    if not await state.bounded(state.catalogue.delete(item_id)):
        raise _unknown()
    return Response(status_code=204)


@router.post("/batch", responses=ITEM_BATCH, openapi_extra=batch_of(Item, ITEM_EXAMPLE))
async def post_items(request: Request) -> Response:
    """Create or replace up to 1,000 items, each by itself: 200 all, 207 some, 422 none."""
    state = gateway(request)
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    data = await body.read(
        request, limit=MAX_BATCH_BYTES, types=body.JSON_TYPES | body.NDJSON_TYPES
    )
    documents = body.split(data, lines=media in body.NDJSON_TYPES)
    taken, errors = list[Item](), list[dict[str, Any]]()
    for index, document in enumerate(documents):
        try:
            taken.append(Item.model_validate_json(document))
        except ValidationError as error:
            errors.append({"index": index, "type": "/problems/invalid", **problems(error)[0]})
    if taken:
        await state.bounded(state.catalogue.put(taken, state.clock.now_ms()), 5.0)
    reply = {
        "received": len(documents),
        "accepted": len(taken),
        "rejected": len(errors),
        "errors": errors,
    }
    return answer(reply, 200 if not errors else 207 if taken else 422)


@router.get("/{item_id}/similar", responses=SIMILAR)
async def get_similar(
    request: Request, item_id: ItemId, n: Annotated[int, Query(ge=1, le=500)] = 10
) -> Response:
    """Return the items most like this one: by the model's embeddings, else by its shelf."""
    state = gateway(request)
    method, found = state.recommender.similar(item_id, n, state.clock.now_ms())
    if not found and item_id not in state.catalogue.entries:
        raise _unknown()
    return answer(
        {
            "item_id": item_id,
            "method": method,
            "model": state.recommender.version if method != "category" else None,
            "items": [
                {"item_id": other, "score": round(score, 6), "rank": rank}
                for rank, (other, score) in enumerate(found, start=1)
            ],
        }
    )


def _shown(item: Item) -> dict[str, Any]:
    shown = item.model_dump(exclude_none=True)
    if item.available_from is not None:
        shown["available_from"] = iso(item.available_from)
    return shown


def _unknown() -> ProblemError:
    return ProblemError("not-found", "the catalogue has no item of this id")
