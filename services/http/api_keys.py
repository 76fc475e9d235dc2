"""API keys: who may call what. Only SHA-256 digests are stored.

``write`` may post what a user does, ``analyst`` may define and measure audiences and campaigns and
learns nothing of one person, ``server`` may do both, read, and keep the catalogue, ``admin`` may do
everything. Which call needs which is declared on the routes (`services.http.scopes`).
"""

import asyncio
import hashlib
import math
import secrets
import string
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, get_args

import orjson
import redis
import structlog

from feature_repo.errors import InvalidSettingError

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
"""Hash of the keys: digest to record."""
USED: Final = "portrait:keys:used"
"""Hash of their last use: id to epoch milliseconds."""
ID_DIGITS: Final = 12
MIN_BITS: Final = 128
"""What a key must be worth."""
_MIN_DIFFERENT: Final = 8
_ROWS: Final = (
    string.ascii_lowercase,
    "01234567890",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "9a",
    "f0",
)
_NEIGHBOURS: Final = frozenset(
    pair
    for row in _ROWS
    for n in range(len(row) - 1)
    for pair in (row[n : n + 2], row[n : n + 2][::-1])
)
_FRESH_S: Final = 5.0
_AGAIN_S: Final = 1.0
"""A key that is not known is looked for again after so long: it may have been made just now."""
_USE_S: Final = 60.0
"""How often, at most, a gateway writes a key's last use."""

_log = structlog.get_logger(__name__)


def digest(key: str) -> str:
    """Return the stored form of a key (random keys need no slow hash)."""
    return hashlib.sha256(key.encode()).hexdigest()


def generate() -> str:
    """Return a new random key."""
    return "pk_" + secrets.token_urlsafe(24)  # 192 bits


def find_weakness(key: str) -> str | None:
    """Return why a key could be guessed, or None.

    Examples
    --------
    >>> find_weakness("changeme")
    '8 characters, worth 37 bits at most: 128 are needed'
    >>> find_weakness(generate()) is None
    True
    """
    sizes = ((string.digits, 10), (string.ascii_lowercase, 26), (string.ascii_uppercase, 26))
    letters = sum(size for some, size in sizes if set(key) & set(some))
    if set(key.lower()) <= set(string.hexdigits):
        letters = 16
    elif not key.isalnum():
        letters += 2
    bits = int(len(key) * math.log2(max(letters, 2)))
    if bits < MIN_BITS:
        return f"{len(key)} characters, worth {bits} bits at most: {MIN_BITS} are needed"
    if len(set(key)) < _MIN_DIFFERENT:
        return f"{len(set(key))} different characters: at least {_MIN_DIFFERENT} are needed"
    if any(key[n:] == key[:-n] for n in range(1, len(key) // 2 + 1)):
        return "a part of it is repeated"
    low = key.lower()
    along = sum(1 for pair in pairwise(low) if "".join(pair) in _NEIGHBOURS)
    if along * 2 > len(key):
        return "it goes along the alphabet, the digits or the keyboard"
    return None


def check_key(key: str) -> None:
    """Refuse an admin key that could be guessed.

    Raises
    ------
    InvalidSettingError
        Naming what it lacks; never the key.
    """
    weakness = find_weakness(key)
    if weakness is not None:
        raise InvalidSettingError(
            f"PORTRAIT_API_KEY could be guessed ({weakness}): "
            "set one that `openssl rand -base64 24` makes"
        )


def id_of(digest: str) -> str:
    """Return the name of a key: the first digits of its digest."""
    return digest[:ID_DIGITS]


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
    expires_ms
        When the key ends, epoch milliseconds.
    origins
        Origins of the pages that may use the key; none: any, and what is no browser.
    """

    name: str
    scope: Scope
    id: str
    expires_ms: float = math.inf
    origins: frozenset[str] = frozenset()

    @property
    def mark(self) -> str:
        """What events keep of who sent them: scope and id."""
        return f"{self.scope}:{self.id}"

    def may(self, needed: Scope) -> bool:
        """Say whether the caller's scope contains ``needed``."""
        return needed in CONTAINS[self.scope]


class KeyRing:
    """The keys as a gateway knows them: read from the store, kept a few seconds.

    Keys once seen stay valid while the store is down, until they expire; a revoked key dies within
    five seconds. A key's last use is written beside the answer, not before it.

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
        self.origins = frozenset[str]()
        self._read_s = -_FRESH_S
        self._noted_s = dict[str, float]()
        self._writing = set[asyncio.Task[None]]()

    async def caller(self, key: str) -> Caller | None:
        """Return who ``key`` belongs to, or None."""
        found = digest(key)
        if self._admin is not None and secrets.compare_digest(found, self._admin):
            return Caller("setting", "admin", id_of(found))
        await self.refresh(_FRESH_S if found in self._known else _AGAIN_S)
        caller = self._known.get(found)
        if caller is None or caller.expires_ms <= time.time() * 1000:
            return None
        self._note_use(caller)
        return caller

    def forget(self) -> None:
        """Read the keys again at the next request: they have changed."""
        self._read_s = -_FRESH_S

    async def refresh(self, older_s: float = _FRESH_S) -> None:
        """Read the keys again if they were read more than so many seconds ago."""
        if time.monotonic() - self._read_s <= older_s:
            return
        self._read_s = time.monotonic()  # before the read: one request waits, not all
        try:
            stored = await self._client.hgetall(KEYS)
        except Exception:  # noqa: BLE001 - with the store away, what is known goes on
            return
        known = {}
        for name, body in stored.items():
            caller = _caller(name.decode(), body)
            if caller is not None:
                known[name.decode()] = caller
        self._known = known
        self.origins = frozenset(o for caller in known.values() for o in caller.origins)

    def _note_use(self, caller: Caller) -> None:
        now_s = time.monotonic()
        if now_s - self._noted_s.get(caller.id, -math.inf) >= _USE_S:
            self._noted_s[caller.id] = now_s
            task = asyncio.create_task(self._write_use(caller.id))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def _write_use(self, name: str) -> None:
        try:
            await self._client.hset(USED, name, round(time.time() * 1000))
        except (redis.RedisError, OSError, TimeoutError) as error:
            _log.info("key_use_lost", error=type(error).__name__)


def _caller(digest: str, body: bytes) -> Caller | None:
    """Return whose a stored key is; None for a scope that this version does not know."""
    fields = orjson.loads(body)  # a record of an earlier version has a name and a scope alone
    if fields["scope"] not in SCOPES:
        return None
    expires_ms = fields.get("expires_ms")
    return Caller(
        fields["name"], fields["scope"], id_of(digest),
        math.inf if expires_ms is None else expires_ms, frozenset(fields.get("origins") or ()),
    )  # fmt: skip
