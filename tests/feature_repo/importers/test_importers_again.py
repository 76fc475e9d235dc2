"""Importing again: what is known, by source and id; ids made here; what a failure leaves behind."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop_table import GOOD, archived, check_conservation, import_shop, write_shop

from feature_repo import importers
from feature_repo.archive.catalogue import Item, complete_item, load_catalogue, write_catalogue
from feature_repo.archive.currency import Money
from feature_repo.errors import InvalidSourceError
from feature_repo.features.snapshots import _stage
from feature_repo.importers.assemble import MAX_ID, bound_id


def _import_lines(home: Path, *named: tuple[str | None, str]) -> importers.ImportReport:
    file = home.parent / "events.ndjson"
    lines = list[bytes]()
    for source, event_id in named:
        body: dict[str, Any] = {"id": event_id, "type": "view_item", "user_id": "u"}
        body |= {"time": "2020-05-01T10:00:00Z", "items": [{"item_id": "A"}]}
        lines.append(orjson.dumps(body if source is None else {**body, "source": source}))
    file.write_bytes(b"\n".join(lines))
    report = importers.run("file", home=home, path=file)
    check_conservation(report)
    return report


def test_known_is_an_event_of_the_same_source_and_id(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = _import_lines(home, ("web", "1"), ("app", "1"), (None, "1"), ("app", "1"))
    assert (first.events_new, dict(first.rejected)) == (3, {"duplicate": 1})
    again = _import_lines(home, ("web", "1"), ("app", "1"), (None, "1"))
    assert (again.events, again.events_new) == (3, 0)
    longer = _import_lines(home, ("web", "1"), ("app", "1"), (None, "1"), ("web", "2"))
    assert longer.events_new == 1
    assert sorted((e.source, e.id) for e in archived(home)) == [
        ("app", "1"), ("file", "1"), ("web", "1"), ("web", "2"),
    ]  # fmt: skip


def test_parts_of_the_same_ids_and_other_sources_are_two(tmp_path: Path) -> None:
    home = tmp_path / "home"
    _import_lines(home, ("web", "1"))
    _import_lines(home, ("app", "1"))
    assert len(archived(home)) == 2


@pytest.mark.parametrize("length", [100, 110, 128])
def test_an_order_id_may_be_as_long_as_the_schema_says(tmp_path: Path, length: int) -> None:
    rows = [[*r[:4], r[4] and r[4] * (length // 2), *r[5:]] for r in GOOD]
    table, mapping = write_shop(tmp_path, rows)
    home = tmp_path / "home"
    report = import_shop(home, table, mapping)
    assert (report.events, dict(report.rejected)) == (3, {})
    assert {len(e.order_id) for e in archived(home) if e.order_id} == {length}
    assert import_shop(home, table, mapping).events_new == 0


def test_a_long_order_with_a_long_id_of_its_own_is_split(tmp_path: Path) -> None:
    mapping = tmp_path / "m.yaml"
    mapping.write_text(
        "source: shop\ndefault_type: purchase\n"
        "columns: {time: t, user_id: u, id: e, order_id: e, item_id: i}\n"
    )
    table = tmp_path / "t.csv"
    lines = [f"2020-05-01T10:00:00Z,u1,{'e' * 128},{n}" for n in range(450)]
    table.write_text("\n".join(["t,u,e,i", *lines]))
    report = import_shop(tmp_path / "home", table, mapping)
    assert (report.events, dict(report.rejected)) == (3, {})


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_bounded_id_fits_and_tells_apart(one: str, other: str) -> None:
    assert len(bound_id(one)) <= MAX_ID
    assert len(one) > MAX_ID or bound_id(one) == one
    assert (bound_id(one) == bound_id(other)) == (one == other)


@pytest.mark.parametrize("price", ["", "9.5"])
def test_a_later_file_takes_nothing_out_of_the_catalogue(tmp_path: Path, price: str) -> None:
    home = tmp_path / "home"
    table, mapping = write_shop(tmp_path, GOOD)
    import_shop(home, table, mapping)
    later = ["2020-05-03T10:00:00Z", "u2", "view", "A", "", "", price, "Beans", ""]
    table, mapping = write_shop(tmp_path, [later, [*later[:3], "C", *later[4:]]])
    import_shop(home, table.rename(tmp_path / "shop2.csv"), mapping)
    found = load_catalogue(home)
    assert (found["A"].title, found["A"].category) == ("Beans", "Grocery/Coffee")
    assert (found["A"].price, found["A"].currency) == (float(price or 3.5), "EUR")
    assert found["C"].category is None
    categories = {i.category for e in archived(home) for i in e.items if i.item_id == "A"}
    assert categories == {"Grocery/Coffee"}


def test_a_price_and_its_currency_are_one_statement() -> None:
    old = Item(item_id="A", price=2, currency="USD", available_from=1)
    assert complete_item(Item(item_id="A", currency="EUR"), old).currency == "USD"
    assert complete_item(Item(item_id="A", price=3, currency="EUR"), old).price == 3
    assert complete_item(Item(item_id="A", price=3), old).currency is None
    assert complete_item(Item(item_id="A"), old) == old


def _import_table(home: Path, name: str, rows: str, columns: str, **more: Any) -> dict[str, Item]:
    table, mapping = home.parent / f"{name}.csv", home.parent / "map.yaml"
    table.write_text(rows)
    mapping.write_text(
        f"source: s\ndefault_type: view_item\n"
        f"columns: {{time: t, user_id: u, item_id: i, title: n{columns}}}\n"
    )
    importers.run("file", home=home, path=table, mapping=mapping, **more)
    return load_catalogue(home)


def test_a_file_that_says_nothing_of_merchandise_changes_nothing_about_it(tmp_path: Path) -> None:
    home, row = tmp_path / "home", "2024-01-01,u,FUEL,Fuel"
    told = _import_table(home, "a", f"t,u,i,n,m\n{row},no\n{row},NULL\n", ", is_merchandise: m")
    assert not told["FUEL"].is_merchandise
    told = _import_table(home, "b", f"t,u,i,n\n{row}\n2024-01-01,u,TEA,Tea\n", "")
    assert [told[name].is_merchandise for name in ("FUEL", "TEA")] == [False, True]
    told = _import_table(home, "c", f"t,u,i,n,m\n{row},yes\n", ", is_merchandise: m")
    assert told["FUEL"].is_merchandise


@pytest.mark.parametrize("flag", ["in_stock", "is_merchandise"])
def test_a_part_keeps_what_was_said_and_what_was_not(tmp_path: Path, flag: str) -> None:
    folder = tmp_path / "archive" / "items"
    folder.mkdir(parents=True)
    write_catalogue(folder / "a.parquet", [Item.model_validate({"item_id": "A", flag: False})])
    write_catalogue(folder / "b.parquet", [Item(item_id="A", title="Tea")])
    (item,) = load_catalogue(tmp_path).values()
    assert (getattr(item, flag), item.title) == (False, "Tea")
    write_catalogue(folder / "c.parquet", [Item.model_validate({"item_id": "A", flag: True})])
    assert getattr(load_catalogue(tmp_path)["A"], flag)


def test_a_price_in_the_catalogue_is_in_the_currency_of_its_line(tmp_path: Path) -> None:
    rows = [f"2024-01-0{n + 1},u,X,Tea,{price},{code}" for n, (price, code) in enumerate(
        [(5, "usd"), (9, "USD"), (700, "JPY"), (7, "USD"), (1, "U$"), (-1, "EUR")])]  # fmt: skip
    told = _import_table(
        tmp_path / "home", "a", "\n".join(["t,u,i,n,p,c", *rows]), ", price: p, currency: c",
        money=Money("EUR", {"USD": 0.9}),
    )  # fmt: skip
    assert (told["X"].price, told["X"].currency) == (7, "USD")
    told = _import_table(tmp_path / "home", "b", "t,u,i,n,p\n2024-01-01,u,X,Tea,4\n", ", price: p")
    assert (told["X"].price, told["X"].currency) == (4, None)


def test_an_event_is_completed_with_what_its_file_has_said_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_repo.importers.tabular.CHUNK_ROWS", 2)
    rows = ["u,A,G/X", "u,A,", "u,B,G/Y", "u,B,", "u,A,"]
    table = "\n".join(["t,u,i,n,c", *(f"2024-01-0{n + 1},{row[:3]},N,{row[4:]}" for n, row in
                                     enumerate(rows))])  # fmt: skip
    _import_table(tmp_path / "home", "a", table, ", category: c")
    found = [event.items[0].category for event in archived(tmp_path / "home")]
    assert found == ["G/X", "G/X", "G/Y", "G/Y", "G/X"]


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_snapshots_and_catalogue_agree_on_the_part(tmp_path: Path, names: tuple[str, str]) -> None:
    home = tmp_path / "home"
    (home / "archive" / "items").mkdir(parents=True)
    for name, category in zip(names, ("One", "Two"), strict=True):
        items = [Item(item_id="A", category=category), Item(item_id="B", brand=name)]
        write_catalogue(home / "archive" / "items" / f"{name}.parquet", items)
    write_catalogue(home / "archive" / "items" / "c.parquet", [Item(item_id="A", brand="X")])
    with duckdb.connect() as connection:
        _stage(connection, home, UNTIL)
        rows = connection.execute("SELECT * FROM catalogue").fetchall()
    told = load_catalogue(home)
    assert sorted(rows) == [(i, told[i].category, told[i].brand) for i in ("A", "B")]
    assert told["A"].category == ("Two" if names == ("a", "b") else "One")


UNTIL = datetime(2020, 5, 2, tzinfo=UTC)


@pytest.mark.parametrize("rest", ["", "folder", "file/rest.ndjson"])
def test_a_rest_file_that_cannot_be_is_refused_before_anything(tmp_path: Path, rest: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    place = tmp_path / rest if rest else Path()
    with pytest.raises(InvalidSourceError, match="--rest"):
        import_shop(tmp_path / "home", *write_shop(tmp_path, GOOD), until=UNTIL, rest=place)
    assert not (tmp_path / "home").exists()


def test_a_rest_file_that_fails_leaves_no_raw_ids_and_no_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "elsewhere" / "rest.ndjson"
    replace = Path.replace

    def across(self: Path, target: Path) -> Path:
        if target.parent == place.parent:
            raise OSError(18, "Invalid cross-device link")
        return replace(self, target)

    def full(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:20])
        raise OSError(28, "No space left on device", os.fspath(target))

    monkeypatch.setattr(Path, "replace", across)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        import_shop(tmp_path / "home", *write_shop(tmp_path, GOOD), until=UNTIL, rest=place)
    assert list(place.parent.iterdir()) == []
    assert not archived(tmp_path / "home")
    assert not list((tmp_path / "home").rglob("*.ndjson"))
