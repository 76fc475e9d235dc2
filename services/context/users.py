"""Users in the store: whose a user id or an anonymous id is, and the row that is kept."""

from typing import Annotated, Any

from fastapi import Path, Query

from feature_repo.events.pseudonyms import partition_of
from feature_repo.online.live_row import FIELDS, LiveState, parse_live, row_key
from feature_repo.online.previous_states import STATE_FIELDS, go_back, previous_key
from feature_repo.user_profile import explicit
from services.context.context import Context
from services.event_log.keys import erased_key, owners_key
from services.event_log.links import first_owner_of, owner_of
from services.event_log.receipt import Receipt
from services.http.problems import ERASED, ProblemError

UserId = Annotated[str, Path(min_length=1, max_length=128, description="The shop's own user id")]
After = Annotated[
    str | None, Query(max_length=8192, description="Receipt: wait until it is applied")
]


def profile_of(row: LiveState) -> explicit.ExplicitProfile:
    """Return the row's explicit profile."""
    return explicit.decode(row.profile)


async def live(context: Context, pseudonym: str) -> LiveState | None:
    """Read a user's live row."""
    return (await read(context, pseudonym, None))[0]


async def read(
    context: Context, pseudonym: str, service: str | None
) -> tuple[LiveState | None, dict[str, Any] | None]:
    """Read a user's live row and batch features in one round trip.

    Parameters
    ----------
    service
        Feature service whose batch features are wanted; None: the row alone.
    """
    batch = [] if service is None else context.features.fields(service)
    values = await context.await_bounded(context.store.hmget(row_key(pseudonym), [*FIELDS, *batch]))
    row, features = _parse(context, values, service)
    return await _go_back(context, pseudonym, row), features


async def _go_back(context: Context, pseudonym: str, row: LiveState | None) -> LiveState | None:
    """Return a row with the state that it had by the model that a rollback made production."""
    model = context.restored()
    if row is None or model is None or row.model in ("", model):
        return row
    key = previous_key(pseudonym)
    values = await context.await_bounded(context.store.hmget(key, STATE_FIELDS))
    return go_back(row, values, model)


def _parse(
    context: Context, values: list[bytes | None], service: str | None
) -> tuple[LiveState | None, dict[str, Any] | None]:
    row = parse_live(values[: len(FIELDS)])
    if service is None:
        return row, None
    return row, context.features.decode(service, values[len(FIELDS) :])


async def find(context: Context, user_id: str, after: str | None) -> tuple[str, LiveState | None]:
    """Return the pseudonym and row of a user id, or of an anonymous id of that name.

    An anonymous id that belongs to a user is read as that user.

    Raises
    ------
    ProblemError
        410 if the user, or the user to whom the anonymous id belongs, has been erased.
    """
    return (await find_whole(context, user_id, after, None))[:2]


async def find_whole(
    context: Context, user_id: str, after: str | None, service: str | None
) -> tuple[str, LiveState | None, dict[str, Any] | None]:
    """Do what `find` does, and return the batch features of ``service`` as well."""
    known, unknown = context.pseudonyms.of_user(user_id), context.pseudonyms.of_anonymous(user_id)
    await _wait_for(context, after, known, unknown)
    row, batch = await read(context, known, service)
    if row is not None:
        return known, row, batch
    anonymous, owner, erased = await _read_anonymous(context, known, unknown, service)
    if erased:
        raise ProblemError("erased", ERASED)
    if owner is not None:
        row, batch = await read(context, owner, service)
        if row is not None:
            return owner, row, batch
        await refuse_erased(context, owner)
    row, batch = anonymous
    return (known if row is None else unknown), row, batch


async def find_user(
    context: Context, user_id: str, after: str | None, service: str | None
) -> tuple[str, LiveState | None, dict[str, Any] | None]:
    """Do what `find_whole` does for a user id alone.

    Anybody may speak for an anonymous id: what it allows must not count for the user id of
    the same name.

    Raises
    ------
    ProblemError
        410 if the user has been erased.
    """
    pseudonym = context.pseudonyms.of_user(user_id)
    if after is not None:
        await context.await_receipt(Receipt.parse(after), {partition_of(pseudonym)})
    row, batch = await read(context, pseudonym, service)
    if row is None:
        await refuse_erased(context, pseudonym)
    return pseudonym, row, batch


async def refuse_erased(context: Context, pseudonym: str) -> None:
    """Raise the 410 of somebody who has been erased.

    Only who has no row can be: the row goes with the step that puts the tombstone.
    """
    key = erased_key(partition_of(pseudonym))
    if await context.await_bounded(context.store.sismember(key, pseudonym)):
        raise ProblemError("erased", ERASED)


async def owner(context: Context, anonymous: str) -> str | None:
    """Return the pseudonym of the user to whom an anonymous id belongs; None: nobody's."""
    return owner_of(await _owner_value(context, anonymous))


async def first_owner(context: Context, anonymous: str) -> str | None:
    """Return the user who has what an anonymous id did before it was linked; None: nobody."""
    found = first_owner_of(await _owner_value(context, anonymous))
    return None if found is None else found[0]


async def _owner_value(context: Context, anonymous: str) -> Any:
    key = owners_key(partition_of(anonymous))
    return await context.await_bounded(context.store.hget(key, anonymous))


async def _wait_for(context: Context, after: str | None, known: str, unknown: str) -> None:
    if after is None:
        return
    pseudonyms, receipt = {known, unknown}, Receipt.parse(after)
    if receipt.positions.keys() - {partition_of(pseudonym) for pseudonym in pseudonyms}:
        # What an anonymous id does stands in the log of the user it belongs to.
        found = await owner(context, unknown)
        pseudonyms |= {found} if found is not None else set()
    await context.await_receipt(receipt, {partition_of(pseudonym) for pseudonym in pseudonyms})


async def _read_anonymous(
    context: Context, user: str, pseudonym: str, service: str | None
) -> tuple[tuple[LiveState | None, dict[str, Any] | None], str | None, bool]:
    """Do what `read` does; return whose the anonymous id is, and whether it or ``user`` is erased.

    All in the same round trip.
    """
    fields = [*FIELDS, *([] if service is None else context.features.fields(service))]
    partition = partition_of(pseudonym)
    async with context.store.pipeline(transaction=False) as pipe:
        pipe.hmget(row_key(pseudonym), fields)
        pipe.hget(owners_key(partition), pseudonym)
        pipe.sismember(erased_key(partition), pseudonym)
        pipe.sismember(erased_key(partition_of(user)), user)
        values, owner, *erased = await context.await_bounded(pipe.execute())
    row, features = _parse(context, values, service)
    whole = await _go_back(context, pseudonym, row), features
    return whole, owner_of(owner), any(erased)
