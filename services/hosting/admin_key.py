"""The generated admin key: one, kept below ``PORTRAIT_HOME`` while no setting names another.

`portrait serve` makes it at the first start and registers it at each; commands that ask the
running service read it.
"""

import os
from pathlib import Path
from typing import Any, Final

import orjson

from feature_repo.errors import InvalidSettingError
from feature_repo.events.schema import now_ms
from services.http import api_keys
from services.http.key_records import REVOKED, KeyRecord

FILE: Final = "admin.key"
NAME: Final = "generated"
"""What the record of a generated key is called."""


def read(home: Path) -> str | None:
    """Return the key that is kept, or None.

    Raises
    ------
    InvalidSettingError
        If what is in the file could be guessed.
    """
    path = home / FILE
    try:
        key = path.read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    weakness = api_keys.find_weakness(key)
    if weakness is not None:
        raise InvalidSettingError(
            f"{path} holds no key ({weakness}): remove it, and the next start makes one"
        )
    return key


def keep(home: Path) -> str:
    """Return the key that is kept, made and written (0600) if there is none; see `read`."""
    return read(home) or _make(home)


def prepare(client: Any, home: Path) -> tuple[str, str | None]:
    """Return the key of this start, made valid, and how the one kept before it ended, if it has.

    A key that was revoked or rotated, or has expired, is never made valid again: a new one is made.
    """
    key = keep(home)
    ended = _find_end(client, key)
    if ended is not None:
        key = _make(home)
    register(client, key)
    return key, ended


def _find_end(client: Any, key: str) -> str | None:
    name = api_keys.digest(key)
    if client.hexists(REVOKED, api_keys.id_of(name)):
        return "revoked"
    body = client.hget(api_keys.KEYS, name)
    state = "active" if body is None else KeyRecord.decode(body).state(now_ms())
    return None if state == "active" else state


def _make(home: Path) -> str:
    key = api_keys.generate()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = home / f"{FILE}.{os.getpid()}"
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(f"{key}\n")
        file.flush()
        os.fsync(file.fileno())
    made.replace(home / FILE)
    return key


def register(client: Any, key: str | None) -> None:
    """Make the generated key valid, and those of earlier starts no longer.

    Parameters
    ----------
    client
        Synchronous client of the store.
    key
        None where a setting names the admin key: then no generated one is valid.
    """
    kept = None if key is None else api_keys.digest(key)
    for name, body in client.hgetall(api_keys.KEYS).items():
        fields = orjson.loads(body)
        # Else an admin named it so; one that was rotated ends by itself, and is remembered as such.
        ours = fields["name"] == NAME and not fields.keys() & {"created_ms", "expires_ms"}
        if ours and name.decode() != kept:
            client.hdel(api_keys.KEYS, name)
    if key is not None:
        api_keys.register(client, key, name=NAME, scope="admin")
