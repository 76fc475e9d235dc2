"""Routes of the catalogue: single items and batches."""

from functools import partial
from itertools import islice
from typing import Annotated, Any, Final, TypeVar, cast

from fastapi import Path, Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.responses import Response

from feature_repo.archive.catalogue import Item, Vector, merge_patch, unpack_vector
from feature_repo.errors import InvalidInputError
from feature_repo.events.fields import Id
from feature_repo.events.schema import MAX_EVENT_BYTES, iso, problems
from services.catalogue import vectors
from services.catalogue.catalogue import Catalogue, Change
from services.context.answers import answer, context_of
from services.context.context import Context
from services.http import body, scopes
from services.http.answer_schemas import (
    ITEM,
    ITEM_BATCH,
    ITEM_PUT,
    ItemRefused,
    ItemsTaken,
    ShownItem,
)
from services.http.openapi import ITEM_EXAMPLE, batch_of, body_of, patch_of
from services.http.problems import ProblemError, ProblemUri
from services.runtime import workers

router = scopes.router("server", "items", "/v1/items")

UNKNOWN: Final = "the catalogue has no item of this id"
_CHANGE: Final = {"item_id": "A", "price": 2.9, "in_stock": False, "brand": None}
_STEP: Final = 100


class _ChangeOfItem(BaseModel):
    """What is looked at first of a change in a batch; what it changes is looked at as a whole."""

    model_config = ConfigDict(extra="allow")

    item_id: Id
    vector: Vector | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields to change."""
        told = {"vector": self.vector} if "vector" in self.model_fields_set else {}
        return {**(self.model_extra or {}), **told}


ItemId = Annotated[str, Path(min_length=1, max_length=128)]


@router.put("/{item_id}", responses=ITEM_PUT, openapi_extra=body_of(Item, ITEM_EXAMPLE))
async def put_item(request: Request, item_id: ItemId) -> Response:
    """Create an item (201) or replace it (200)."""
    context = context_of(request)
    data = await body.read(request, limit=MAX_EVENT_BYTES)
    item = await workers.READING.run(_item, data, item_id)
    known = await context.await_bounded(context.of(Catalogue).get(item_id))
    try:
        await context.await_bounded(context.of(Catalogue).put([item], context.clock.now_ms()))
    except InvalidInputError as error:
        raise _refused_vector(error) from None
    return answer(_to_response(item), 201 if known is None else 200)


def _item(data: bytes, item_id: str) -> Item:
    given = body.parse(data)
    if not isinstance(given, dict):
        raise ProblemError("invalid", "an item is a JSON object")
    if given.setdefault("item_id", item_id) != item_id:
        raise _other_id()
    try:
        return Item.model_validate(given)
    except ValidationError as error:
        raise body.invalid(error) from None


@router.get("/{item_id}", responses=ITEM)
async def get_item(request: Request, item_id: ItemId) -> Response:
    """Return an item."""
    context = context_of(request)
    item = await context.await_bounded(context.of(Catalogue).get(item_id))
    if item is None:
        raise unknown_item()
    return answer(_to_response(item))


@router.patch("/{item_id}", responses=ITEM, openapi_extra=patch_of(_CHANGE))
async def patch_item(request: Request, item_id: ItemId) -> Response:
    """Change the named fields of an item; null takes one away (JSON merge patch)."""
    context = context_of(request)
    types = body.JSON_TYPES | {"application/merge-patch+json"}
    given = body.parse(await body.read(request, limit=MAX_EVENT_BYTES, types=types))
    if not isinstance(given, dict):
        raise ProblemError("invalid", "a change of an item is a JSON object")
    if given.get("item_id", item_id) != item_id:
        raise _other_id()
    # Of more fields than an item has, the first name the refusal as well as all would.
    given = dict(islice(given.items(), len(Item.model_fields) + 1))
    try:
        changes = [(item_id, partial(merge_patch, patch=given))]
        item = (await context.await_bounded(context.of(Catalogue).patch(changes)))[0]
    except ValidationError as error:
        raise body.invalid(error) from None
    except InvalidInputError as error:
        raise _refused_vector(error) from None
    if item is None:
        raise unknown_item()
    return answer(_to_response(item))


@router.patch("", responses=ITEM_BATCH, openapi_extra=patch_of(_CHANGE, batch=True))
async def patch_items(request: Request) -> Response:
    """Change the named fields of up to 1,000 items, each by itself: 200 all, 207 some, 422 none.

    An item that is named twice is changed twice, in order.
    """
    context = context_of(request)
    documents = await _documents(request)
    errors, given = await workers.READING.run(_changes, documents)
    given = await _check_lengths(context, given, errors)
    indices = list(given)
    changes: list[Change] = [
        (each.item_id, partial(_patch, errors, index, each.fields()))
        for index, each in given.items()
    ]
    made = list[Item | None]()
    for start in range(0, len(changes), _STEP):  # between which others get their turn
        some = changes[start : start + _STEP]
        made += await context.await_bounded(context.of(Catalogue).patch(some), 5.0)
    for index, item in zip(indices, made, strict=True):
        if item is None:
            errors[index] = _error(index, "/item_id", UNKNOWN, "/problems/not-found")
    workers.READING.free(made)
    return _to_batch_response(len(documents), [errors[index] for index in sorted(errors)])


def _changes(documents: list[bytes]) -> tuple[dict[int, ItemRefused], dict[int, _ChangeOfItem]]:
    errors, given = dict[int, ItemRefused](), dict[int, _ChangeOfItem]()
    for index, document in enumerate(documents):
        try:
            given[index] = _ChangeOfItem.model_validate_json(document)
        except ValidationError as error:
            errors[index] = _refusal(index, error)
    return errors, given


@router.delete("/{item_id}", status_code=204, dependencies=[scopes.needs("admin")])
async def delete_item(request: Request, item_id: ItemId) -> Response:
    """Remove an item from the catalogue; events that name it stay."""
    context = context_of(request)
    if not await context.await_bounded(context.of(Catalogue).delete(item_id)):
        raise unknown_item()
    return Response(status_code=204)


@router.post("/batch", responses=ITEM_BATCH, openapi_extra=batch_of(Item, ITEM_EXAMPLE))
async def post_items(request: Request) -> Response:
    """Create or replace up to 1,000 items, each by itself: 200 all, 207 some, 422 none."""
    context = context_of(request)
    documents = await _documents(request)
    found, errors = await workers.READING.run(_items, documents)
    taken = list((await _check_lengths(context, found, errors)).values())
    if taken:
        await context.await_bounded(context.of(Catalogue).put(taken, context.clock.now_ms()), 5.0)
        workers.READING.free(taken)
    return _to_batch_response(len(documents), [errors[index] for index in sorted(errors)])


def _items(documents: list[bytes]) -> tuple[dict[int, Item], dict[int, ItemRefused]]:
    found, errors = dict[int, Item](), dict[int, ItemRefused]()
    for index, document in enumerate(documents):
        try:
            found[index] = Item.model_validate_json(document)
        except ValidationError as error:
            errors[index] = _refusal(index, error)
    return found, errors


_Given = TypeVar("_Given", Item, _ChangeOfItem)


async def _check_lengths(
    context: Context, given: dict[int, _Given], errors: dict[int, ItemRefused]
) -> dict[int, _Given]:
    """Return what of a batch has no vector of another length; note the rest among ``errors``."""
    sizes = {index: len(each.vector) // 4 for index, each in given.items() if each.vector}
    if not sizes:
        return given
    length = await context.await_bounded(context.of(Catalogue).find_vector_length())
    expected = length or next(iter(sizes.values()))
    for index, size in sizes.items():
        if size != expected:
            errors[index] = _error(index, "/vector", vectors.other_length(size, expected))
    return {index: each for index, each in given.items() if index not in errors}


def _to_response(item: Item) -> ShownItem:
    shown = cast("ShownItem", item.model_dump(exclude_none=True))
    if item.available_from is not None:
        shown["available_from"] = iso(item.available_from)
    if item.vector is not None:
        shown["vector"] = unpack_vector(item.vector)
    return shown


def unknown_item() -> ProblemError:
    """Return the problem of an item that is not in the catalogue."""
    hint = "Check the id; PUT /v1/items/{item_id} and POST /v1/items/batch bring items in."
    return ProblemError("not-found", UNKNOWN, hint=hint)


def _other_id() -> ProblemError:
    detail = "item_id in the body differs from the path's"
    return ProblemError("invalid", detail, pointer="/item_id")


def _refused_vector(error: InvalidInputError) -> ProblemError:
    return ProblemError("invalid", str(error), pointer="/vector")


def _refusal(index: int, error: ValidationError) -> ItemRefused:
    first = problems(error)[0]
    return _error(index, first["pointer"], first["detail"])


def _error(
    index: int, pointer: str, detail: str, problem: ProblemUri = "/problems/invalid"
) -> ItemRefused:
    return {"index": index, "type": problem, "pointer": pointer, "detail": detail}


async def _documents(request: Request) -> list[bytes]:
    """Return the documents of a batch, as an array or as lines."""
    data, lines = await body.read_batch(request)
    return await workers.READING.run(body.split, data, lines=lines)


def _patch(errors: dict[int, ItemRefused], index: int, patch: dict[str, Any], item: Item) -> Item:
    """Return the changed item; the same, and why among ``errors``, where it would be none."""
    errors.pop(index, None)
    try:
        return merge_patch(item, patch)
    except ValidationError as error:
        errors[index] = _refusal(index, error)
        return item


def _to_batch_response(received: int, errors: list[ItemRefused]) -> Response:
    """Return what became of a batch."""
    accepted = received - len(errors)
    reply: ItemsTaken = {
        "received": received, "accepted": accepted, "rejected": len(errors), "errors": errors
    }  # fmt: skip
    return answer(reply, 200 if not errors else 207 if accepted else 422)
