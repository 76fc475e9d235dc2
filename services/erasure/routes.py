"""Routes by which people are erased, and the receipts of it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Annotated, Final, Literal

from fastapi import Path, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.responses import Response

from feature_repo.erasure.removal import Removal
from feature_repo.events import fields
from feature_repo.events.placeholder_ids import check_user_id
from feature_repo.events.schema import iso
from services.context.answers import answer, context_of
from services.context.users import UserId
from services.erasure import ledger
from services.erasure.ledger import StoredErasure
from services.erasure.requests import MOST_USERS, erase
from services.erasure.schemas import (
    BEGUN,
    ERASURES,
    RECEIPT,
    ErasedFrom,
    ErasureBegun,
    ErasureHead,
    ErasureList,
    ErasureReceipt,
)
from services.http import body, scopes
from services.http.openapi import body_of
from services.http.problems import ProblemError
from services.models import folder

router = scopes.router("admin", "privacy", "/v1")

MAX_BYTES: Final = 3_000_000
"""Of the list of who is to be erased."""


class ErasureRequest(BaseModel):
    """Who is to be erased."""

    model_config = ConfigDict(extra="forbid")

    user_ids: Annotated[list[fields.UserId], Field(min_length=1, max_length=MOST_USERS)]
    suppress: Annotated[
        bool, Field(description="Refuse their events for ever; else the ids may begin anew")
    ] = True


@router.delete("/users/{user_id}", status_code=202, responses=BEGUN)
async def delete_user(
    request: Request,
    user_id: Annotated[UserId, AfterValidator(check_user_id)],
    suppress: Annotated[
        bool, Query(description="Refuse their events for ever; else the id may begin anew")
    ] = True,
) -> Response:
    """Erase a user with all that is kept; 202 once it is durable and every read answers 410."""
    return _begun(await erase(context_of(request), [user_id], suppress=suppress))


@router.post(
    "/erasures", status_code=202, responses=BEGUN,
    openapi_extra=body_of(ErasureRequest, {"user_ids": ["123", "456"]}),
)  # fmt: skip
async def post_erasure(request: Request) -> Response:
    """Erase up to 5,000 users at once."""
    given = await body.model(request, ErasureRequest, limit=MAX_BYTES)
    return _begun(await erase(context_of(request), given.user_ids, suppress=given.suppress))


def _begun(erasure: StoredErasure) -> Response:
    begun: ErasureBegun = {"erasure_id": erasure.id, "status": "pending"}
    return answer(begun, 202)


@router.get("/erasures", responses=ERASURES)
async def get_erasures(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(pattern=f"^{ledger.ID.pattern}$", max_length=64)] = None,
) -> Response:
    """Return the erasures, the latest first."""
    home = context_of(request).settings.home
    return answer(await asyncio.to_thread(_list, home, limit, cursor))


def _list(home: FilePath, limit: int, cursor: str | None) -> ErasureList:
    names = [name for name in ledger.names(home) if cursor is None or name < cursor]
    found = (ledger.read(home, name) for name in names[:limit])
    more = len(names) > limit
    return {
        "erasures": [_head(one) for one in found if one is not None],
        "next_cursor": names[limit - 1] if more else None,
    }


@router.get("/erasures/{erasure_id}", responses=RECEIPT)
async def get_erasure(
    request: Request, erasure_id: Annotated[str, Path(max_length=64)]
) -> Response:
    """Return how far an erasure is, and what was found and removed where."""
    home = context_of(request).settings.home
    found = await asyncio.to_thread(ledger.read, home, erasure_id)
    if found is None:
        raise ProblemError("not-found", "no erasure has this id")
    return answer(await asyncio.to_thread(_receipt, home, found))


def _head(erasure: StoredErasure) -> ErasureHead:
    return {
        "erasure_id": erasure.id,
        "status": _status(erasure),
        "requested_at": iso(erasure.requested_ms),
        "done_at": iso(erasure.done_ms) if erasure.done_ms else None,
        "users": erasure.named or len(erasure.users),
    }


def _receipt(home: FilePath, erasure: StoredErasure) -> ErasureReceipt:
    return {
        **_head(erasure),
        "suppress": erasure.suppress,
        "linked": len(erasure.linked),
        "together": erasure.together,
        "stores": [_store(one) for one in erasure.stores],
        "models": sorted(_models(home, erasure.done_ms)),
    }


def _status(erasure: StoredErasure) -> Literal["pending", "done"]:
    return "done" if erasure.stage == "done" else "pending"


def _store(one: Removal) -> ErasedFrom:
    shown: ErasedFrom = {"store": one.store, "found": one.found, "removed": one.removed}
    if one.waits_until_ms is not None:
        shown["waits_until"] = iso(one.waits_until_ms)
    if one.note:
        shown["note"] = one.note
    return shown


def _models(home: FilePath, until_ms: int) -> Iterator[str]:
    """Yield the models that were made before a moment; 0: all."""
    for model in folder.list_models(home):
        if not until_ms or model.created_ms < until_ms:
            yield model.name
