"""Live rows in the store: read, committed by the updater, loaded by a rebuild.

`commit` is the only way in which a live row changes while an updater runs. The bytes of a
row are `feature_repo.live_row`'s.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import redis

from feature_repo.connection import translated
from feature_repo.errors import FencedError
from feature_repo.live_row import FIELDS, LiveState, live_values, parse_live, row_key

_LOAD_CHUNK: Final = 500


def read_live(client: Any, entity_ids: Sequence[str]) -> list[LiveState | None]:
    """Read live rows in one round trip; None for a user who has none.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer in time.
    """
    with translated(), client.pipeline(transaction=False) as pipe:
        for entity_id in entity_ids:
            pipe.hmget(row_key(entity_id), FIELDS)
        return [parse_live(values) for values in pipe.execute()]


async def read_live_async(client: Any, entity_id: str) -> LiveState | None:
    """Read one live row without blocking the event loop; see `read_live`."""
    with translated():
        return parse_live(await client.hmget(row_key(entity_id), FIELDS))


def load_live(client: Any, rows: Mapping[str, LiveState]) -> None:
    """Write many live rows with no guard: for a rebuild, while no updater runs."""
    ids = list(rows)
    with translated():
        for start in range(0, len(ids), _LOAD_CHUNK):
            with client.pipeline(transaction=False) as pipe:
                for entity_id in ids[start : start + _LOAD_CHUNK]:
                    values = live_values(rows[entity_id])
                    pipe.hset(row_key(entity_id), mapping=dict(zip(FIELDS, values, strict=True)))
                pipe.execute()


def commit(
    client: Any,
    partition: int,
    *,
    epoch: int,
    expected_cursor: str,
    new_cursor: str,
    rows: Mapping[str, LiveState],
    dead: Sequence[bytes] = (),
) -> None:
    """Write rows, dead letters and cursor of one partition in one atomic step.

    The step is refused as a whole unless the lease still has ``epoch``, the cursor stands
    at ``expected_cursor`` and the log still holds the entry ``new_cursor`` (a server that
    lost its last writes may have rolled it back). A commit repeated after its answer was
    lost changes nothing.

    Parameters
    ----------
    client
        From `connect`.
    partition
        Number of the partition; every user in ``rows`` must belong to it.
    epoch
        Epoch of the caller's lease.
    expected_cursor, new_cursor
        Stream ids ``ms-seq``: the last entry applied before, and with this commit.
    rows
        Entity id to its new state.
    dead
        Encoded events that could not be applied; they go to the dead-letter stream.

    Raises
    ------
    FencedError
        If a guard refuses; nothing was changed.
    StoreUnavailableError
        If the store does not answer in time; whether it was applied is then unknown, and
        the same call may be repeated.
    """
    keys, args = _commit_call(partition, epoch, expected_cursor, new_cursor, rows, dead)
    with translated():
        try:
            reply = client.evalsha(_script()[1], len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            reply = client.eval(_script()[0], len(keys), *keys, *args)
    _check_reply(reply, partition, epoch, expected_cursor)


async def commit_async(
    client: Any,
    partition: int,
    *,
    epoch: int,
    expected_cursor: str,
    new_cursor: str,
    rows: Mapping[str, LiveState],
    dead: Sequence[bytes] = (),
) -> None:
    """Do what `commit` does, with a client from `connect_async`."""
    keys, args = _commit_call(partition, epoch, expected_cursor, new_cursor, rows, dead)
    with translated():
        try:
            reply = await client.evalsha(_script()[1], len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            reply = await client.eval(_script()[0], len(keys), *keys, *args)
    _check_reply(reply, partition, epoch, expected_cursor)


@lru_cache(maxsize=1)
def _script() -> tuple[str, str]:
    text = (Path(__file__).parent / "commit.lua").read_text()
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _commit_call(
    partition: int,
    epoch: int,
    expected_cursor: str,
    new_cursor: str,
    rows: Mapping[str, LiveState],
    dead: Sequence[bytes],
) -> tuple[list[Any], list[Any]]:
    tag = f"{{p{partition:03d}}}"
    strangers = [entity_id for entity_id in rows if not entity_id.startswith(tag)]
    if strangers:
        raise ValueError(f"{strangers[0]} is not in partition {tag}: commit it with its own")
    keys = [f"{tag}log", f"{tag}cursor", f"{tag}lease", f"{tag}dead", *map(row_key, rows)]
    args: list[Any] = [
        epoch, expected_cursor, new_cursor, f"{tag}applied", len(dead), len(FIELDS),
        *dead, *FIELDS,
    ]  # fmt: skip
    for state in rows.values():
        args.extend(live_values(state))
    return keys, args


def _check_reply(reply: list[bytes], partition: int, epoch: int, expected_cursor: str) -> None:
    if reply[0] != b"refused":
        return
    guard, found = reply[1].decode(), reply[2].decode()
    wanted = {
        "epoch": f"the lease has epoch {found}, the caller {epoch}",
        "cursor": f"the cursor is {found}, the caller expects {expected_cursor}",
        "entry": f"the log no longer holds entry {found}",
    }[guard]
    raise FencedError(f"partition {partition}: {wanted}; give up the batch and read again")
