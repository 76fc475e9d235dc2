"""Definitions of audiences as the store keeps them: one hash, changed one at a time.

Belongs here: reading and changing what is stored, with no audience that names one which is
not there. What a definition means is `feature_repo.audiences`'. Only pseudonyms are stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from feature_repo.audiences import language
from feature_repo.audiences.ready import PREFIX, ready
from feature_repo.audiences.references import check_references, references
from feature_repo.audiences.rules import Definition
from feature_repo.errors import ConflictError, InvalidRuleError, NotFoundError
from feature_repo.events.pseudonyms import Pseudonyms
from services.runtime import workers

KEY: Final = "portrait:audiences"
MAX_AUDIENCES: Final = 1000
RESERVED: Final = frozenset({"preview", "overlap", "schema", "traits", "changes"})
"""Names that stand for other things in ``/v1/audiences/...``."""
VERSION: Final = b"_version"
"""Field of the hash that counts its changes; no audience's name begins so."""
_ATTEMPTS: Final = 5

_CHANGE: Final = """
if (redis.call('HGET', KEYS[1], '_version') or '0') ~= ARGV[1] then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[2])
else redis.call('HSET', KEYS[1], ARGV[2], ARGV[3]) end
redis.call('HINCRBY', KEYS[1], '_version', 1)
return 1
"""
"""ARGV: version that was read, name, body (empty: remove). One key, so a cluster takes it too."""


@dataclass(frozen=True, slots=True)
class Audience:
    """A stored definition; times are epoch milliseconds."""

    name: str
    definition: Definition
    created_ms: int
    updated_ms: int


class Definitions:
    """The stored audiences; user ids become pseudonyms before anything is stored."""

    def __init__(self, client: Any, pseudonyms: Pseudonyms) -> None:
        self._client = client
        self._pseudonyms = pseudonyms
        self._read_before: tuple[bytes, dict[str, Audience]] | None = None

    async def all(self) -> dict[str, Audience]:
        """Return every stored audience by name."""
        return (await self._read())[1]

    async def put(
        self, name: str, definition: Definition, *, now_ms: int, only_new: bool = False
    ) -> tuple[Audience, bool]:
        """Store a definition; return it as stored, and whether its name is new.

        Raises
        ------
        InvalidRuleError
            If the name is not free to use, or the definition names audiences that are
            not there or rest on it.
        ConflictError
            If ``only_new`` and the name is taken, or others kept changing audiences.
        """
        if name in RESERVED or name.startswith(PREFIX):
            raise InvalidRuleError(
                [{"pointer": "/name", "detail": f"{name} is taken by the service itself"}]
            )
        kept = await workers.READING.run(language.pseudonymous, definition, self._pseudonyms)
        for _ in range(_ATTEMPTS):
            version, known = await self._read()
            old = known.get(name)
            if old is not None and only_new:
                raise ConflictError(f"an audience is named {name} already")
            if old is None and len(known) >= MAX_AUDIENCES:
                raise ConflictError(f"{MAX_AUDIENCES:,} audiences are stored: remove one first")
            others = {each.name: each.definition for each in known.values()}
            await workers.READING.run(check, name, kept, others)
            new = Audience(name, kept, now_ms if old is None else old.created_ms, now_ms)
            if await self._change(version, name, _encode(new)):
                return new, old is None
        raise ConflictError("audiences are being changed by others: try again")

    async def delete(self, name: str) -> None:
        """Remove an audience.

        Raises
        ------
        NotFoundError
            If there is none of this name.
        ConflictError
            If another audience names it.
        """
        for _ in range(_ATTEMPTS):
            version, known = await self._read()
            if name not in known:
                raise NotFoundError(f"no audience is named {name}")
            users = [n for n, each in known.items() if name in references(each.definition)]
            if users:
                raise ConflictError(f"{users[0]} rests on {name}: change that first")
            if await self._change(version, name, b""):
                return
        raise ConflictError("audiences are being changed by others: try again")

    async def _read(self) -> tuple[bytes, dict[str, Audience]]:
        version = await self._client.hget(KEY, VERSION) or b"0"
        if self._read_before is None or self._read_before[0] != version:
            stored: Mapping[bytes, bytes] = await self._client.hgetall(KEY)
            found = await workers.READING.run(decode_all, stored)
            self._read_before = stored.get(VERSION, b"0"), found
        return self._read_before

    async def _change(self, version: bytes, name: str, body: bytes) -> bool:
        return bool(await self._client.eval(_CHANGE, 1, KEY, version, name, body))


def check(name: str, definition: Definition, stored: Mapping[str, Definition]) -> None:
    """Raise `InvalidRuleError` if a definition names audiences not there, or which rest on it.

    Ready audiences of interests and clusters may not be named: which there are changes.
    """
    for other, pointer in references(definition).items():
        if other.startswith((f"{PREFIX}interest-", f"{PREFIX}cluster-")):
            detail = f"{other} may be gone some day: put its rule here instead"
            raise InvalidRuleError([{"pointer": pointer, "detail": detail}])
    check_references(name, definition, {**stored, **ready()})


def decode_all(stored: Mapping[bytes, bytes]) -> dict[str, Audience]:
    """Return the audiences of the whole hash, by name."""
    names = sorted(stored.keys() - {VERSION})
    return {name.decode(): _decode(name.decode(), stored[name]) for name in names}


def _encode(audience: Audience) -> bytes:
    return orjson.dumps(
        {
            "definition": language.to_document(audience.definition),
            "created_ms": audience.created_ms,
            "updated_ms": audience.updated_ms,
        }
    )


def _decode(name: str, body: bytes) -> Audience:
    stored = orjson.loads(body)
    definition = language.read(_renew(stored["definition"]))
    return Audience(name, definition, stored["created_ms"], stored["updated_ms"])


def _renew(stored: Any) -> Any:
    """Return a stored definition with today's trait in the place of one that is gone."""
    if isinstance(stored, list):
        return [_renew(each) for each in stored]
    if not isinstance(stored, dict):
        return stored
    trait = stored.get("trait")
    if isinstance(trait, dict) and trait.get("name") == "lifecycle_stage":
        found = orjson.dumps(stored | {"trait": trait | {"name": "lifecycle.stage"}})
        return orjson.loads(found.replace(b'"prospect"', b'"visitor"'))
    return {name: _renew(each) for name, each in stored.items()}
