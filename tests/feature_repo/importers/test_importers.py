"""Laws of importing: every row is accounted for, and importing again adds nothing."""

import re
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shop_table import GOOD, T, archived, check_conservation, import_shop, write_shop

from feature_repo import importers
from feature_repo.archive.catalogue import load_catalogue
from feature_repo.errors import InvalidSourceError
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import MAX_EVENT_BYTES, Event
from feature_repo.importers.lines import rules
from feature_repo.importers.mapping import NULL_WORDS, Columns, Mapping
from feature_repo.importers.rejects import COLUMNS
from feature_repo.importers.report import MENDS, SET_ASIDE


def test_file_becomes_events(tmp_path: Path) -> None:
    table, mapping = write_shop(tmp_path, GOOD)
    report = import_shop(tmp_path / "home", table, mapping)
    check_conservation(report)
    view, order, back = archived(tmp_path / "home")
    assert [e.type for e in (view, order, back)] == ["view_item", "purchase", "refund"]
    assert [(i.item_id, i.quantity, i.price) for i in order.items] == [("A", 2, 3.5), ("B", 1, 1)]
    assert (order.order_id, order.value, order.currency) == ("o1", 8.0, "EUR")
    assert order.user == Pseudonyms.load(tmp_path / "home").of_user("u1")
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
    "nobody": [T, "Undefined", "view", "A", "", "", "", "", ""],
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
    assert row["column"] == AT_FAULT.get(reason)
    assert row["kind"] == ("set_aside" if reason == "other_type" else "rejected")


def test_rejects_hold_rows_only_where_that_is_asked_for(tmp_path: Path) -> None:
    rows = [*GOOD, [T, "someone-by-name", "gaze", "A", "", "", "", "", ""]]
    table, mapping = write_shop(tmp_path, rows)
    plain = import_shop(tmp_path / "home", table, mapping).rejects_file
    assert pd.read_parquet(plain).columns.tolist() == list(COLUMNS)
    assert b"someone-by-name" not in plain.read_bytes()
    whole = import_shop(tmp_path / "home", table, mapping, keep_raw=True).rejects_file
    (row,) = pd.read_parquet(whole)["row"]
    assert orjson.loads(row)["who"] == "someone-by-name"
    rest = tmp_path / "rest.ndjson"
    until = datetime(2020, 1, 1, tzinfo=UTC)
    import_shop(tmp_path / "home", table, mapping, until=until, rest=rest)
    assert [oct(path.stat().st_mode)[-3:] for path in (whole, rest)] == ["600", "600"]


AT_FAULT = {
    "missing_user": "who", "nobody": "who", "unreadable_time": "when", "impossible_time": "when",
    "unknown_type": "what", "other_type": "what", "missing_item": "item",
    "missing_order": "order", "unreadable_number": "n", "quantity_not_positive": "n",
    "negative_price": "price",
}  # fmt: skip


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


@settings(max_examples=15)
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


def test_a_row_with_a_carriage_return_alone_is_refused(tmp_path: Path) -> None:
    rows = [[T, "u1", "view", item, "", "1", "1.5", "", ""] for item in ("A1", "B1", "C1", "D1")]
    table, mapping = write_shop(tmp_path, rows)
    table.write_bytes(table.read_bytes() + b",,,,\r 0\n")
    report = import_shop(tmp_path / "home", table, mapping)
    check_conservation(report)
    assert (report.rows_in, report.rejected) == (5, {"malformed_csv": 1})


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


def test_the_docs_name_every_reason() -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    code = "".join(path.read_text() for path in Path(importers.__file__).parent.glob("*.py"))
    refusals = set(re.findall(r'Refused\("(\w+)"', code)) | set(MENDS)
    assert "nested_value" in refusals
    assert [r for r in {*rules(0), *SET_ASIDE, *BAD, *refusals} if f"`{r}`" not in page] == []


def test_the_docs_name_every_key_of_a_mapping() -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    table = page.partition("| key | meaning |")[2].partition("\n\n")[0]
    keys = {*Mapping.model_fields, *Columns.model_fields} - {"columns"}
    missing = [k for k in keys if f"`{k}`" not in table and f"columns.{k}`" not in table]
    assert [k for k in missing if f"`.{k}`" not in table] == []
    assert [word for word in NULL_WORDS if f"`{word}`" not in table] == []


def test_two_users_at_the_same_moment_are_two_events(tmp_path: Path) -> None:
    rows = [GOOD[0], [T, "u2", *GOOD[0][2:]]]
    report = import_shop(tmp_path / "home", *write_shop(tmp_path, rows))
    assert (report.accepted, report.events, report.users) == (2, 2, 2)
    assert len({e.user for e in archived(tmp_path / "home")}) == 2
