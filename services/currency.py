"""The shop's currency as all gateways see it: a setting, else the first one that was named.

Belongs here: agreeing on it, once, durably. What it means for an event is
`feature_repo.currency`'s.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import structlog

from feature_repo import currency
from feature_repo.connection import translated
from feature_repo.events import EventRecord
from services import workers
from services.settings import Settings

KEY: Final = "portrait:currency"

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
        self.money = currency.Money(settings.currency, settings.exchange_rates)

    async def convert(self, records: Sequence[EventRecord]) -> list[bool]:
        """Convert events in place; say of each whether amounts of it were set aside.

        Raises
        ------
        StoreUnavailableError
            If the currency must be agreed on and the store does not answer.
        """
        if self.money.currency is None:
            named = await workers.READING.run_many(_first_named, records)
            if named is not None:
                await self._agree(named)
        return await workers.READING.run_many(partial(_converted, self.money), records)

    async def _agree(self, named: str) -> None:
        with translated():
            agreed = await self._client.get(KEY)
            if agreed is None:
                noted = await asyncio.to_thread(currency.known, self._home)
                await self._client.set(KEY, noted or named, nx=True)
                agreed = await self._client.get(KEY)
        code = agreed.decode()
        if await asyncio.to_thread(currency.note, self._home, code) != code:
            _log.warning("currency_differs", store=code, home=str(self._home / currency.FILE))
        self.money = currency.Money(code, self.money.rates)


def _first_named(records: Sequence[EventRecord]) -> str | None:
    return next(filter(None, map(currency.first_named, records)), None)


def _converted(money: currency.Money, records: Sequence[EventRecord]) -> list[bool]:
    return [currency.convert(record, money) for record in records]
