"""Who says what the shop's currency is: keys of scope write claim it, all others settle it."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from feature_repo.archive import currency
from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.user_profile.amounts import amount
from services.event_log.currency import ShopCurrency
from services.http import api_keys
from services.settings import Settings

keys = (f"test:currency:{n}" for n in itertools.count())
Pay = Callable[..., Any]


def shop(
    redis_url: str, homes: list[Path], monkeypatch: pytest.MonkeyPatch, use: Any, **given: Any
) -> str:
    """Run ``use`` with what each gateway pays in, on a store that knows none; return its word."""
    key = next(keys)
    monkeypatch.setattr("services.event_log.currency.KEY", key)

    async def run() -> str:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            gateways = [ShopCurrency(Settings(home=home, **given), client) for home in homes]

            async def pay(at: int, code: str, scope: str) -> int:
                event = EventRecord(id="e", type="purchase", user="u", time_ms=0, received_ms=0,
                                    value=3.0, currency=code)  # fmt: skip
                await gateways[at].convert([event], claims=scope == "write")
                return amount(event)

            await use(pay)
            return (await client.get(key)).decode()

    return asyncio.run(run())


@pytest.mark.parametrize("settles", ["server", "admin"])
@pytest.mark.parametrize("apart", [False, True])
def test_a_claim_gives_way_to_the_shops_own_word(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settles: str, *, apart: bool
) -> None:
    homes = [tmp_path / "a", tmp_path / ("b" if apart else "a")]

    async def use(pay: Pay) -> None:
        assert [await pay(0, "QQQ", "write"), await pay(1, "QQQ", "write")] == [3000, 3000]
        assert await pay(1, "EUR", "write") == 0
        assert currency.known(homes[0]) == "QQQ?"
        assert await pay(0, "EUR", settles) == 3000
        assert [await pay(1, "QQQ", "write"), await pay(1, "EUR", "write")] == [0, 3000]
        assert [await pay(0, "QQQ", "write"), await pay(0, "QQQ", settles)] == [0, 0]

    assert shop(redis_url, homes, monkeypatch, use) == "EUR"
    assert {currency.known(home) for home in homes} == {"EUR"}


def test_a_claim_gives_way_to_what_an_import_notes(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(pay: Pay) -> None:
        await pay(0, "QQQ", "write")
        assert currency.note(tmp_path, "EUR") == "EUR"
        assert [await pay(0, "QQQ", "write"), await pay(0, "EUR", "write")] == [0, 3000]

    assert shop(redis_url, [tmp_path], monkeypatch, use) == "EUR"


def test_a_claim_that_stands_is_noted_no_more(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted, note = list[str](), currency.note

    def noting(home: Path, named: str) -> str:
        noted.append(named)
        return note(home, named)

    monkeypatch.setattr(currency, "note", noting)

    async def use(pay: Pay) -> None:
        assert [await pay(0, code, "write") for code in ("QQQ", "EUR", "QQQ")] == [3000, 0, 3000]
        before = len(noted)
        assert [await pay(0, code, "write") for code in ("QQQ", "EUR", "QQQ")] == [3000, 0, 3000]
        assert len(noted) == before
        (tmp_path / currency.FILE).unlink()
        await pay(0, "QQQ", "write")
        assert currency.known(tmp_path) == "QQQ?"
        await pay(0, "EUR", "server")
        assert noted[before:] == ["QQQ?", "EUR"]

    assert shop(redis_url, [tmp_path], monkeypatch, use) == "EUR"


def test_a_setting_is_noted_with_the_first_amount(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    currency.note(tmp_path, "QQQ?")

    async def use(pay: Pay) -> None:
        assert [await pay(0, "QQQ", "server"), await pay(0, "EUR", "write")] == [0, 3000]

    assert shop(redis_url, [tmp_path], monkeypatch, use, currency="EUR") == "EUR"
    assert currency.known(tmp_path) == "EUR"


def test_a_currency_without_an_amount_is_not_the_shops(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.event_log.currency.KEY", next(keys))

    def of(item: ItemRecord, value: float | None, code: str) -> EventRecord:
        return EventRecord(id="e", type="purchase", user="u", time_ms=0, received_ms=0,
                           items=[item], value=value, currency=code)  # fmt: skip

    async def run() -> list[float | None]:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            paid = ShopCurrency(Settings(home=tmp_path), client)
            item = ItemRecord(item_id="A")
            events = [of(item, None, "XXX"), of(item, 3, "EUR"),
                      of(ItemRecord(item_id="A", price=2.0), None, "eur")]  # fmt: skip
            for event in events:
                await paid.convert([event], claims=False)
            return [events[1].value, events[2].items[0].price]

    assert asyncio.run(run()) == [3, 2.0]
    assert currency.known(tmp_path) == "EUR"


def test_a_browser_names_no_currency_for_good(make_api: Any) -> None:
    api = make_api()
    with redis.Redis.from_url(api.url) as store:
        api_keys.register(store, "w", name="browser", scope="write")
        api_keys.register(store, "s", name="server", scope="server")
    view = {"type": "view_item", "user_id": "u", "items": [{"item_id": "A"}], "currency": "QQQ"}
    order = {"type": "purchase", "user_id": "u", "order_id": "o", "value": 5, "currency": "EUR",
             "items": [{"item_id": "A"}]}  # fmt: skip
    with api.client() as client:
        browser, server = ({"authorization": f"Bearer {key}"} for key in "ws")
        assert client.http.post("/v1/events", json=view, headers=browser).status_code == 202
        bought = client.http.post("/v1/events", json=order, headers=server).json()
        assert "set_aside" not in bought
        again = client.http.post(
            "/v1/events/batch", json=[{**order, "id": "x", "currency": "QQQ"}], headers=browser
        )
        assert again.json()["amounts_set_aside"] == 1
