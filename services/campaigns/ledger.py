"""Ledger of decisions and spending: kept in the store, each decision settled in one step.

One script looks for the same decision made before, counts the user's messages against the caps,
the campaign's against its budget, spends and keeps the decision. So parallel decisions never
exceed either, and a killed gateway leaves a decision made or not made, never half. Belongs here:
that step and what it keeps. Why a decision comes out so is `services.campaigns`' to say.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any, Final

import orjson

from feature_repo.online.lua import Script
from services.campaigns.campaign import MAX_CAP_DAYS, Campaign, Cap
from services.campaigns.keys import decisions_key, sent_key, state_key

UNITS: Final = 10**6
"""Amounts are counted in millionths: whole numbers below 2^53, which Lua adds exactly."""
_DAY_MS: Final = 86_400_000
_UNIT: Final = "\x1f"
_LOGGED: Final = "logged" + _UNIT
_NOTED: Final = b"1"
_BLOCKED: Final = {
    "-": (), "f": ("frequency_cap",), "b": ("budget",), "x": ("frequency_cap", "budget"),
}  # fmt: skip

_SPEND: Final = Script((Path(__file__).parent / "spend.lua").read_text())


@dataclass(frozen=True, slots=True)
class Wanted:
    """A decision to be settled.

    Attributes
    ----------
    name, campaign
        Whose it is.
    decision
        Its name among this campaign's decisions about the user.
    draft
        What is kept of it.
    message
        Whether it sends a message, if caps and budget allow.
    keep
        Whether it is kept even if it sends none.
    now_ms
        Its moment, epoch milliseconds.
    """

    name: str
    campaign: Campaign
    pseudonym: str
    decision: str
    draft: dict[str, Any]
    message: bool
    keep: bool
    now_ms: int


@dataclass(frozen=True, slots=True)
class Settled:
    """A decision as it stands.

    Attributes
    ----------
    draft
        What was given of it, by whoever came first.
    blocked
        Reasons for which no message was sent: ``frequency_cap``, ``budget``, both or none.
    repeated
        Whether it had been made before.
    """

    draft: dict[str, Any]
    blocked: tuple[str, ...]
    repeated: bool


@dataclass(frozen=True, slots=True)
class Spent:
    """What a campaign has decided and spent, and from which score on it chooses.

    ``amount_u`` counts millionths; ``threshold`` and ``ranked_ms`` are None until it was ranked.
    """

    decided: int
    messages: int
    amount_u: int
    threshold: float | None
    ranked_ms: int | None

    @property
    def amount(self) -> float:
        """Amount spent."""
        return self.amount_u / UNITS


class Ledger:
    """The decisions of all campaigns.

    Parameters
    ----------
    kept_days
        How long a decision is kept after the end of its campaign's window.
    """

    def __init__(self, client: Any, kept_days: int = 400) -> None:
        self._client, self._kept_days = client, kept_days

    async def settle(self, wanted: Wanted) -> Settled:
        """Settle a decision in one step, or return the one that was made before."""
        keys = [
            decisions_key(wanted.pseudonym), sent_key(wanted.pseudonym), state_key(wanted.name)
        ]  # fmt: skip
        found = await _SPEND.run_async(self._client, keys, _arguments(wanted, self._kept_days))
        return _read(found[1], repeated=found[0] == b"old")

    async def read(self, name: str, pseudonym: str, decision: str) -> tuple[Settled | None, bool]:
        """Return a decision that was made before, and whether its events were logged."""
        field = _field(name, decision)
        found, logged = await self._client.hmget(decisions_key(pseudonym), [field, _LOGGED + field])
        return None if found is None else _read(found, repeated=True), logged is not None

    async def mark_logged(self, name: str, pseudonym: str, decision: str) -> None:
        """Note that the events of a kept decision stand in the log."""
        await self._client.hset(decisions_key(pseudonym), _LOGGED + _field(name, decision), _NOTED)

    async def read_spent(self, name: str) -> Spent:
        """Return what a campaign has decided and spent."""
        names = ("decided", "messages", "amount", "amount_u", "threshold", "ranked_ms")
        found = await self._client.hmget(state_key(name), list(names))
        decided, messages, thousandths, more, threshold, ranked_ms = found
        return Spent(
            int(decided or 0), int(messages or 0), 1000 * int(thousandths or 0) + int(more or 0),
            None if threshold is None else float(threshold),
            None if ranked_ms is None else int(ranked_ms),
        )  # fmt: skip

    async def set_threshold(self, name: str, threshold: float, now_ms: int) -> None:
        """Keep from which score on a campaign chooses."""
        fields = {"threshold": repr(threshold), "ranked_ms": now_ms}
        await self._client.hset(state_key(name), mapping=fields)


def cost_u(cost: float) -> int:
    """Return what a message costs as the store counts it: in millionths, rounded up.

    Examples
    --------
    >>> cost_u(0.0004), cost_u(0.1), cost_u(1e-9)
    (400, 100000, 1)
    """
    return int((Decimal(repr(cost)) * UNITS).to_integral_value(ROUND_CEILING))


def budget_u(amount: float) -> int:
    """Return the most that may be spent as the store counts it: in millionths, rounded down."""
    return int((Decimal(repr(amount)) * UNITS).to_integral_value(ROUND_FLOOR))


def _arguments(wanted: Wanted, kept_days: int) -> list[Any]:
    campaign, budget = wanted.campaign, wanted.campaign.budget
    kept_ms = max(0, campaign.window.until_ms - wanted.now_ms) + kept_days * _DAY_MS
    messages = None if budget is None else budget.messages
    amount = None if budget is None else budget.amount
    args: list[Any] = [
        _field(wanted.name, wanted.decision), orjson.dumps(wanted.draft),
        "1" if wanted.message else "0", "1" if wanted.keep else "0", kept_ms, wanted.now_ms,
        _UNIT.join((f"c={campaign.channel}", f"n={wanted.name}", wanted.decision)),
        cost_u(campaign.offer.cost), "" if messages is None else messages,
        "" if amount is None else budget_u(amount), MAX_CAP_DAYS * _DAY_MS,
    ]  # fmt: skip
    for cap in campaign.caps:
        args += [_count_filter(cap, campaign.channel, wanted.name), cap.most, cap.within_ms]
    return args


def _count_filter(cap: Cap, channel: str, name: str) -> str:
    """Return what the messages that a cap counts have in them."""
    if cap.scope == "all":
        return ""
    return f"c={channel}{_UNIT}" if cap.scope == "channel" else f"n={name}{_UNIT}"


def parse_decision(field: bytes, value: bytes) -> tuple[str, str, Settled] | None:
    """Read a field of a user's ledger: campaign, the decision's name, and what was decided.

    None of a field that only notes that a decision was logged; see `log_note`.
    """
    if value == _NOTED:
        return None
    campaign, _, decision = field.decode().partition(_UNIT)
    return campaign, decision, _read(value, repeated=True)


def log_note(field: bytes) -> bytes:
    """Return the field that notes that the events of a decision stand in the log."""
    return _LOGGED.encode() + field


def parse_message(name: bytes) -> tuple[str, str, str]:
    """Return channel, campaign and decision of a message as the ledger names it."""
    channel, campaign, decision = name.decode().split(_UNIT, 2)
    return channel.removeprefix("c="), campaign.removeprefix("n="), decision


def _field(name: str, decision: str) -> str:
    return f"{name}{_UNIT}{decision}"


def _read(value: bytes, *, repeated: bool) -> Settled:
    return Settled(orjson.loads(value[1:]), _BLOCKED[value[:1].decode()], repeated)
