"""Key records: API keys as the store keeps them, made, listed, rotated and revoked.

Belongs here: reading and changing the records. Whose a key is in a request, `api_keys` says.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import orjson

from feature_repo.errors import ConflictError, NotFoundError
from feature_repo.events.schema import iso
from feature_repo.online.lua import Script
from services.http import key_schemas as said
from services.http.api_keys import KEYS, USED, Scope, digest, generate, id_of
from services.http.key_requests import NewKey

REVOKED: Final = "portrait:keys:revoked"
"""Hash of the keys that were revoked, by id: events and audit go on naming them."""
MAX_KEYS: Final = 1000
_ROTATE: Final = Script("""
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3], ARGV[4], ARGV[5])
return 1
""")
"""ARGV: digest, the record that was read and the new one; digest and record of the new key."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is kept of a key; times are epoch milliseconds.

    Attributes
    ----------
    replaced_by
        Id of the key that a rotation made in its place.
    """

    name: str
    scope: Scope
    created_ms: int | None = None
    expires_ms: int | None = None
    origins: tuple[str, ...] = ()
    replaced_by: str | None = None
    revoked_ms: int | None = None

    @classmethod
    def decode(cls, body: bytes) -> "KeyRecord":
        """Return the record of a stored body; one of an earlier version has two fields."""
        fields = orjson.loads(body)
        fields["origins"] = tuple(fields.get("origins") or ())
        return cls(**{name: fields[name] for name in cls.__slots__ if name in fields})

    def encode(self) -> bytes:
        """Return the body to be stored."""
        return orjson.dumps({k: v for k, v in asdict(self).items() if v is not None})

    def state(self, now_ms: int) -> said.KeyState:
        """Say whether the key is valid at a moment, and if not, why."""
        if self.revoked_ms is not None:
            return "revoked"
        if self.expires_ms is not None and self.expires_ms <= now_ms:
            return "expired"
        return "active" if self.replaced_by is None else "rotated"


class KeyRecords:
    """The stored keys.

    Parameters
    ----------
    client
        Asyncio client of the store.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    async def list(self, now_ms: int) -> list[said.KeyShown]:
        """Return all keys, the newest first; those that were revoked last."""
        used = await self._client.hgetall(USED)
        valid = [(id_of(n), b) for n, (_, b) in (await self._read()).items()]
        gone = [(n.decode(), b) for n, b in (await self._client.hgetall(REVOKED)).items()]
        found = [(name, KeyRecord.decode(body)) for name, body in (*valid, *gone)]
        found.sort(key=lambda one: (one[1].revoked_ms is not None, -(one[1].created_ms or 0)))
        return [_to_answer(name, one, now_ms, used.get(name.encode())) for name, one in found]

    async def create(self, wanted: NewKey, now_ms: int) -> said.KeyMade:
        """Make a key; it is in the answer and nowhere else.

        Raises
        ------
        ConflictError
            If there are `MAX_KEYS` keys.
        """
        if await self._client.hlen(KEYS) >= MAX_KEYS:
            raise ConflictError(f"{MAX_KEYS:,} keys are stored: revoke those that nobody uses")
        key, expires_ms = generate(), wanted.expires_at
        made = KeyRecord(wanted.name, wanted.scope, now_ms, expires_ms, tuple(wanted.origins))
        await self._client.hset(KEYS, digest(key), made.encode())
        return {**_to_answer(id_of(digest(key)), made, now_ms), "key": key}

    async def rotate(self, name: str, overlap_s: int, now_ms: int) -> said.KeyMade:
        """Make a key in the place of another, which goes on for ``overlap_s`` seconds.

        Raises
        ------
        NotFoundError
            If there is no such key.
        ConflictError
            If it has expired, was rotated before, or is being changed.
        """
        found, body = await self._find(name)
        old = KeyRecord.decode(body)
        state = old.state(now_ms)
        if state == "rotated":
            raise ConflictError(f"{name} was rotated already: its successor is {old.replaced_by}")
        if state != "active":
            raise ConflictError(f"{name} has {state}: create a new key")
        key = generate()
        made = replace(old, created_ms=now_ms)
        ends_ms = now_ms + overlap_s * 1000
        if old.expires_ms is not None:
            ends_ms = min(ends_ms, old.expires_ms)
        going = replace(old, expires_ms=ends_ms, replaced_by=id_of(digest(key)))
        told = found, body, going.encode(), digest(key), made.encode()
        if not await _ROTATE.run_async(self._client, [KEYS], told):
            raise ConflictError(f"{name} is being changed by others: try again")
        return {**_to_answer(id_of(digest(key)), made, now_ms), "key": key}

    async def revoke(self, name: str, now_ms: int) -> None:
        """End a key.

        Raises
        ------
        NotFoundError
            If there is no such key.
        """
        found, body = await self._find(name)
        gone = replace(KeyRecord.decode(body), revoked_ms=now_ms)
        await self._client.hset(REVOKED, name, gone.encode())
        await self._client.hdel(KEYS, found)
        await self._client.hdel(USED, name)
        await self._drop_oldest()

    async def _drop_oldest(self) -> None:
        gone: Mapping[bytes, bytes] = await self._client.hgetall(REVOKED)
        if len(gone) > MAX_KEYS:
            oldest = min(gone, key=lambda name: KeyRecord.decode(gone[name]).revoked_ms or 0)
            await self._client.hdel(REVOKED, oldest)

    async def _read(self) -> dict[str, tuple[str, bytes]]:
        stored: Mapping[bytes, bytes] = await self._client.hgetall(KEYS)
        return {id_of(n.decode()): (n.decode(), body) for n, body in stored.items()}

    async def _find(self, name: str) -> tuple[str, bytes]:
        found = (await self._read()).get(name)
        if found is None:
            raise NotFoundError(f"no key has the id {name}: `portrait keys list` shows them")
        return found


def _to_answer(
    name: str, record: KeyRecord, now_ms: int, used: bytes | None = None
) -> said.KeyShown:
    return {
        "id": name,
        "name": record.name,
        "scope": record.scope,
        "state": record.state(now_ms),
        "created_at": _iso(record.created_ms),
        "expires_at": _iso(record.expires_ms),
        "revoked_at": _iso(record.revoked_ms),
        "last_used_at": _iso(None if used is None else int(used)),
        "replaced_by": record.replaced_by,
        "origins": list(record.origins),
    }


def _iso(time_ms: int | None) -> str | None:
    return None if time_ms is None else iso(time_ms)
