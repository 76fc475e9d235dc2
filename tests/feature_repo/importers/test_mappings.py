"""Mappings: known data sets, zones, and what is wrong in one."""

import gzip
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from shop_table import (
    GOOD,
    MAPPING,
    T,
    archived,
    check_conservation,
    data_folder,
    import_shop,
    write_shop,
)

from feature_repo import importers
from feature_repo.errors import InvalidSourceError


def test_api_form_ndjson(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    good = {"type": "search", "user_id": "u", "time": T, "query": "tea"}
    lines = [
        orjson.dumps({**good, "id": "1"}), orjson.dumps(good), orjson.dumps({**good, "id": "1"}),
        b"{", b"[]", orjson.dumps({"type": "search", "user_id": "u", "id": "2"}),
        orjson.dumps({**good, "id": "3", "nonsense": 1}),
        orjson.dumps({**good, "id": "4", "consent": {"Profiling": False}}),
    ]  # fmt: skip
    path.write_bytes(b"\n".join(lines))
    report = importers.run("file", home=tmp_path / "home", path=path)
    check_conservation(report)
    assert report.accepted == 2
    assert report.rejected == {
        "malformed_json": 2, "duplicate": 1, "unreadable_time": 1, "invalid_event": 2
    }  # fmt: skip
    assert importers.run("file", home=tmp_path / "home", path=path).events_new == 0


def test_retailrocket(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(
        "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,257597,view,355908,\n"
        "1433221334000,257597,addtocart,355908,\n"
        "1433221399999,257597,transaction,355908,4000\n"
        "1433221399999,257597,transaction,15335,4000\n"
    )
    report = importers.run("retailrocket", home=tmp_path / "home", path=path)
    check_conservation(report)
    events = archived(tmp_path / "home")
    assert [e.type for e in events] == ["view_item", "add_to_cart", "purchase"]
    assert events[0].time_ms == 1433221332117
    assert [i.item_id for i in events[2].items] == ["355908", "15335"]


def test_taobao(tmp_path: Path) -> None:
    path = tmp_path / "UserBehavior.csv"
    path.write_text(
        "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,fav,1511561733\n"
        "1,2576651,149192,cart,1511572885\n1,3830808,4181361,buy,1511593493\n"
    )
    report = importers.run("taobao", home=tmp_path / "home", path=path)
    check_conservation(report)
    events = archived(tmp_path / "home")
    assert [e.type for e in events] == [
        "view_item", "add_to_wishlist", "add_to_cart", "purchase"
    ]  # fmt: skip
    assert events[0].time_ms == 1511544070_000
    assert events[3].items[0].category == "4181361"


def test_time_zone_of_a_file(tmp_path: Path) -> None:
    rows = [["2020-07-01 12:00:00", *GOOD[0][1:]], ["2020-07-01T12:00:00Z", *GOOD[0][1:]]]
    table, mapping = write_shop(tmp_path, rows)
    mapping.write_text(MAPPING + "time_zone: Europe/Berlin\n")
    import_shop(tmp_path / "home", table, mapping)
    assert [e.time_ms for e in archived(tmp_path / "home")] == [1593597600000, 1593604800000]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (None, "does not exist"),
        ("source: [", "not YAML in line"),
        ("source: shop", "/columns"),
        (MAPPING + "colour: red", "/colour"),
        (MAPPING.replace("what, item_id", "what, itm"), "/columns/itm"),
        (MAPPING.replace("item_id: item,", "item_id: thing,"), "lacks the column 'thing'"),
        (MAPPING + "time_zone: Mars/Base", "IANA"),
        (MAPPING + "default_type: view_item", "either columns.type or default_type"),
        (MAPPING + "time_unit: s", "can be read as a time"),
        (MAPPING + "encoding: klingon", "no encoding of text"),
        (MAPPING + "encoding: base64", "no encoding of text"),
        (MAPPING + "encoding: utf-16", "is not utf-16 "),
        (MAPPING + "thousands: .", "decimal and thousands are both"),
        (MAPPING + 'delimiter: "\\n"', "/delimiter"),
    ],
)
def test_bad_mapping_is_one_line(tmp_path: Path, body: str | None, words: str) -> None:
    table, mapping = write_shop(tmp_path, GOOD)
    mapping.unlink()
    if body is not None:
        mapping.write_text(body)
    with pytest.raises(InvalidSourceError) as raised:
        import_shop(tmp_path / "home", table, mapping)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("source", "name", "content", "words"),
    [
        ("amazon", None, None, "completejourney, retailrocket, taobao, file"),
        ("retailrocket", None, None, "needs the path"),
        ("retailrocket", "none.csv", None, "does not exist"),
        ("retailrocket", "empty.csv", b"", "empty"),
        ("taobao", "zip.csv", gzip.compress(b"a" * 99, mtime=0)[:-9], "cannot be read as csv"),
        ("retailrocket", "wide.csv", "a,b".encode("utf-16"), "set encoding: utf-16"),
        ("file", "x.parquet", b"PAR1", "--mapping"),
        ("retailrocket", "other.csv", b"a,b\n1,2\n", "it has: a, b"),
        ("file", "x.csv", b"a,b\n1,2\n", "--mapping"),
        ("completejourney", "x.csv", b"", "is missing"),
    ],
)
def test_bad_source_is_one_line(
    tmp_path: Path, source: str, name: str | None, content: bytes | None, words: str
) -> None:
    path = None if name is None else tmp_path / name
    if path is not None and content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidSourceError) as raised:
        importers.run(source, home=tmp_path / "home", path=path)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


RETAIL = """
source: online_retail
columns: {time: timestamp, user_id: user_id, type: event_type, item_id: item_id,
          order_id: order_id, quantity: quantity, price: price, title: description,
          is_merchandise: is_product}
types: {purchase: purchase, return: refund}
time_zone: Europe/London
negative_quantity: refund
currency: GBP
"""


def test_online_retail_through_a_mapping(tmp_path: Path) -> None:
    table = pq.read_table(data_folder() / "online_retail.parquet").slice(0, 60_000)
    pq.write_table(table, tmp_path / "retail.parquet")
    (tmp_path / "retail.yaml").write_text(RETAIL)
    report = import_shop(tmp_path / "home", tmp_path / "retail.parquet", tmp_path / "retail.yaml")
    check_conservation(report)
    assert report.rows_in == 60_000
    assert report.accepted > 35_000
    assert report.users > 900


def test_the_example_of_the_docs_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    (tmp_path / "shop.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    (tmp_path / "shop.csv").write_text(page.split("```text\n")[1].split("```")[0])
    report = import_shop(tmp_path / "home", tmp_path / "shop.csv", tmp_path / "shop.yaml")
    assert (report.rows_in, report.accepted) == (3, 3)
    view, order = archived(tmp_path / "home")
    assert (view.type, order.type, len(order.items)) == ("view_item", "purchase", 2)
    assert order.time_ms - view.time_ms == 120_000
