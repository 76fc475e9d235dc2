"""The registry: which model is production, shadow and candidate, kept in the store.

All aliases are one value, changed in one step that also notes the change. Belongs here: reading and
changing them. Whether a model may be promoted is `gate`'s; what promoting is, `promotion`'s.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import structlog

from feature_repo.errors import ConflictError
from feature_repo.events.schema import iso, now_ms
from feature_repo.online.connection import translated
from feature_repo.online.lua import Call, Script
from services.models import folder
from services.models.folder import StoredModel

AliasName = Literal["production", "shadow", "candidate"]
KEY: Final = "{models}aliases"
"""Hash of ``generation``, which counts the changes, and ``aliases``."""
CHANGES: Final = "{models}changes"
"""Stream of the changes, the last `MOST_CHANGES`."""
MOST_CHANGES: Final = 1000
MOST_PAST: Final = 10
"""Models that can be gone back to, one after the other."""
ADOPTED: Final = "first start"
_CHANGE: Final = Script("""
if (redis.call('HGET', KEYS[1], 'generation') or '0') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'generation', tonumber(ARGV[1]) + 1, 'aliases', ARGV[2])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'change', ARGV[3])
return 1
""")
"""KEYS: aliases, changes. ARGV: the generation that was read, the aliases and the change as JSON,
the most changes kept."""

_log = structlog.get_logger(__name__)


class Alias(msgspec.Struct, frozen=True):
    """The model that an alias names; ``at_ms``: since when."""

    name: str
    version: str
    at_ms: int


class Aliases(msgspec.Struct, frozen=True):
    """What the aliases name.

    Attributes
    ----------
    past
        What was production before, the last one last.
    is_rollback
        Whether production came by a rollback: rows may have states of it put by.
    generation
        How many changes there were; not a part of what is kept.
    """

    production: Alias | None = None
    shadow: Alias | None = None
    candidate: Alias | None = None
    past: tuple[Alias, ...] = ()
    is_rollback: bool = False
    generation: int = 0

    def names(self) -> dict[str, str | None]:
        """Return the name of the model of each alias."""
        found = {"production": self.production, "shadow": self.shadow, "candidate": self.candidate}
        return {alias: None if each is None else each.name for alias, each in found.items()}

    def of(self, name: str) -> list[str]:
        """Return the aliases of a model."""
        return [alias for alias, each in self.names().items() if each == name]

    @property
    def previous(self) -> Alias | None:
        """What a rollback makes production."""
        return self.past[-1] if self.past else None


class AliasChange(msgspec.Struct, frozen=True):
    """A change of an alias, as it is noted: ``by`` a key's id, or the command line."""

    at: str
    by: str
    action: Literal["promote", "rollback", "publish", "adopt", "remove"]
    alias: str
    name: str
    before: str | None
    is_forced: bool = False


def give(aliases: Aliases, alias: AliasName, model: StoredModel) -> Aliases:
    """Return the aliases with one given to a model; what was production can be gone back to."""
    new = Alias(model.name, model.version, now_ms())
    if alias == "shadow":
        return msgspec.structs.replace(aliases, shadow=new)
    if alias == "candidate":
        return msgspec.structs.replace(aliases, candidate=new)
    past = aliases.past if aliases.production is None else (*aliases.past, aliases.production)
    return msgspec.structs.replace(
        aliases, production=new, past=past[-MOST_PAST:], is_rollback=False
    )


def go_back(aliases: Aliases) -> Aliases:
    """Return the aliases with the previous production as production again.

    Raises
    ------
    ConflictError
        If there was none.
    """
    if aliases.previous is None:
        raise ConflictError("no other model was production before: there is nothing to go back to")
    back = msgspec.structs.replace(aliases.previous, at_ms=now_ms())
    return msgspec.structs.replace(
        aliases, production=back, past=aliases.past[:-1], is_rollback=True
    )


def parse(values: Mapping[bytes, bytes]) -> Aliases:
    """Read the hash of the aliases."""
    found = msgspec.json.decode(values.get(b"aliases", b"{}"), type=Aliases)
    return msgspec.structs.replace(found, generation=int(values.get(b"generation", 0)))


def read(client: Any) -> Aliases:
    """Return the aliases; `StoreUnavailableError` if the store does not answer."""
    with translated():
        return parse(client.hgetall(KEY))


async def read_async(client: Any) -> Aliases:
    """Do what `read` does with an asyncio client."""
    with translated():
        return parse(await client.hgetall(KEY))


async def change(client: Any, before: Aliases, after: Aliases, note: AliasChange) -> bool:
    """Put ``after`` in the place of ``before``, with a note of it; False if that is no more there.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer; whether it was changed is then unknown.
    """
    with translated():
        return bool(await _CHANGE.run_async(client, *_call(before, after, note)))


async def list_changes(client: Any, most: int) -> list[AliasChange]:
    """Return the last changes, the latest first."""
    with translated():
        entries = await client.xrevrange(CHANGES, count=most)
    return [msgspec.json.decode(fields[b"change"], type=AliasChange) for _, fields in entries]


def adopt(client: Any, home: Path) -> Aliases:
    """Return the aliases; where none was ever given, the newest model becomes production first.

    So a state folder of a time before there were aliases opens as it was.
    """
    found = read(client)
    if (call := _adoption(found, home)) is None:
        return found
    with translated():
        _CHANGE(client, *call)
    return read(client)


async def adopt_async(client: Any, home: Path) -> Aliases:
    """Do what `adopt` does with an asyncio client."""
    found = await read_async(client)
    if (call := _adoption(found, home)) is None:
        return found
    with translated():
        await _CHANGE.run_async(client, *call)
    return await read_async(client)


def path_of(home: Path, alias: Alias | None) -> Path | None:
    """Return the directory of the model that an alias names; None without it."""
    if alias is None:
        return None
    found = folder.find(home, alias.name)
    if found is None or found.version != alias.version:
        found = folder.find_version(home, alias.version)  # it has another name now
    return None if found is None else found.path


def note_change(
    action: Literal["promote", "rollback", "publish", "adopt", "remove"],
    alias: str,
    name: str,
    before: str | None,
    by: str,
    *,
    is_forced: bool = False,
) -> AliasChange:
    """Return the note of a change that is made now."""
    return AliasChange(iso(now_ms()), by, action, alias, name, before, is_forced)


def _adoption(found: Aliases, home: Path) -> Call | None:
    model = folder.newest(home) if found.generation == 0 else None
    if model is None:
        return None
    _log.warning("newest_model_adopted", model=model.name, version=model.version)
    note = note_change("adopt", "production", model.name, None, ADOPTED)
    return _call(found, give(found, "production", model), note)


def _call(before: Aliases, after: Aliases, note: AliasChange) -> Call:
    kept = msgspec.structs.replace(after, generation=0)
    return [KEY, CHANGES], [
        before.generation, msgspec.json.encode(kept), msgspec.json.encode(note), MOST_CHANGES,
    ]  # fmt: skip
