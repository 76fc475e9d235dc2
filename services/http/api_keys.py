"""API keys: who may call what. Only SHA-256 digests are stored.

``write`` may post what a user does, ``analyst`` may define and measure audiences and campaigns and
learns nothing of one person, ``server`` may do both, read, and keep the catalogue, ``admin`` may do
everything. Which call needs which is declared on the routes (`services.http.scopes`).
"""

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import orjson

Scope = Literal["write", "analyst", "server", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
CONTAINS: Final[dict[Scope, frozenset[Scope]]] = {
    "write": frozenset({"write"}),
    "analyst": frozenset({"analyst"}),
    "server": frozenset({"write", "analyst", "server"}),
    "admin": frozenset(SCOPES),
}
"""What a key of each scope may do besides its own. They need not form a chain."""
KEYS: Final = "portrait:keys"
_FRESH_S: Final = 5.0


def digest(key: str) -> str:
    """Return the stored form of a key (random keys need no slow hash)."""
    return hashlib.sha256(key.encode()).hexdigest()


def generate() -> str:
    """Return a new random key."""
    return "pk_" + secrets.token_urlsafe(24)


def register(client: Any, key: str, *, name: str, scope: Scope) -> None:
    """Make ``key`` valid.

    Parameters
    ----------
    client
        Synchronous client of the store.
    name
        Who holds the key, for the operator.
    """
    client.hset(KEYS, digest(key), orjson.dumps({"name": name, "scope": scope}))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from.

    Attributes
    ----------
    name
        Who holds the key, for the operator.
    id
        The first digits of the key's digest.
    """

    name: str
    scope: Scope
    id: str

    @property
    def mark(self) -> str:
        """What events keep of who sent them: scope and id."""
        return f"{self.scope}:{self.id}"

    def may(self, needed: Scope) -> bool:
        """Say whether the caller's scope contains ``needed``."""
        return needed in CONTAINS[self.scope]


class KeyRing:
    """The keys as a gateway knows them: read from the store, kept a few seconds.

    Keys once seen stay valid while the store is down; a revoked key dies within five seconds.

    Parameters
    ----------
    client
        Asyncio client of the store.
    admin_digest
        Digest of the key given by a setting, valid without the store; None if there is none.
    """

    def __init__(self, client: Any, admin_digest: str | None) -> None:
        self._client = client
        self._admin = admin_digest
        self._known: dict[str, Caller] = {}
        self._read_s = -_FRESH_S

    async def caller(self, key: str) -> Caller | None:
        """Return who ``key`` belongs to, or None."""
        found = digest(key)
        if self._admin is not None and secrets.compare_digest(found, self._admin):
            return Caller("setting", "admin", _id(found))
        if time.monotonic() - self._read_s > _FRESH_S:
            await self._refresh()
        return self._known.get(found)

    async def _refresh(self) -> None:
        self._read_s = time.monotonic()  # before the read: one request waits, not all
        try:
            stored = await self._client.hgetall(KEYS)
        except Exception:  # noqa: BLE001 - with the store away, what is known goes on
            return
        self._known = {}
        for name, body in stored.items():
            fields = orjson.loads(body)
            known = name.decode()
            self._known[known] = Caller(fields["name"], fields["scope"], _id(known))


def _id(digest: str) -> str:
    return digest[:12]
