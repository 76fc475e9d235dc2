"""One currency: amounts of others are converted or set aside, never added up."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import importers
from feature_repo.archive import currency
from feature_repo.archive.currency import Money
from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.errors import InvalidSettingError
from feature_repo.events.fields import SET_ASIDE, check_properties
from feature_repo.events.schema import MAX_ITEMS, EventRecord, ItemRecord
from feature_repo.user_profile.amounts import amount

EURO = Money("EUR", {"USD": 0.5, "GBP": 2.0})
WORTH = {None: 1.0, "EUR": 1.0, "USD": 0.5, "GBP": 2.0}
codes = st.sampled_from([None, "EUR", "eur", "USD", "usd", "GBP", "JPY", "XAU"])
prices = st.none() | st.integers(0, 4000).map(lambda n: n / 4)


@st.composite
def orders(draw: st.DrawFn) -> EventRecord:
    items = [
        ItemRecord(f"i{n}", price=draw(prices), discount=draw(prices), currency=draw(codes))
        for n in range(draw(st.integers(0, 4)))
    ]
    return EventRecord(
        id="e", type="purchase", user="u", time_ms=0, received_ms=0, items=items,
        value=draw(prices), currency=draw(codes),
        properties=draw(st.sampled_from([None, {"a": 1}])),
    )  # fmt: skip


def upper(code: str | None) -> str | None:
    return None if code is None else code.upper()


@given(orders())
def test_only_what_has_a_rate_counts_and_nothing_is_lost(event: EventRecord) -> None:
    before = msgspec.structs.replace(event)
    own = upper(event.currency)
    lines = [upper(item.currency) or own for item in event.items]
    of_value = own or (lines[0] if len(set(lines)) == 1 else None)
    aside = currency.convert(event, EURO)
    kept = (event.properties or {}).get(SET_ASIDE, {})
    assert aside == bool(kept)
    for n, (was, now, code) in enumerate(zip(before.items, event.items, lines, strict=True)):
        told = [each for each in kept.get("lines", []) if each["line"] == n]
        if code in WORTH:
            for name in ("price", "discount"):
                old = getattr(was, name)
                assert getattr(now, name) == (None if old is None else old * WORTH[code])
            assert told == []
        else:
            assert (now.price, now.discount, now.currency) == (None, None, None)
            if was.price is not None or was.discount is not None:
                assert told == [{"line": n, "price": was.price, "discount": was.discount,
                                 "currency": code}]  # fmt: skip
    if of_value in WORTH:
        assert event.value == (None if before.value is None else before.value * WORTH[of_value])
    else:
        assert event.value is None
        assert kept.get("value") == before.value
    for code in (event.currency, *(item.currency for item in event.items)):
        assert code in (None, "EUR")
    assert {**(event.properties or {}), SET_ASIDE: None} == {
        **(before.properties or {}), SET_ASIDE: None,
    }  # fmt: skip
    again = msgspec.structs.replace(event)
    assert not currency.convert(again, EURO)  # what is converted stays as it is
    assert again == event


def test_two_currencies_are_never_added_up() -> None:
    lines = [ItemRecord("A", price=10.0, currency="EUR"), ItemRecord("B", price=1500.0)]
    event = EventRecord(id="e", type="purchase", user="u", time_ms=0, received_ms=0, items=lines,
                        currency="JPY")  # fmt: skip
    assert currency.convert(event, EURO)
    assert amount(event) == 10_000
    assert [item.item_id for item in event.items] == ["A", "B"]


def test_the_first_of_many_notes_the_currency(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        noted = set(pool.map(lambda n: currency.note(tmp_path, f"AA{'BCDEFGHI'[n]}"), range(8)))
    assert noted == {currency.known(tmp_path)}
    assert [path.name for path in tmp_path.iterdir()] == [currency.FILE]


def test_an_older_archives_currency_is_its_most_frequent_one(tmp_path: Path) -> None:
    assert currency.known(tmp_path) is None
    events = [
        EventRecord(id=f"e{n}", type="purchase", user="{p000}u", time_ms=n, received_ms=n,
                    currency=code, items=[ItemRecord("A", currency=line)])
        for n, (code, line) in enumerate([("USD", None), ("USD", None), (None, "EUR"),
                                          (None, "eur"), ("EUR", None), (None, "?")])
    ]  # fmt: skip
    Archive(tmp_path / "archive" / "events").append(
        "p", [(LogPosition(1, n), event) for n, event in enumerate(events)]
    )
    assert currency.known(tmp_path) == "EUR"


@pytest.mark.parametrize("setting", ["USD", "EUR", None])
def test_a_setting_is_held_to_what_an_older_archive_names(
    setting: str | None, tmp_path: Path
) -> None:
    event = EventRecord(id="e", type="purchase", user="{p000}u", time_ms=0, received_ms=0,
                        currency="eur", value=7.0)  # fmt: skip
    archive = Archive(tmp_path / "home" / "archive" / "events")
    archive.append("p", [(LogPosition(1, 0), event)])
    if setting != "USD":
        currency.check(tmp_path / "home", setting)
        return
    for ask in (
        lambda: currency.check(tmp_path / "home", setting),
        lambda: read(tmp_path, ROWS, money=Money(setting)),
    ):
        with pytest.raises(InvalidSettingError, match=r"are in EUR: set PORTRAIT_CURRENCY=EUR"):
            ask()
    assert not (tmp_path / "home" / currency.FILE).exists()


def test_what_was_set_aside_of_the_longest_order_is_taken_again() -> None:
    lines = [ItemRecord(f"i{n}", price=1e9 / 3, discount=1e9 / 7) for n in range(MAX_ITEMS)]
    event = EventRecord(id="e", type="purchase", user="u", time_ms=0, received_ms=0, items=lines,
                        currency="USD", value=1e12 / 3, properties={"a": "b" * 8000})  # fmt: skip
    assert currency.convert(event, Money("EUR"))
    assert event.properties is not None
    assert check_properties(event.properties) == event.properties
    with pytest.raises(ValueError, match="properties take 8208 bytes: at most 8192"):
        check_properties({**event.properties, "a": "b" * 8200})
    with pytest.raises(ValueError, match="portrait_set_aside takes 30002 bytes: at most 24576"):
        check_properties({SET_ASIDE: "b" * 30_000})


MAPPING = """source: shop
columns: {time: t, user_id: u, order_id: o, item_id: i, price: p, currency: c}
default_type: purchase
"""


def read(folder: Path, rows: list[list[Any]], **more: Any) -> tuple[Any, list[EventRecord]]:
    (folder / "m.yaml").write_text(MAPPING)
    path = folder / "shop.csv"
    pd.DataFrame(rows, columns=list("tuoipc")).to_csv(path, index=False)
    report = importers.run(
        "file", home=folder / "home", path=path, mapping=folder / "m.yaml", **more
    )
    archive = Archive(folder / "home" / "archive" / "events")
    return report, [e for _, events in archive.histories() for e in events]


ROWS = [
    ["2024-05-01T10:00:00Z", "u", "o1", "A", "10", "EUR"],
    ["2024-05-01T10:00:00Z", "u", "o1", "B", "1500", "JPY"],
    ["2024-05-02T10:00:00Z", "u", "o2", "C", "4", "USD"],
]


def test_an_import_keeps_every_lines_currency(tmp_path: Path) -> None:
    report, (first, second) = read(tmp_path, ROWS, money=Money("EUR", {"USD": 0.5, "JPY": 0.01}))
    assert (report.accepted, report.amounts_set_aside) == (3, 0)
    assert [(i.item_id, i.price) for i in first.items] == [("A", 10.0), ("B", 15.0)]
    assert (amount(first), amount(second)) == (25_000, 2_000)


def test_an_import_without_a_setting_takes_the_first_currency_for_good(tmp_path: Path) -> None:
    report, (first, second) = read(tmp_path, ROWS)
    assert (report.accepted, report.amounts_set_aside) == (3, 2)
    assert (amount(first), amount(second)) == (10_000, 0)
    assert second.properties == {
        SET_ASIDE: {"reason": "other_currency", "value": 4.0, "currency": "USD",
                    "lines": [{"line": 0, "price": 4.0, "discount": None, "currency": "USD"}]}
    }  # fmt: skip
    assert currency.known(tmp_path / "home") == "EUR"
    (tmp_path / "home" / "archive").rename(tmp_path / "home" / "gone")
    report, (only,) = read(tmp_path, [["2024-05-03T10:00:00Z", "u", "o3", "D", "7", "USD"]])
    assert (report.amounts_set_aside, amount(only)) == (1, 0)


def test_an_import_with_a_setting_notes_it_and_keeps_to_it(tmp_path: Path) -> None:
    currency.note(tmp_path / "home", "QQQ?")  # but a claim
    _, (_, second) = read(tmp_path, ROWS, money=Money("USD"))
    assert (amount(second), currency.known(tmp_path / "home")) == (4_000, "USD")
    with pytest.raises(InvalidSettingError, match=r"is EUR, but .* are in USD"):
        read(tmp_path, ROWS, money=Money("EUR"))


def test_an_import_overrules_a_claim(tmp_path: Path) -> None:
    currency.note(tmp_path / "home", "QQQ?")
    _, (first, _) = read(tmp_path, ROWS)
    assert (amount(first), currency.known(tmp_path / "home")) == (10_000, "EUR")


@pytest.mark.parametrize("code", ["usd", "USD"])
def test_capitals_do_not_matter(code: str) -> None:
    event = EventRecord(id="e", type="refund", user="u", time_ms=0, received_ms=0, value=3.0,
                        currency=code)  # fmt: skip
    assert not currency.convert(event, EURO)
    assert (event.value, event.currency) == (1.5, "EUR")


def test_an_imported_order_is_summed_to_thousandths(tmp_path: Path) -> None:
    lines = [[*ROWS[0][:3], item, "0.333", "EUR"] for item in "AB"]
    _, (order,) = read(tmp_path, lines)
    assert (order.value, amount(order)) == (0.666, 666)
