"""Routes of API keys: made, listed, rotated and revoked by an admin."""

from typing import Annotated, Final

from fastapi import Path, Request
from starlette.responses import Response

from feature_repo.events.schema import now_ms
from services.context.answers import answer, context_of
from services.http import body, scopes
from services.http import key_schemas as said
from services.http.api_keys import KeyRing
from services.http.key_records import KeyRecords
from services.http.key_requests import NewKey, Rotation
from services.http.openapi import body_of

router = scopes.router("admin", "keys", "/v1/keys")

MAX_BYTES: Final = 16_384
_SECRET: Final = {"cache-control": "no-store"}
KeyId = Annotated[str, Path(pattern="^[0-9a-f]{12}$", description="Id of a key")]


@router.post(
    "", status_code=201, responses=said.MADE, openapi_extra=body_of(NewKey, said.NEW_EXAMPLE)
)
async def post_key(request: Request) -> Response:
    """Make a key. The answer is the only place where it is ever shown."""
    context = context_of(request)
    wanted = await body.model(request, NewKey, limit=MAX_BYTES)
    made = await context.await_bounded(context.of(KeyRecords).create(wanted, now_ms()))
    request.state.target = made["id"]  # for the audit
    context.of(KeyRing).forget()
    return answer(made, 201, _SECRET)


@router.get("", responses=said.LIST)
async def get_keys(request: Request) -> Response:
    """Return all keys, without the keys themselves."""
    context = context_of(request)
    keys = await context.await_bounded(context.of(KeyRecords).list(now_ms()))
    return answer({"keys": keys})


@router.delete("/{key_id}", status_code=204)
async def delete_key(request: Request, key_id: KeyId) -> Response:
    """Revoke a key: within five seconds every gateway refuses it."""
    context = context_of(request)
    await context.await_bounded(context.of(KeyRecords).revoke(key_id, now_ms()))
    context.of(KeyRing).forget()
    return Response(status_code=204)


@router.post(
    "/{key_id}/rotate",
    status_code=201,
    responses=said.MADE,
    openapi_extra=body_of(Rotation, said.ROTATION_EXAMPLE),
)
async def post_rotation(request: Request, key_id: KeyId) -> Response:
    """Make a key in the place of this one, which works on for ``overlap_s`` seconds."""
    context = context_of(request)
    wanted = await body.model(request, Rotation, limit=MAX_BYTES)
    made = await context.await_bounded(
        context.of(KeyRecords).rotate(key_id, wanted.overlap_s, now_ms())
    )
    request.state.target = f"{key_id} {made['id']}"
    context.of(KeyRing).forget()
    return answer(made, 201, _SECRET)
