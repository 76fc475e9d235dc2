"""Live rows in the store: read, committed by the updater, replaced by a rebuild.

`commit` and `replace_live` are the only ways in which a live row changes while the service
runs; each is one script, so it happens whole or not at all. The bytes of a row are
`feature_repo.online.live_row`'s.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import redis

from feature_repo.errors import FencedError, StaleRowsError
from feature_repo.online.connection import translated
from feature_repo.online.live_row import (
    FIELDS,
    LiveState,
    live_values,
    parse_any,
    parse_live,
    parse_version,
    row_key,
    version_value,
)
from feature_repo.online.lua import Script

_COMMIT: Final = Script((Path(__file__).parent / "commit.lua").read_text())
_REPLACE: Final = Script((Path(__file__).parent / "replace.lua").read_text())
_VERSIONS: Final = Script("""
local cursor = redis.call('HGET', KEYS[1], 'cursor') or '0-0'
local answer = {cursor, #redis.call('XRANGE', KEYS[2], cursor, cursor)}
for k = 3, #KEYS do
  local row = redis.call('HMGET', KEYS[k], ARGV[5], ARGV[1], ARGV[3])
  answer[k] = row[1] and row[2] and (row[3] or '')
end
return answer
""")
"""KEYS: cursor, log, then one row per user. ARGV: the five field names of a row."""
_LOAD_CHUNK: Final = 500
_REPLACE_CHUNK: Final = 128
"""Rows a script call: it holds the server for a millisecond or two."""


def read_live(client: Any, pseudonyms: Sequence[str]) -> list[LiveState | None]:
    """Read live rows in one round trip, None for who has none; or `StoreUnavailableError`."""
    with translated(), client.pipeline(transaction=False) as pipe:
        for pseudonym in pseudonyms:
            pipe.hmget(row_key(pseudonym), FIELDS)
        return [parse_live(values) for values in pipe.execute()]


def read_batch(
    client: Any, users_by_partition: Mapping[int, Sequence[str]]
) -> tuple[dict[int, int], dict[str, LiveState | None]]:
    """Read the rows that a batch of events needs, and what a commit of them must expect.

    Parameters
    ----------
    users_by_partition
        Pseudonyms by the number of their partition.

    Returns
    -------
    tuple
        For each partition how many of its rows rebuilds have replaced, read before its
        rows (so a row replaced in between is noticed by `commit`); and the row of each
        user, None for one who has none; see `live_row.parse_any`.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer in time.
    """
    users = [user for group in users_by_partition.values() for user in group]
    with translated(), client.pipeline(transaction=False) as pipe:
        for partition in users_by_partition:
            pipe.hget(_cursor_key(partition), "rebuilt")
        counters: list[Any] = []
        if isinstance(client, redis.RedisCluster):
            # While slots move, a cluster's pipeline may repeat single commands out of turn.
            counters = pipe.execute()
        for user in users:
            pipe.hmget(row_key(user), FIELDS)
        answers = counters + pipe.execute()
    width = len(users_by_partition)
    rebuilt = {p: int(n or 0) for p, n in zip(users_by_partition, answers[:width], strict=True)}
    return rebuilt, dict(zip(users, map(parse_any, answers[width:]), strict=True))


def read_versions(
    client: Any, partition: int, users: Sequence[str]
) -> tuple[str, bool, dict[str, int | None]]:
    """Read how far a partition is applied and which versions its rows have, at one moment.

    Returns
    -------
    tuple
        The cursor, whether the log holds its entry, and for each user the version of the live row,
        None if there is none.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer in time.
    """
    keys = [_cursor_key(partition), _log_key(partition), *map(row_key, users)]
    with translated():
        cursor, in_log, *versions = _VERSIONS(client, keys, FIELDS)
    found = (None if value is None else parse_version(value) for value in versions)
    return cursor.decode(), in_log > 0, dict(zip(users, found, strict=True))


def read_models(client: Any, users: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Return of users who have a row the model that it follows, and the time of its last event.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer in time.
    """
    with translated(), client.pipeline(transaction=False) as pipe:
        for user in users:
            pipe.hmget(row_key(user), FIELDS[3:])
        answers = pipe.execute()
    found = dict[str, tuple[str, int]]()
    for user, (model, stamp) in zip(users, answers, strict=True):
        row = parse_any([b"\n\x00", None, None, model, stamp])
        if row is not None:
            found[user] = row.model, row.time_ms
    return found


def load_live(client: Any, rows: Mapping[str, LiveState]) -> None:
    """Write many live rows with no guard: only where no updater runs."""
    ids = list(rows)
    with translated():
        for start in range(0, len(ids), _LOAD_CHUNK):
            with client.pipeline(transaction=False) as pipe:
                for pseudonym in ids[start : start + _LOAD_CHUNK]:
                    values = live_values(rows[pseudonym])
                    pipe.hset(row_key(pseudonym), mapping=dict(zip(FIELDS, values, strict=True)))
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
    expected_rebuilt: int | None = None,
    expected: Mapping[str, int] | None = None,
    model: str | None = None,
    ahead: Sequence[Sequence[Any]] | None = None,
    profiling: Mapping[str, str] | None = None,
) -> bool:
    """Write rows, dead letters and cursor of one partition in one atomic step.

    The step is refused as a whole unless the lease still has ``epoch``, the cursor stands
    at ``expected_cursor``, no rebuild has replaced rows since they were read, rows that were
    not read have the versions of ``expected``, and the log still holds the entry ``new_cursor``
    (a server that lost its last writes may have rolled it back). A commit repeated after its
    answer was lost changes nothing. Rows of erased users are not written.

    Parameters
    ----------
    partition
        Number of the partition; every user in ``rows`` must belong to it.
    epoch
        Epoch of the caller's lease.
    expected_cursor, new_cursor
        Stream ids ``ms-seq``: the last entry applied before, and with this commit.
    rows
        Pseudonym to its new state.
    dead
        Encoded events that could not be applied; they go to the dead-letter stream.
    expected_rebuilt
        The partition's counter from `read_batch`; None asks for nothing.
    expected
        Versions that rows must have which were not read for this commit.
    model
        Version of the model that the partition follows from ``new_cursor`` on; None: as before.
    ahead
        Commands that the server runs before, in the same round trip and whatever becomes of the
        step; not for a cluster.
    profiling
        What users now say about profiling, as `note_profiling` keeps it.

    Returns
    -------
    bool
        False if the cursor stood at ``new_cursor`` already, by a commit that an earlier call sent.

    Raises
    ------
    StaleRowsError
        If a rebuild replaced rows of the partition after `read_batch`, or one of ``expected``
        has another version: the lease and the cursor are as before, so read the rows and apply
        the same events again.
    FencedError
        If another guard refuses. Either way nothing was changed.
    StoreUnavailableError
        If the store does not answer in time; whether it was applied is then unknown, and
        the same call may be repeated.
    """
    tag = _tag(partition)
    _check_partition(tag, rows)
    keys = [
        _log_key(partition), _cursor_key(partition), f"{tag}lease", f"{tag}dead",
        _erased_key(partition), _profiling_key(partition), *map(row_key, rows),
    ]  # fmt: skip
    models = () if model is None else (model,)
    args: list[Any] = [
        epoch, expected_cursor, new_cursor, f"{tag}applied",
        "" if expected_rebuilt is None else expected_rebuilt,
        len(dead), len(models), *FIELDS, *dead, *models,
    ]  # fmt: skip
    known = expected or {}
    for user, state in rows.items():
        args.append(version_value(known[user]) if user in known else "")
        args.extend(live_values(state))
    for user, said in (profiling or {}).items():
        args += (user, said)
    with translated():
        reply = _COMMIT.after(client, ahead, (keys, args)) if ahead else _COMMIT(client, keys, args)
    if reply[0] == b"refused":
        guard, found = reply[1].decode(), reply[2].decode()
        wanted = {
            "epoch": f"the lease has epoch {found}, the caller {epoch}",
            "cursor": f"the cursor is {found}, the caller expects {expected_cursor}",
            "entry": f"the log no longer holds entry {found}",
            "version": f"the row of {found} has another version than the caller's",
            "rebuilt": f"rebuilds replaced {found} rows, the caller knows of {expected_rebuilt}",
        }[guard]
        refusal = StaleRowsError if guard in {"rebuilt", "version"} else FencedError
        raise refusal(f"partition {partition}: {wanted}; give up the batch and read again")
    return bool(reply[0] == b"ok")


def replace_live(
    client: Any,
    partition: int,
    rows: Mapping[str, LiveState],
    expected: Mapping[str, int | None],
    entry: str = "",
    keep_s: int = 0,
) -> set[str]:
    """Write rows made again from history, each unless its live row has moved meanwhile.

    That of an erased user is neither written nor among those left alone. A row is compared and
    written in one step, and the updater's next commit of the
    partition is refused (`StaleRowsError`) if it had read the row before: so neither
    overwrites what the other wrote.

    Parameters
    ----------
    partition
        Number of the partition; every user in ``rows`` must belong to it.
    rows
        Pseudonym to its state.
    expected
        For each of them the version of the live row from which ``rows`` was reckoned; None
        if there was none.
    entry
        Entry that the log must still hold, else all are left alone; empty for none. A store that
        lost its last writes may since have come to the same versions by other events.
    keep_s
        For so long the state that another model made is put by, see `previous_states`; 0: not.

    Returns
    -------
    set[str]
        The users whose live row was left alone; else because it has another version now.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer in time; repeating the same call is then safe.
    """
    tag = _tag(partition)
    _check_partition(tag, rows)
    left = set[str]()
    users = iter(rows)
    with translated():
        while chunk := list(islice(users, _REPLACE_CHUNK)):
            args: list[Any] = [*FIELDS, entry, keep_s]
            for user in chunk:
                version = expected[user]
                args.append(b"" if version is None else version_value(version))
                args.extend(live_values(rows[user]))
            keys = [
                _cursor_key(partition), _log_key(partition), _erased_key(partition),
                *map(row_key, chunk),
            ]  # fmt: skip
            left.update(chunk[at - 1] for at in _REPLACE(client, keys, args))
    return left


def note_profiling(client: Any, partition: int, said: Mapping[str, str]) -> None:
    """Note what users of a partition say about profiling, for the append script.

    Parameters
    ----------
    said
        By user "0" (denied) or the second in which a grant ends, "-1" for never; empty for nothing
        said. A grant does not replace what is noted: the updater knows more.
    """
    with translated(), client.pipeline(transaction=False) as pipe:
        for user, one in said.items():
            if one == "0":
                pipe.hset(_profiling_key(partition), user, one)
            elif one:
                pipe.hsetnx(_profiling_key(partition), user, one)
        pipe.execute()


def _profiling_key(partition: int) -> bytes:
    return b"{p%03d}profiling" % partition


def _tag(partition: int) -> str:
    return f"{{p{partition:03d}}}"


def _log_key(partition: int) -> bytes:
    return b"{p%03d}log" % partition


def _cursor_key(partition: int) -> bytes:
    return b"{p%03d}cursor" % partition


def _erased_key(partition: int) -> bytes:
    return b"{p%03d}erased" % partition


def _check_partition(tag: str, rows: Mapping[str, LiveState]) -> None:
    strangers: Iterator[str] = (pseudonym for pseudonym in rows if not pseudonym.startswith(tag))
    stranger = next(strangers, None)
    if stranger is not None:
        raise ValueError(f"{stranger} is not in partition {tag}: write it with its own")
