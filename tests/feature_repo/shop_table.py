"""A small shop's table, its mapping, and importing it."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from feature_repo import importers
from feature_repo.archive.event_archive import Archive
from feature_repo.events.schema import EventRecord
from feature_repo.importers import ImportReport

MAPPING = """
source: shop
columns: {time: when, user_id: who, type: what, item_id: item, order_id: order,
          quantity: n, price: price, title: title, category: category}
types: {view: view_item, buy: purchase}
ignore_types: [ping]
negative_quantity: refund
currency: EUR
"""


NAMES = ["when", "who", "what", "item", "order", "n", "price", "title", "category"]


def data_folder() -> Path:
    told = os.environ.get("PORTRAIT_TEST_DATA")
    folder = Path(told) if told else Path(__file__).parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no evaluation data here: set PORTRAIT_TEST_DATA")
    return folder


def write_shop(folder: Path, rows: list[list[Any]]) -> tuple[Path, Path]:
    table, mapping = folder / "shop.csv", folder / "shop.yaml"
    pd.DataFrame(rows, columns=NAMES).to_csv(table, index=False)
    mapping.write_text(MAPPING)
    return table, mapping


def import_shop(home: Path, table: Path, mapping: Path, **more: Any) -> ImportReport:
    return importers.run("file", home=home, path=table, mapping=mapping, **more)


def archived(home: Path) -> list[EventRecord]:
    return [e for _, events in Archive(home / "archive/events").histories() for e in events]


def check_conservation(report: ImportReport) -> None:
    lost = sum(report.rejected.values()) + sum(report.set_aside.values())
    assert report.rows_in == report.accepted + lost
    rejects = (
        pd.read_parquet(report.rejects_file)
        if report.rejects_file.exists()
        else pd.DataFrame({"source_row": [], "reason": [], "kind": []})
    )
    assert len(rejects) == lost
    assert rejects["source_row"].is_unique
    assert rejects["reason"].value_counts().to_dict() == {**report.rejected, **report.set_aside}


T = "2020-05-01T10:00:00Z"


GOOD = [
    [T, "u1", "view", "A", "", "", "", "Coffee", "Grocery/Coffee"],
    ["2020-05-01T10:05:00Z", "u1", "buy", "A", "o1", "2", "3.5", "Coffee", "Grocery/Coffee"],
    ["2020-05-01T10:05:00Z", "u1", "buy", "B", "o1", "1", "1.0", "Milk", "Grocery/Milk"],
    ["2020-05-02T10:05:00Z", "u1", "buy", "A", "o2", "-1", "3.5", "", ""],
]
