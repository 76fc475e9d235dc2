"""Orders: currencies, parts, refunds, ids of yesterday, and which column is at fault."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shop_table import T, archived, check_conservation

from feature_repo import importers
from feature_repo.archive.currency import Money
from feature_repo.events.schema import EventRecord
from feature_repo.importers import ImportReport
from feature_repo.importers.assemble import MAX_ID
from feature_repo.user_profile import explicit

ORDER = "source: s\ndefault_type: purchase\ncolumns: {time: t, user_id: u, item_id: i, order_id: o"


def load(
    folder: Path, table: str | Path, mapping: str, **more: Any
) -> tuple[ImportReport, list[EventRecord]]:
    path = folder / "table.csv" if isinstance(table, str) else table
    if isinstance(table, str):
        path.write_text(table)
    (folder / "map.yaml").write_text(mapping)
    home = folder / "home"
    report = importers.run("file", home=home, path=path, mapping=folder / "map.yaml", **more)
    check_conservation(report)
    return report, archived(home)


# Currencies

lines = st.lists(
    st.tuples(st.sampled_from(["EUR", "USD", "GBP", ""]), st.integers(1, 9)), min_size=1, max_size=5
)


@settings(max_examples=10)
@given(orders=st.lists(lines, min_size=1, max_size=4))
def test_each_line_counts_in_its_own_currency_else_its_orders(
    tmp_path_factory: pytest.TempPathFactory, orders: list[list[tuple[str, int]]]
) -> None:
    folder = tmp_path_factory.mktemp("money")
    rows = [
        f"{T},u,I{n},o{order},{price},{currency}"
        for order, told in enumerate(orders)
        for n, (currency, price) in enumerate(told)
    ]
    _, events = load(
        folder, "\n".join(["t,u,i,o,p,c", *rows]), f"{ORDER}, price: p, currency: c}}",
        money=Money("EUR", {"USD": 0.5}),
    )  # fmt: skip
    rates = {"EUR": 1.0, "USD": 0.5, "GBP": None, "": 1.0}
    for event in events:
        told = orders[int(str(event.order_id)[1:])]
        first = told[0][0]
        wanted = [(rates[currency or first], price) for currency, price in told]
        assert [item.price for item in event.items] == [
            None if rate is None else price * rate for rate, price in wanted
        ]


def test_a_currency_that_only_a_later_line_names_is_set_aside(tmp_path: Path) -> None:
    table = f"t,u,i,o,p,c\n{T},u,A,o1,7,\n{T},u,B,o1,100,USD\n"
    mapping = f"{ORDER}, price: p, currency: c}}"
    report, (event,) = load(tmp_path, table, mapping, money=Money("EUR"))
    assert ([item.price for item in event.items], report.amounts_set_aside) == ([7, None], 1)


# Orders of more lines than an event may have


@pytest.mark.parametrize("length", [1, 100, 128])
@pytest.mark.parametrize("stated", ["", ", id: o"])
def test_parts_of_a_long_order_sort_in_order(tmp_path: Path, length: int, stated: str) -> None:
    rows = [f"{T},{user},I{n},{'o' * length},10" for user in "uv" for n in range(201)]
    if stated:  # one id is one event
        rows = rows[:201]
    table = "\n".join(["t,u,i,o,p", *rows])
    report, events = load(tmp_path, table, f"{ORDER}, price: p{stated}}}")
    assert (report.accepted, len(events)) == (len(rows), len(rows) // 201 * 2)
    assert max(len(event.id) for event in events) <= MAX_ID
    for user in {event.user for event in events}:
        own = sorted((event for event in events if event.user == user), key=lambda e: e.id)
        assert [len(event.items) for event in own] == [200, 1]
        assert explicit.fold(own).orders.spend == 2010 * 1000


@pytest.mark.parametrize("value", [999.0, 5.0, 0.0])
@pytest.mark.parametrize("price", ["", "2"])
@pytest.mark.parametrize("count", [201, 450])
def test_the_value_of_a_long_order_is_counted_once(
    tmp_path: Path, value: float, price: str, count: int
) -> None:
    rows = [f"{T},u,I{n},o1,{price},{value}" for n in range(count)]
    table = "\n".join(["t,u,i,o,p,v", *rows])
    _, events = load(tmp_path, table, f"{ORDER}, price: p, value: v}}")
    assert sum(event.value or 0 for event in events) == value
    assert explicit.fold(sorted(events, key=lambda e: e.id)).orders.spend == value * 1000


# Refunds


@pytest.mark.parametrize(("kind", "rows"), [("purchase", "-2,-50"), ("refund", "1,-50")])
def test_a_refund_may_be_written_with_a_minus(tmp_path: Path, kind: str, rows: str) -> None:
    table = f"t,u,a,i,o,q,v\n{T},u,purchase,A,o1,2,50\n{T},u,{kind},A,o1,{rows}\n"
    mapping = ORDER.replace("default_type: purchase", "negative_quantity: refund")
    report, events = load(tmp_path, table, f"{mapping}, type: a, quantity: q, value: v}}")
    assert report.rejected == {}
    assert sorted((event.type, event.value) for event in events) == [
        ("purchase", 50), ("refund", 50),
    ]  # fmt: skip


# Ids are those of the version before

SEEN = "source: c\ndefault_type: page_seen\ncolumns: {time: t, user_id: u"
WORDS = {
    "NULL": (0, "2d027fbbbcc0dc35"), "null": (1, "0c6eb97c5c21187c"),
    "nan": (2, "7f1912769e755f3e"), "NaN": (3, "eceda0c30c7a11c6"), "None": (4, "e568aaf77fff408b"),
    "": (8, "df8fd725e608a1d8"), "NA": (5, "c6044ec48418e442"), "N/A": (6, "3c8ee7d32fc31e2a"),
    "<NA>": (7, "052b8543e36c6161"), "x": (9, "8a20139f74edcb90"),
    " y\u00a0": (10, "fb10be044010879e"),
}  # fmt: skip
"""What the version before made of a session and a query of that word and a value."""


def test_words_for_nothing_make_the_ids_they_always_made(tmp_path: Path) -> None:
    rows = [f"{T},u,{word},{word},{number}" for word, (number, _) in WORDS.items()]
    mapping = f"{SEEN}, session_id: s, query: q, value: v}}"
    _, events = load(tmp_path, "\n".join(["t,u,s,q,v", *rows]), mapping)
    assert {event.id.split("-")[2] for event in events} == {made for _, made in WORDS.values()}
    assert {event.query for event in events} == {None, "x", "y"}


@pytest.mark.parametrize("ending", ["ndjson", "parquet"])
def test_booleans_make_the_ids_they_always_made(tmp_path: Path, ending: str) -> None:
    told = [(True, True, "nan"), (False, False, None), (None, True, "NULL")]
    rows = [{"t": T, "u": "u", "s": session, "b": flag, "w": word} for session, flag, word in told]
    path = tmp_path / f"table.{ending}"
    if ending == "ndjson":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    _, events = load(tmp_path, path, f"{SEEN}, session_id: s, query: b, channel: w}}")
    assert {event.id.split("-")[2] for event in events} == {
        "d3f2baa7874220e0", "500ed44946d5a2cd", "557d177eb9403591",
    }  # fmt: skip
    assert {event.session_id for event in events} == {"True", "False", None}


# Which column is at fault

FAULTS = [
    ("null,A,1,0,1", "missing_user", "an"), ("undefined,A,1,0,1", "nobody", "an"),
    ("a,A,1,-3,1", "negative_price", "disc"), ("a,A,-1,-3,1", "negative_price", "p"),
    ("a,A,1,0,-3", "negative_value", "v"),
]  # fmt: skip


@pytest.mark.parametrize("second", ["", "user_id: u, "])
def test_the_column_at_fault_is_named(tmp_path: Path, second: str) -> None:
    rows = [f"{T},,{row}" for row, _, _ in FAULTS]
    mapping = (
        f"source: s\ndefault_type: view_item\ncolumns: {{time: t, {second}anonymous_id: an, "
        "item_id: i, price: p, discount: disc, value: v}"
    )
    report, _ = load(tmp_path, "\n".join(["t,u,an,i,p,disc,v", *rows]), mapping)
    found = pd.read_parquet(report.rejects_file)[["reason", "column"]]
    wanted = [(reason, column) for _, reason, column in FAULTS]
    if second:
        wanted[0] = ("missing_user", "u")
    assert list(found.itertuples(index=False, name=None)) == wanted


def test_any_white_space_around_a_cell_is_none_of_it(tmp_path: Path) -> None:
    table = f"t,u,i\n{T}\u00a0,u1\u2003,\u3000A\n"
    mapping = "source: s\ndefault_type: view_item\ncolumns: {time: t, user_id: u, item_id: i}"
    _, (event,) = load(tmp_path, table, mapping)
    assert [item.item_id for item in event.items] == ["A"]
