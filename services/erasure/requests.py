"""Requests to erase: from ids to pseudonyms, durable, and refused everywhere from then on."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from feature_repo.errors import ConflictError
from feature_repo.events.pseudonyms import partition_of
from feature_repo.online.live_row import row_key
from feature_repo.online.lua import Script
from services.context.context import Context
from services.erasure import ledger
from services.erasure.graves import bury_async
from services.erasure.keys import PENDING
from services.erasure.ledger import StoredErasure
from services.event_log.keys import erased_key, owners_key
from services.event_log.links import owner_of
from services.runtime import workers

MOST_USERS: Final = 5_000
_PAGE: Final = 100
"""Ids looked for at once: putting the commands together is the event loop's."""
_WAIT_S: Final = 20.0
_NOTE: Final = Script(
    # A server that is full lets a script go on that has written, as in `bury.lua`.
    "redis.call('HDEL', KEYS[1], ARGV[1])\nredis.call('HSET', KEYS[1], ARGV[1], ARGV[2])"
)


async def erase(context: Context, user_ids: Sequence[str], *, suppress: bool) -> StoredErasure:
    """Begin an erasure; when this returns every read of the users is answered 410.

    In a store that is full too: the rows that go make room.

    Raises
    ------
    ConflictError
        If an id is an anonymous id that belongs to a user who is not named.
    StoreUnavailableError
        If the store does not answer. It may be carried out all the same; repeat the request.
    """
    users = await find_pseudonyms(context, user_ids)
    erasure = await asyncio.to_thread(
        ledger.create, context.settings.home, users, user_ids, suppress=suppress
    )
    await context.await_bounded(_bury(context, erasure), _WAIT_S)
    return erasure


async def _bury(context: Context, erasure: StoredErasure) -> None:
    rows = await bury_async(context.store, erasure.users)
    await _NOTE.run_async(context.store, [PENDING], [erasure.id, rows])


async def find_pseudonyms(context: Context, user_ids: Sequence[str]) -> list[str]:
    """Return the pseudonyms of ids: of each the user's, and the anonymous visitor's of that name.

    The visitor's too where nothing is known of one: their events may be on their way.
    """
    named = context.pseudonyms

    def name() -> tuple[list[tuple[str, str, str]], set[str]]:
        pairs = [(one, named.of_user(one), named.of_anonymous(one)) for one in user_ids]
        return pairs, {user for _, user, _ in pairs}

    pairs, users = await workers.READING.run(name)
    found = list(users)
    for start in range(0, len(pairs), _PAGE):
        page = pairs[start : start + _PAGE]
        answers = await context.await_bounded(_look(context, page), _WAIT_S)
        for n, (user_id, _, anonymous) in enumerate(page):
            row, gone, note = answers[3 * n : 3 * n + 3]
            owner = owner_of(note)
            if owner is None:
                found.append(anonymous)
            elif not row and not gone and owner not in users:
                raise ConflictError(
                    f"{user_id!r} is an anonymous id that belongs to a user: erase that user by "
                    "their user id, and what it did goes with them"
                )
    return found


async def _look(context: Context, page: Sequence[tuple[str, str, str]]) -> list[Any]:
    async with context.store.pipeline(transaction=False) as pipe:
        for _, user, anonymous in page:
            pipe.exists(row_key(user))
            pipe.sismember(erased_key(partition_of(user)), user)
            pipe.hget(owners_key(partition_of(anonymous)), anonymous)
        return list(await pipe.execute())
