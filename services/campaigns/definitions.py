"""Campaigns as the store keeps them: one hash, changed one at a time.

Belongs here: reading and changing definitions. What a campaign has decided and spent is
`ledger`'s; what its parts mean `services.campaigns`'.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from feature_repo.errors import ConflictError, InvalidRuleError, NotFoundError
from services.campaigns import language
from services.campaigns.campaign import Campaign
from services.campaigns.keys import CAMPAIGNS, state_key

MAX_CAMPAIGNS: Final = 1000
RESERVED: Final = frozenset({"schema"})
"""Names that stand for other things in ``/v1/campaigns/...``."""
_ATTEMPTS: Final = 5

_CHANGE: Final = """
local was = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if was ~= ARGV[2] then return 0 end
if redis.call('HEXISTS', KEYS[2], 'decided') ~= tonumber(ARGV[3]) then return 0 end
if ARGV[4] == '' then redis.call('HDEL', KEYS[1], ARGV[1])
else redis.call('HSET', KEYS[1], ARGV[1], ARGV[4]) end
redis.call('HDEL', KEYS[2], 'threshold', 'ranked_ms')
return 1
"""
"""ARGV: name, body that was read, whether it had decided, new body (empty: remove). What was ranked
was ranked by the old definition."""
_FIXED: Final = ("offer", "channel", "goal", "control", "rank_by", "explore")
"""Parts that stay as they are once a campaign has decided."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored campaign; times are epoch milliseconds."""

    name: str
    campaign: Campaign
    created_ms: int
    updated_ms: int

    @property
    def salt(self) -> str:
        """Salt of the hashes."""
        return self.campaign.control.salt or self.name


class Campaigns:
    """The stored campaigns."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._read_before: tuple[str, bytes, Stored] | None = None

    async def page(self, after: str, limit: int) -> list[Stored]:
        """Return up to ``limit`` campaigns by name, those after ``after``."""
        stored: Mapping[bytes, bytes] = await self._client.hgetall(CAMPAIGNS)
        names = sorted(name.decode() for name in stored if name.decode() > after)
        return [_decode(name, stored[name.encode()]) for name in names[:limit]]

    async def get(self, name: str) -> Stored:
        """Return a campaign; `NotFoundError` if there is none of this name."""
        body = await self._client.hget(CAMPAIGNS, name)
        if body is None:
            raise NotFoundError(f"no campaign is named {name}")
        before = self._read_before
        if before is None or before[:2] != (name, body):
            before = self._read_before = (name, body, _decode(name, body))
        return before[2]

    async def put(
        self, name: str, campaign: Campaign, *, now_ms: int, only_new: bool = False
    ) -> tuple[Stored, bool]:
        """Store a campaign; return it as stored, and whether its name is new.

        Raises
        ------
        InvalidRuleError
            If the name is the service's own, or the campaign has decided and its control group,
            offer or goal would change: the report would then compare what is not comparable.
        ConflictError
            If ``only_new`` and the name is taken, if a removed campaign of this name has
            decided, or if others kept changing it.
        """
        if name in RESERVED:
            detail = f"{name} is taken by the service itself"
            raise InvalidRuleError([{"pointer": "/name", "detail": detail}])
        for _ in range(_ATTEMPTS):
            body, decided = await self._read(name)
            old = _decode(name, body) if body else None
            if old is not None and only_new:
                raise ConflictError(f"a campaign is named {name} already")
            if old is None and decided:
                raise ConflictError(f"a removed campaign {name} has decided: take another name")
            if old is None and await self._client.hlen(CAMPAIGNS) >= MAX_CAMPAIGNS:
                raise ConflictError(f"{MAX_CAMPAIGNS:,} campaigns are stored: remove one first")
            new = Stored(name, campaign, now_ms if old is None else old.created_ms, now_ms)
            if old is not None and decided:
                _check_change(old, new)
            if await self._change(name, body, decided, _encode(new)):
                return new, old is None
        raise ConflictError(f"{name} is being changed or used by others: try again")

    async def delete(self, name: str) -> None:
        """Remove a campaign; what it has decided stays known, so its name is not used again.

        Raises
        ------
        NotFoundError
            If there is none of this name.
        """
        for _ in range(_ATTEMPTS):
            body, decided = await self._read(name)
            if not body:
                raise NotFoundError(f"no campaign is named {name}")
            if await self._change(name, body, decided, b""):
                return
        raise ConflictError(f"{name} is being changed or used by others: try again")

    async def _read(self, name: str) -> tuple[bytes, bool]:
        """Return the stored body, and whether the campaign has decided."""
        body = await self._client.hget(CAMPAIGNS, name)
        return body or b"", bool(await self._client.hexists(state_key(name), "decided"))

    async def _change(self, name: str, was: bytes, decided: bool, body: bytes) -> bool:
        keys = CAMPAIGNS, state_key(name)
        return bool(await self._client.eval(_CHANGE, 2, *keys, name, was, int(decided), body))


def _check_change(old: Stored, new: Stored) -> None:
    """Refuse what would make the experiment another one."""
    before, after = _to_document(old), _to_document(new)
    errors = [
        {"pointer": f"/{part}",
         "detail": f"the campaign has decided, so {part} stays: make one of another name"}
        for part in _FIXED if before[part] != after[part]
    ]  # fmt: skip
    if errors:
        raise InvalidRuleError(errors)


def _to_document(stored: Stored) -> dict[str, Any]:
    shown = language.to_document(stored.campaign)
    shown["control"]["salt"] = stored.salt
    return shown


def _encode(stored: Stored) -> bytes:
    return orjson.dumps(
        {
            "campaign": language.to_document(stored.campaign),
            "created_ms": stored.created_ms,
            "updated_ms": stored.updated_ms,
        }
    )


def _decode(name: str, body: bytes) -> Stored:
    found = orjson.loads(body)
    campaign = language.read(found["campaign"])
    return Stored(name, campaign, found["created_ms"], found["updated_ms"])
