"""Laws of importing: every row is accounted for, and importing again adds nothing."""

import gzip
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo import importers
from feature_repo.archive import Archive
from feature_repo.catalogue import load_catalogue
from feature_repo.entity import Tenant
from feature_repo.errors import InvalidSourceError
from feature_repo.events import MAX_EVENT_BYTES, Event, EventRecord
from feature_repo.importers import ImportReport
from feature_repo.importers.lines import rules
from feature_repo.importers.report import SET_ASIDE

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


def test_file_becomes_events(tmp_path: Path) -> None:
    table, mapping = write_shop(tmp_path, GOOD)
    report = import_shop(tmp_path / "home", table, mapping)
    check_conservation(report)
    view, order, back = archived(tmp_path / "home")
    assert [e.type for e in (view, order, back)] == ["view_item", "purchase", "refund"]
    assert [(i.item_id, i.quantity, i.price) for i in order.items] == [("A", 2, 3.5), ("B", 1, 1)]
    assert (order.order_id, order.value, order.currency) == ("o1", 8.0, "EUR")
    assert order.user == Tenant.load(tmp_path / "home").entity("u1")
    assert order.received_ms == order.time_ms == 1_588_327_500_000
    assert back.items[0].quantity == 1
    assert back.items[0].category == "Grocery/Coffee"  # filled from the catalogue
    items = load_catalogue(tmp_path / "home")
    assert items["A"].title == "Coffee"
    assert items["A"].price == 3.5


def test_no_raw_user_id_reaches_the_archive(tmp_path: Path) -> None:
    rows = [[r[0], "someone-by-name", *r[2:]] for r in GOOD]
    report = import_shop(tmp_path / "home", *write_shop(tmp_path, rows))
    assert report.events == 3
    for record in archived(tmp_path / "home"):
        assert b"someone-by-name" not in record.encode()
        assert "{" not in record.id


def test_importing_again_adds_nothing(tmp_path: Path) -> None:
    table, mapping = write_shop(tmp_path, GOOD)
    home = tmp_path / "home"
    first = import_shop(home, table, mapping)
    before = archived(home)
    second = import_shop(home, table, mapping)
    assert (first.events_new, second.events_new) == (3, 0)
    assert (second.accepted, second.events) == (first.accepted, first.events)
    assert archived(home) == before


def test_second_file_adds_only_what_is_new(tmp_path: Path) -> None:
    table, mapping = write_shop(tmp_path, GOOD[:1])
    home = tmp_path / "home"
    import_shop(home, table, mapping)
    table, mapping = write_shop(tmp_path, GOOD)
    assert import_shop(home, table, mapping).events_new == 2
    assert len(archived(home)) == 3


BAD = {
    "missing_user": ["2020-05-01T10:00:00Z", "", "view", "A", "", "", "", "", ""],
    "unreadable_time": ["yesterday", "u1", "view", "A", "", "", "", "", ""],
    "impossible_time": ["2150-05-01T10:00:00Z", "u1", "view", "A", "", "", "", "", ""],
    "unknown_type": [T, "u1", "gaze", "A", "", "", "", "", ""],
    "other_type": [T, "u1", "ping", "A", "", "", "", "", ""],
    "missing_item": [T, "u1", "view", "", "", "", "", "", ""],
    "missing_order": [T, "u1", "buy", "A", "", "1", "1", "", ""],
    "unreadable_number": [T, "u1", "buy", "A", "o9", "many", "1", "", ""],
    "quantity_not_positive": [T, "u1", "buy", "A", "o9", "0", "1", "", ""],
    "negative_price": [T, "u1", "buy", "A", "o9", "1", "-1", "", ""],
    "duplicate": GOOD[0],
    "invalid_event": [T, "u" * 200, "view", "A", "", "", "", "", ""],
}


@pytest.mark.parametrize("reason", sorted(BAD))
def test_reason_of_a_bad_row(tmp_path: Path, reason: str) -> None:
    report = import_shop(tmp_path / "home", *write_shop(tmp_path, [*GOOD, BAD[reason]]))
    check_conservation(report)
    assert {**report.rejected, **report.set_aside} == {reason: 1}
    row = pd.read_parquet(report.rejects_file).iloc[0]
    assert row["source_row"] == len(GOOD)
    assert row["what"] == BAD[reason][2]
    assert row["kind"] == ("set_aside" if reason == "other_type" else "rejected")


cells = st.one_of(
    st.sampled_from(
        ["", "0", "-1", "2", "nan", "inf", "1e400", "u1", "A", "o1", "view", "buy", "ping", T,
         "1588327500", "1588327500000", "99999999999999999999", "2020-02-30", "{user}", "a/b"]
    ),
    st.text(max_size=6),
)  # fmt: skip
likely = st.tuples(
    st.sampled_from([T, "1588327500", "2020-05-03T00:00:00+02:00", "x"]),
    st.sampled_from(["u1", "u2", ""]),
    st.sampled_from(["view", "buy", "ping", "other"]),
    st.sampled_from(["A", "B", ""]),
    st.sampled_from(["o1", "o2", ""]),
    st.sampled_from(["1", "0", "-2", "", "x"]),
    st.sampled_from(["1.5", "-1", "", "nan"]),
    st.just(""),
    st.just(""),
)
row = st.one_of(likely.map(list), st.lists(cells, min_size=9, max_size=9))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(row, min_size=1, max_size=25))
def test_conservation_on_dirty_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("dirty")
    time_known = [[T, "u0", "view", "A", "", "", "", "", ""], *rows]
    table, mapping = write_shop(folder, time_known)
    report = import_shop(folder / "home", table, mapping)
    check_conservation(report)
    events = archived(folder / "home")
    assert len({e.id for e in events}) == len(events) == report.events
    assert sum(len(e.items) for e in events) == report.accepted
    assert import_shop(folder / "home", table, mapping).events_new == 0


def test_a_carriage_return_alone_ends_a_line(tmp_path: Path) -> None:
    """A file on which pandas' C parser overflows its buffer."""
    rows = [[T, "u1", "view", item, "", "1", "1.5", "", ""] for item in ("A1", "B1", "C1", "D1")]
    table, mapping = write_shop(tmp_path, rows)
    table.write_bytes(table.read_bytes() + b",,,,,,,,\r 0\n")
    report = import_shop(tmp_path / "home", table, mapping)
    check_conservation(report)
    assert (report.rows_in, report.accepted) == (6, 4)


def test_until_holds_back_the_rest(tmp_path: Path) -> None:
    table, mapping = write_shop(tmp_path, GOOD)
    home, rest = tmp_path / "home", tmp_path / "out" / "rest.ndjson"
    until = datetime(2020, 5, 2, tzinfo=UTC)
    report = import_shop(home, table, mapping, until=until, rest=rest)
    check_conservation(report)
    assert (report.events, report.events_held, report.rows_held) == (2, 1, 1)
    (line,) = rest.read_bytes().splitlines()
    event = Event.model_validate(orjson.loads(line))
    assert (event.type, event.user_id, event.source) == ("refund", "u1", "shop")
    assert all(e.time_ms < until.timestamp() * 1000 for e in archived(home))
    # What was held and then arrives by import has the id that it was held under.
    assert import_shop(home, table, mapping).events_new == 1
    assert event.id in {e.id for e in archived(home)}


def test_long_order_is_split_and_fits_the_api(tmp_path: Path) -> None:
    rows = [[T, "u1", "buy", f"item-{n}", "o1", "1", "2", "", "C" * 120] for n in range(450)]
    table, mapping = write_shop(tmp_path, rows)
    report = import_shop(tmp_path / "home", table, mapping)
    events = archived(tmp_path / "home")
    assert sorted(len(e.items) for e in events) == [50, 200, 200]
    assert {e.order_id for e in events} == {"o1"}
    assert sorted(e.value or 0 for e in events) == [100, 400, 400]
    assert report.accepted == 450
    rest = tmp_path / "rest.ndjson"
    import_shop(
        tmp_path / "home2", table, mapping, until=datetime(2020, 1, 1, tzinfo=UTC), rest=rest
    )
    lines = rest.read_bytes().splitlines()
    assert len(lines) == 3
    assert all(len(line) <= MAX_EVENT_BYTES for line in lines)


def test_interrupted_import_leaves_nothing(tmp_path: Path) -> None:
    table, mapping = write_shop(tmp_path, GOOD)
    home = tmp_path / "home"

    def stop(done: int, total: int, what: str) -> None:
        if what == "publishing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_shop(home, table, mapping, progress=stop)
    assert archived(home) == []
    assert not list(home.rglob("*.parquet"))
    assert import_shop(home, table, mapping).events_new == 3


def test_one_import_at_a_time(tmp_path: Path) -> None:
    table, mapping = write_shop(tmp_path, GOOD)
    inner = list[str]()

    def again(done: int, total: int, what: str) -> None:
        try:
            import_shop(tmp_path / "home", table, mapping)
        except InvalidSourceError as error:
            inner.append(str(error))

    import_shop(tmp_path / "home", table, mapping, progress=again)
    assert inner
    assert "another import" in inner[0]


def test_api_form_ndjson(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    good = {"type": "search", "user_id": "u", "time": T, "query": "tea"}
    lines = [
        orjson.dumps({**good, "id": "1"}), orjson.dumps(good), orjson.dumps({**good, "id": "1"}),
        b"{", b"[]", orjson.dumps({"type": "search", "user_id": "u", "id": "2"}),
        orjson.dumps({**good, "id": "3", "nonsense": 1}),
    ]  # fmt: skip
    path.write_bytes(b"\n".join(lines))
    report = importers.run("file", home=tmp_path / "home", path=path)
    check_conservation(report)
    assert report.accepted == 2
    assert report.rejected == {
        "malformed_json": 2, "duplicate": 1, "unreadable_time": 1, "invalid_event": 1
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
        ("retailrocket", "zip.csv", gzip.compress(b"a,b", mtime=0), "cannot be read as csv"),
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
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    (tmp_path / "shop.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    (tmp_path / "shop.csv").write_text(page.split("```csv\n")[1].split("```")[0])
    report = import_shop(tmp_path / "home", tmp_path / "shop.csv", tmp_path / "shop.yaml")
    assert (report.rows_in, report.accepted) == (3, 3)
    view, order = archived(tmp_path / "home")
    assert (view.type, order.type, len(order.items)) == ("view_item", "purchase", 2)
    assert order.time_ms - view.time_ms == 120_000


def test_the_docs_name_every_reason() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    assert [r for r in {*rules(0), *SET_ASIDE, *BAD} if f"`{r}`" not in page] == []


def test_two_users_at_the_same_moment_are_two_events(tmp_path: Path) -> None:
    rows = [GOOD[0], [T, "u2", *GOOD[0][2:]]]
    report = import_shop(tmp_path / "home", *write_shop(tmp_path, rows))
    assert (report.accepted, report.events, report.users) == (2, 2, 2)
    assert len({e.user for e in archived(tmp_path / "home")}) == 2
