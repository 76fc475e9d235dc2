"""Commands on the machine itself, as the audit keeps them: no key is used, a login is.

A command appends to the store's stream, as gateways do, and to nothing else: the one writer of the
chain copies it, within a second beside a running service, else once one starts.
"""

import os
import pwd
import re
import secrets
from typing import Any, Final

import orjson

from feature_repo.events.schema import iso, now_ms
from feature_repo.online.lua import Script
from services.audit.recorder import MOST_GROUPS
from services.audit.writer import LOG

SCOPE: Final = "machine"
_NOTE: Final = Script(
    # A server that is full lets a script go on that has written: to trim takes no memory.
    "redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[1])\n"
    "redis.call('XADD', KEYS[1], '*', 'entries', ARGV[2])"
)
_STRANGE: Final = re.compile(r"[^A-Za-z0-9._-]")
_MOST_LETTERS: Final = 32


def find_actor() -> str:
    """Return who runs this process, as the field ``key`` has it: ``cli:`` and the login's name."""
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:  # containers have numbers without a name
        name = str(number)
    return f"cli:{_STRANGE.sub('_', name)[:_MOST_LETTERS]}"


async def note_command(
    client: Any, command: str, *, user: str | None, target: str | None, status: int
) -> None:
    """Keep one use of a command, durable as far as the store is, in a full one too.

    Parameters
    ----------
    command
        Its words: ``portrait keys create``.
    user
        The audit's name of the one whom it is about.
    target
        What it is about else: a name, or the id of a key.
    status
        What the API would have answered.
    """
    entry = {
        "at": iso(now_ms()), "key": find_actor(), "scope": SCOPE, "operation": command,
        "user": user, "target": target, "status": status, "request_id": secrets.token_hex(16),
    }  # fmt: skip
    await _NOTE.run_async(client, [LOG], [MOST_GROUPS, orjson.dumps([entry])])
