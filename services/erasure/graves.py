"""Tombstones in the store: put before anything else is done, lifted where an id may begin anew.

From the step that puts one, a user has no row, none is written, and every event is refused. The
same tombstones below the state folder are `feature_repo.erasure.tombstones`'.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from feature_repo.events.pseudonyms import partition_of
from feature_repo.online.connection import translated
from feature_repo.online.live_row import row_key
from feature_repo.online.lua import Call, Script
from services.erasure import ledger
from services.event_log.keys import cursor_key, erased_key
from services.runtime import workers

_BURY: Final = Script((Path(__file__).parent / "bury.lua").read_text())
_CALL_USERS: Final = 128


def bury(client: Any, pseudonyms: Iterable[str]) -> int:
    """Put tombstones and return how many rows went.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer; repeating it is safe.
    """
    with translated():
        return sum(int(_BURY(client, *call)) for call in _calls(pseudonyms))


async def bury_async(client: Any, pseudonyms: Iterable[str]) -> int:
    """Do what `bury` does with an asyncio client; thousands are put in order beside its loop."""
    rows = 0
    for call in await workers.READING.run(lambda: list(_calls(pseudonyms))):
        rows += int(await _BURY.run_async(client, *call))
    return rows


def lift(client: Any, pseudonyms: Iterable[str]) -> None:
    """Take tombstones away: who comes under these ids from now on is somebody new."""
    with translated():
        for partition, users in _by_partition(pseudonyms).items():
            client.srem(erased_key(partition), *users)


def restore_graves(client: Any, home: Path) -> None:
    """Put the tombstones of the state folder into the store, which may be of a time before them.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer.
    """
    bury(client, ledger.list_settled(home))


def _calls(pseudonyms: Iterable[str]) -> Iterable[Call]:
    for partition, users in _by_partition(pseudonyms).items():
        for start in range(0, len(users), _CALL_USERS):
            some = users[start : start + _CALL_USERS]
            yield [erased_key(partition), cursor_key(partition), *map(row_key, some)], some


def _by_partition(pseudonyms: Iterable[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for pseudonym in sorted(set(pseudonyms)):
        found[partition_of(pseudonym)].append(pseudonym)
    return found
