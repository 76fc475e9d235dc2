"""The shop's currency as all gateways see it: a setting, else the first one that was named.

What a key of scope ``write`` names is a claim: it counts until somebody else names one.
Belongs here: agreeing on it, once, durably. What it means for an event is
`feature_repo.archive.currency`'s.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import structlog

from feature_repo.archive import currency
from feature_repo.events.schema import EventRecord
from feature_repo.online.connection import translated
from services.runtime import workers
from services.settings import Settings

KEY: Final = "portrait:currency"
_AGREE: Final = """
local now = redis.call('GET', KEYS[1])
if now and (now:sub(-1) ~= '?' or ARGV[1]:sub(-1) == '?') then return now end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
"""

_log = structlog.get_logger(__name__)


class ShopCurrency:
    """Turns events' amounts into the shop's currency.

    Parameters
    ----------
    settings
        ``home``, ``currency`` and ``exchange_rates`` are read.
    client
        Asyncio client of the store.
    """

    def __init__(self, settings: Settings, client: Any) -> None:
        self._home = settings.home
        self._client = client
        self._set = settings.currency
        self._is_agreed = False  # for good
        self._claimed: tuple[str, currency.Stamp | None] | None = None
        self._seeking = asyncio.Lock()  # one look through an old archive, not one a request
        self.money = currency.Money(settings.currency, settings.exchange_rates)

    async def convert(self, records: Sequence[EventRecord], *, claims: bool) -> list[bool]:
        """Convert events in place; say of each whether amounts of it were set aside.

        Parameters
        ----------
        claims
            Whether a currency that they name is but a claim.

        Raises
        ------
        StoreUnavailableError
            If the currency must be agreed on and the store does not answer.
        """
        if not self._is_agreed:
            named = await workers.READING.run_many(
                partial(_find_currency, self._set, claims), records
            )
            if named is not None and not await self._stands(named):
                await self._agree(named)
        return await workers.READING.run_many(partial(_convert, self.money), records)

    async def _stands(self, named: str) -> bool:
        """Say whether ``named`` is but a claim, and the one of before stands in store and file."""
        if self._claimed is None or currency.is_firm(named):
            return False
        agreed, stamp = self._claimed
        if currency.stamp(self._home) != stamp:
            return False
        with translated():
            return bool(await self._client.get(KEY) == agreed.encode())

    async def _agree(self, named: str) -> None:
        stamp = currency.stamp(self._home)  # before it is read: what comes later is seen then
        if self._set is None:
            async with self._seeking:
                noted = await asyncio.to_thread(currency.known, self._home)
            if noted is not None and (currency.is_firm(noted) or not currency.is_firm(named)):
                named = noted
        with translated():
            agreed: str = (await self._client.eval(_AGREE, 1, KEY, named)).decode()
        code = agreed.removesuffix(currency.CLAIM)
        if not self._is_agreed:  # else another request has heard of a firm one meanwhile
            self._is_agreed = currency.is_firm(agreed)
            self.money = currency.Money(self._set or code, self.money.rates)
        if await asyncio.to_thread(currency.note, self._home, agreed) != agreed or (
            self._set not in (None, code)
        ):
            _log.warning("currency_differs", store=code, home=str(self._home / currency.FILE))
        self._claimed = agreed, stamp


def _find_currency(setting: str | None, claims: bool, records: Sequence[EventRecord]) -> str | None:
    if setting is not None:
        return setting if any(map(currency.has_amounts, records)) else None
    code = next(filter(None, map(currency.first_of_amounts, records)), None)
    return f"{code}{currency.CLAIM}" if code and claims else code


def _convert(money: currency.Money, records: Sequence[EventRecord]) -> list[bool]:
    return [currency.convert(record, money) for record in records]
