"""Complete Journey: what becomes of a line, and the counts of the whole data set."""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from feature_repo import importers
from feature_repo.archive.catalogue import load_catalogue
from feature_repo.archive.event_archive import Archive
from feature_repo.events.schema import EventRecord
from feature_repo.importers.complete_journey import is_merchandise


def stamp(text: str) -> datetime:
    return datetime.fromisoformat(text)


PRODUCTS = [
    (1, 69, "GROCERY", "Private", "FLUID MILK", "MILK 1/2 GAL", "1 GA"),
    (2, 2, "FUEL", "National", "COUPON/MISC ITEMS", "GASOLINE-REG UNLEADED", None),
    (3, 5, "PRODUCE", "National", None, "BANANAS", None),
    (4, 5, "MISCELLANEOUS", "National", None, None, None),
]
NOON, EVENING = "2017-03-04 12:00:00", "2017-03-04 18:30:00"
SOLD = [
    # household, store, basket, product, quantity, sales, retail, coupon, match, week, time
    (7, 1, 100, 1, 2, 3.00, 1.00, 0.5, 0.0, 9, NOON),
    (7, 1, 100, 3, 1, 0.60, 0.0, 0.0, 0.0, 9, NOON),
    (7, 1, 100, 2, 9000, 25.0, 0.0, 0.0, 0.0, 9, NOON),
    (7, 1, 101, 1, 0, 0.0, 0.0, 0.0, 0.0, 9, EVENING),
    (7, 1, 101, 99, 1, 1.0, 0.0, 0.0, 0.0, 9, EVENING),
    (7, 1, 101, 4, 1, 1.0, 0.0, 0.0, 0.0, 9, EVENING),
    (7, 1, 101, 3, 1, 0.0, 0.0, 0.0, 0.0, 9, EVENING),
    (7, 1, 101, 1, 1, 0.4, 0.0, 1.0, 0.0, 9, EVENING),
    (8, 1, 102, 1, 1, 2.0, 0.0, 0.0, 0.0, 9, "2019-01-01 00:00:00"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "package"
    made.mkdir()
    tables = {
        "products": (PRODUCTS, "product_id manufacturer_id department brand product_category "
                     "product_type package_size"),
        "transactions": (
            [(*row[:-1], stamp(row[-1])) for row in SOLD],
            "household_id store_id basket_id product_id quantity sales_value retail_disc "
            "coupon_disc coupon_match_disc week transaction_timestamp",
        ),
        "campaigns": ([(18, 7)], "campaign_id household_id"),
        "campaign_descriptions": (
            [(18, "Type A", stamp("2017-03-01"), stamp("2017-04-01"))],
            "campaign_id campaign_type start_date end_date",
        ),
        "coupons": ([(555, 3, 18)], "coupon_upc product_id campaign_id"),
        "coupon_redemptions": (
            [(7, 555, 18, stamp("2017-03-04")), (7, 555, 18, stamp("2017-03-09"))],
            "household_id coupon_upc campaign_id redemption_date",
        ),
    }  # fmt: skip
    for name, (rows, columns) in tables.items():
        pd.DataFrame(rows, columns=columns.split()).to_parquet(made / f"{name}.parquet")
    return made


def events_of(home: Path) -> dict[str, EventRecord]:
    found = [e for _, events in Archive(home / "archive/events").histories() for e in events]
    return {e.id: e for e in found}


def test_lines_become_baskets(folder: Path, tmp_path: Path) -> None:
    report = importers.run("completejourney", home=tmp_path / "home", path=folder)
    assert report.rows_in == 9
    assert report.accepted == 3
    assert report.rejected == {
        "quantity_not_positive": 1, "unknown_item": 1, "impossible_time": 1
    }  # fmt: skip
    assert report.set_aside == {"non_merchandise": 2, "no_value": 1}
    events = events_of(tmp_path / "home")
    basket = events["cj-100"]
    milk, banana = basket.items
    assert (milk.item_id, milk.quantity, milk.price, milk.discount) == ("1", 2, 2.0, 1.5)
    assert (milk.category, milk.brand) == ("Grocery/Fluid Milk/Milk 1 & 2 Gal", "Private 69")
    assert (banana.category, banana.discount) == ("Produce/Bananas", None)
    assert (basket.order_id, basket.value, basket.currency) == ("100", 3.1, "USD")
    assert basket.time_ms == 1_488_628_800_000
    # a coupon worth more than the product leaves nothing to pay, not less than nothing
    assert events["cj-101"].value == 0.0


def test_mailings_and_redemptions(folder: Path, tmp_path: Path) -> None:
    importers.run("completejourney", home=tmp_path / "home", path=folder)
    events = list(events_of(tmp_path / "home").values())
    (mail,) = [e for e in events if e.type == "message_sent"]
    assert (mail.campaign_id, mail.time_ms) == ("18", 1_488_326_400_000)
    used = sorted((e for e in events if e.type == "coupon_redeemed"), key=lambda e: e.time_ms)
    assert [e.coupon for e in used] == ["555", "555"]
    # the first day has a basket with the coupon's product, last in the evening; the second none
    assert [e.time_ms for e in used] == [1_488_652_200_000, 1_489_103_999_000]


def test_catalogue_keeps_what_is_no_merchandise(folder: Path, tmp_path: Path) -> None:
    importers.run("completejourney", home=tmp_path / "home", path=folder)
    items = load_catalogue(tmp_path / "home")
    assert {k: i.is_merchandise for k, i in items.items()} == {
        "1": True, "2": False, "3": True, "4": False
    }  # fmt: skip
    assert items["1"].title == "Milk 1 & 2 Gal 1 ga"
    assert items["1"].price == 2.0


@pytest.mark.parametrize(
    ("department", "category", "kind", "sold"),
    [
        ("GROCERY", "COUPON/MISC ITEMS", "MISC SALES TRANS", False),
        ("MISCELLANEOUS", "COUPON/MISC ITEMS", "OUTSIDE VENDORS GIFT CARDS", False),
        ("GROCERY", "BOTTLE DEPOSITS", "BOTTLE DEPOSITS", False),
        ("MISCELLANEOUS", None, "STRAWBERRIES", True),
        ("GROCERY", "COFFEE", "GROUND COFFEE", True),
    ],
)
def test_is_merchandise(department: str, category: str | None, kind: str, *, sold: bool) -> None:
    frame = pd.DataFrame(
        {"department": [department], "product_category": [category], "product_type": [kind]}
    )
    assert is_merchandise(frame).tolist() == [sold]


@pytest.mark.slow
def test_whole_data_set(tmp_path: Path) -> None:
    rest = tmp_path / "rest.ndjson"
    report = importers.run(
        "completejourney", home=tmp_path, until=datetime(2017, 12, 18, tzinfo=UTC), rest=rest
    )
    lost = sum(report.rejected.values()) + sum(report.set_aside.values())
    assert report.rows_in == 1_469_307 == report.accepted + lost
    assert report.rejected == {"unknown_item": 4_836, "quantity_not_positive": 4_065}
    assert len(rest.read_bytes().splitlines()) == report.events_held == 5_752
