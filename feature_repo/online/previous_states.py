"""Learned states that an earlier model made, put by beside the rows for a while.

`live_rows.replace_live` puts one by when another model's takes its place. It fits as long as its
row has the same version: then no event came since. After a rollback it is put back, one step for
row and state. Keys lie in the slot of their row.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from feature_repo.online.connection import translated
from feature_repo.online.live_row import FIELDS, LiveState, model_value, parse_live, row_key
from feature_repo.online.lua import Script

_RESTORE: Final = Script((Path(__file__).parent / "restore.lua").read_text())
_CALL_USERS: Final = 128
STATE_FIELDS: Final = (FIELDS[1], FIELDS[2], FIELDS[3])
"""Learned state, version and model, as a row has them."""


def previous_key(user: str) -> bytes:
    """Return the key of what is put by of a user.

    Examples
    --------
    >>> previous_key("{p007}" + "a" * 26)
    b'{p007}aaaaaaaaaaaaaaaaaaaaaaaaaa:before'
    """
    return f"{user}:before".encode()


def restore(
    client: Any, partition: int, users: Sequence[str], model: str, keep_s: int
) -> list[str]:
    """Put back the states that ``model`` made where no event came since; return whose they are.

    Parameters
    ----------
    users
        All of ``partition``.
    keep_s
        For so long the states in whose place they come are kept; 0: not at all.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer; the same call may be repeated.
    """
    done = list[str]()
    with translated():
        for start in range(0, len(users), _CALL_USERS):
            some = users[start : start + _CALL_USERS]
            keys = [
                b"{p%03d}cursor" % partition, b"{p%03d}erased" % partition, *map(row_key, some)
            ]  # fmt: skip
            args = [*STATE_FIELDS, model_value(model), keep_s]
            done += [some[at - 1] for at in _RESTORE(client, keys, args)]
    return done


def go_back(row: LiveState, values: Sequence[bytes | None], model: str) -> LiveState:
    """Return a row with the state that ``model`` made, if that fits; else the row as it is.

    Parameters
    ----------
    values
        What is put by of the user, in the order of `STATE_FIELDS`.
    """
    learned, version, made_by = values
    if learned is None:
        return row
    kept = parse_live([b"\n\x00", learned, version, made_by, b""])
    if kept is None or (kept.version, kept.model) != (row.version, model):
        return row
    return replace(row, learned=kept.learned, model=kept.model)


def remove_previous(client: Any, users: Sequence[str]) -> int:
    """Remove what is put by of users and return of how many something was."""
    removed = 0
    with translated():
        for user in users:
            removed += int(client.delete(previous_key(user)))
    return removed
