"""Tables in, events out: no identifier and no number changes on the way, whatever the format."""

import csv
import gzip
import io
import itertools
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shop_table import archived, check_conservation

from feature_repo import importers
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.importers import ImportReport
from feature_repo.importers.arrow_rows import _cells as arrow_cells
from feature_repo.importers.cells import ids, numbers
from feature_repo.importers.times import times_ms

T = "2026-03-01T10:00:00Z"
COLUMNS = "time: t, user_id: u, type: a, item_id: i"
HEADER = "t,u,a,i\n"


def load(
    path: Path, *, columns: str = COLUMNS, more: str = "", **options: Any
) -> tuple[ImportReport, Any]:
    mapping = path.parent / "map.yaml"
    mapping.write_text(f"source: x\ncolumns: {{{columns}}}\n{more}")
    home = path.parent / "home"
    report = importers.run("file", home=home, path=path, mapping=mapping, **options)
    check_conservation(report)
    return report, archived(home)


def text(folder: Path, content: str | bytes, name: str = "x.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def view(user: str, item: str = "A", time: str = T) -> str:
    return f"{time},{user},view_item,{item}\n"


def parquet(folder: Path, ids: pa.Array, times: Any = None) -> Path:
    """Write one view by user ``u`` of every item id."""
    path, rows = folder / "x.parquet", len(ids)
    moments = [T] * rows if times is None else times
    pq.write_table(pa.table({"t": moments, "u": ["u"] * rows, "a": ["view_item"] * rows,
                             "i": ids}), path)  # fmt: skip
    return path


def items(events: Any) -> list[str]:
    return sorted(item.item_id for event in events for item in event.items)


# Identifiers, by type

LONG = 738529527931269425


@pytest.mark.parametrize(
    ("ids", "read"),
    [
        (pa.array([LONG, LONG + 1, None]), [str(LONG), str(LONG + 1)]),
        (pa.array([2**64 - 1, None], pa.uint64()), [str(2**64 - 1)]),
        (pa.array([b"a", b"\xff", None]), ["a"]),
        (pa.array([b"ab", b"cd"], pa.binary(2)), ["ab", "cd"]),
        (pa.array([b"ab", b"\xff"], pa.binary_view()), ["ab"]),
        (pa.array(["a", "ü"], pa.large_string()), ["a", "ü"]),
        (pa.array(["a", "ü"], pa.string_view()), ["a", "ü"]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a"]),
        (pa.array([LONG, None]).dictionary_encode(), [str(LONG)]),
        (pa.array([Decimal(LONG), None], pa.decimal128(20, 0)), [str(LONG)]),
        (pa.array([Decimal("1.50")], pa.decimal128(20, 2)), ["1.50"]),
        (pa.array([7.0, 7.5, float("nan"), 2.0**53 - 1, 2.0**53]), ["7", "7.5", str(2**53 - 1)]),
        (pa.array([7.0, 2.0**24], pa.float32()), ["7"]),
        (pa.array([7.0, 2.0**11], pa.float16()), ["7"]),
        (pa.array([date(2026, 3, 1), None]), ["2026-03-01"]),
        (pa.array([[1], None, []]), []),
        (pa.array([{"x": 1}, None]), None),
        (pa.array([True, None]), ["True"]),
        (pa.nulls(2), []),
        (pa.array([0, 2**62]).view(pa.timestamp("us")), ["1970-01-01 00:00:00.000000"]),
        (pa.array([0, 2**62]).cast(pa.timestamp("ms", "UTC")), ["1970-01-01 00:00:00.000Z"]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_every_arrow_type_is_exact_or_refused(
    tmp_path: Path, ids: pa.Array, read: list[str] | None
) -> None:
    path = parquet(tmp_path, ids)
    if read is None:  # its fields are columns of their own
        with pytest.raises(importers.InvalidSourceError, match=r"lacks .* it has: .*i\.x"):
            load(path)
        read, columns = ["1"], COLUMNS.replace("item_id: i", "item_id: i.x")
    else:
        columns = COLUMNS
    report, events = load(path, columns=columns)
    assert sorted(set(items(events))) == sorted(read)
    assert report.rows_in == len(ids)
    assert set(report.rejected) <= {
        "missing_item", "not_text", "float_id", "nested_value", "duplicate"
    }  # fmt: skip


def test_string_columns_that_are_no_utf8_lose_only_those_rows(tmp_path: Path) -> None:
    offsets = pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0")
    odd = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"a\xff")])
    report, events = load(parquet(tmp_path, odd))
    assert (items(events), report.rejected) == (["a"], {"not_text": 1})


def test_long_order_ids_beside_a_row_without_one(tmp_path: Path) -> None:
    rows = [
        {"t": T, "u": "u", "a": "purchase", "i": "A", "o": 576461413038785752},
        {"t": T, "u": "u", "a": "purchase", "i": "B", "o": 576461413038785753},
        {"t": T, "u": "u", "a": "purchase", "i": "C", "o": 10**30},
        {"t": T, "u": "u", "a": "view_item", "i": "D"},
    ]
    path = text(tmp_path, "\n".join(map(json.dumps, rows)), "x.ndjson")
    _, events = load(path, columns=COLUMNS + ", order_id: o")
    orders = {e.order_id for e in events}
    assert orders == {"576461413038785752", "576461413038785753", str(10**30), None}


# Rows that cannot be read

LINE = json.dumps({"t": T, "u": "u", "a": "view_item", "i": "A"}).encode()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"t": "2026', "malformed_json"),
        (b"[1]", "malformed_json"),
        (b"7", "malformed_json"),
        (b'{"t": NaN}', "malformed_json"),
        (b"[" * 100_000, "malformed_json"),
        (LINE.replace(b'"A"', b'["A"]'), "nested_value"),
        (LINE.replace(b'"A"', b'{"A": 1}'), "nested_value"),
        (LINE.replace(b'"A"', b'"\\ud800"'), "not_text"),
        (LINE.replace(b'"A"', b'"\xff"'), "not_text"),
        (LINE.replace(b'"A"', b'"A\\u0000"'), "control_character"),
        (LINE.replace(b'"A"', b"null"), "missing_item"),
        (LINE.replace(b'"A"', b"1e30"), "float_id"),
    ],
)
def test_a_line_of_json_is_refused_alone(tmp_path: Path, line: bytes, reason: str) -> None:
    path = text(tmp_path, b"\xef\xbb\xbf" + LINE + b"\n" + line + b"\n\n", "x.ndjson")
    report, events = load(path)
    assert (items(events), report.rejected, report.rows_in) == (["A"], {reason: 1}, 2)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"T,u,view_item,A,more\n", "too_many_fields"),
        (b"T,u,view_item\n", "too_few_fields"),
        (b" \n", "too_few_fields"),
        (b"T,u,view_item,A\rB\n", "malformed_csv"),
        (b'T,u,view_item,"A\n', "malformed_csv"),
        (b'T,u,view_item,"A"B\n', "malformed_csv"),
        (b"T,u,view_item,A\0B\n", "control_character"),
        (b"T,u,view_item,\xe4\n", "not_text"),
        (b"T,u,view_item,123.0\n", "float_id"),
        (b"T,u,view_item,7.38529527931269E+17\n", "float_id"),
        (b"T,u,view_item," + b"A" * 200_000 + b"\n", "malformed_csv"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_line_of_csv_is_refused_alone(
    tmp_path: Path, line: bytes, reason: str, place: int
) -> None:
    good = [view("u", "B").encode(), view("u", '"C, ""c"""').encode()]
    good.insert(place, line.replace(b"T", T.encode()))
    report, events = load(text(tmp_path, HEADER.encode() + b"".join(good)))
    assert items(events) == ["B", 'C, "c"']
    assert (report.rejected, report.rows_in) == ({reason: 1}, 3)
    assert pd.read_parquet(report.rejects_file)["source_row"].tolist() == [place]


def test_returns_alone_end_the_lines_of_a_file_that_has_no_others(tmp_path: Path) -> None:
    content = (HEADER + view("u", "A") + view("u", "B")).replace("\n", "\r")
    assert items(load(text(tmp_path, content))[1]) == ["A", "B"]


# Words for nothing, floats that were ids

NOTHING = ["", "NULL", "null", "\\N", "nan", "NaN", "None", "NA", "<NA>"]


def test_words_for_nothing_are_no_user(tmp_path: Path) -> None:
    path = text(tmp_path, HEADER + "".join(view(word) for word in NOTHING))
    report, _ = load(path)
    assert report.rejected == {"missing_user": len(NOTHING)}
    report, _ = load(path, more="null_words: ['-']")
    assert report.rejected["missing_user"] == 1  # others are words for nobody


@pytest.mark.parametrize(
    ("rule", "users"), [("reject", ["123"]), ("whole", ["123"]), ("keep", ["123", "123.0"])]
)
def test_ids_that_were_floats(tmp_path: Path, rule: str, users: list[str]) -> None:
    path = text(tmp_path, HEADER + view("123", "A") + view("123.0", "B"))
    report, events = load(path, more=f"float_ids: {rule}")
    pseudonyms = Pseudonyms.load(tmp_path / "home")
    assert {e.user for e in events} == {pseudonyms.of_user(user) for user in users}
    assert report.rejected == ({"float_id": 1} if rule == "reject" else {})


def test_a_whole_id_is_taken_only_where_a_float_is_exact() -> None:
    cells = ["9007199254740991.0", "9007199254740992.0", "1.5E+10", "12e5", "7.50", "v1.0", None,
             "9" * 5000 + ".0"]  # fmt: skip
    made, lost = ids(cells, "whole")
    assert made == ["9007199254740991", None, None, "12e5", "7.50", "v1.0", None, None]
    assert lost.tolist() == [False, True, True, False, False, False, False, True]


def test_rows_of_one_id_make_one_event_only_where_they_agree(tmp_path: Path) -> None:
    rows = [
        "1,{T},u1,view_item,A", "1,{T},u1,view_item,B", "1,{T},u2,view_item,C",
        "1,{T},u1,add_to_cart,D", "1,2026-02-01T00:00:00Z,u1,view_item,E",
        "2,{T},u1,view_item,", "2,{T},u2,view_item,F", ",{T},u3,view_item,G",
    ]  # fmt: skip
    path = text(tmp_path, ("id," + HEADER + "\n".join(rows)).replace("{T}", T))
    report, events = load(path, columns=COLUMNS + ", id: id")
    found = sorted((e.id, items([e])) for e in events if e.id in {"1", "2"})
    assert found == [("1", ["A", "B"]), ("2", ["F"])]
    assert report.rejected == {"duplicate": 3, "missing_item": 1}
    assert len(events) == 3


def test_a_mark_of_our_own_in_an_id_stays_as_it_is(tmp_path: Path) -> None:
    path = text(tmp_path, "id," + HEADER + "{user}," + view("u").replace("view_item", "share"))
    assert [e.id for e in load(path, columns=COLUMNS + ", id: id")[1]] == ["{user}"]


def test_a_user_and_an_anonymous_id_of_one_name_are_two(tmp_path: Path) -> None:
    path = text(tmp_path, f"v,{HEADER}n,{T},,view_item,A\nm,{T},,view_item,A\n,{view('n')}")
    _, events = load(path, columns=COLUMNS + ", anonymous_id: v")
    assert len({e.user for e in events}) == len(events) == 3


# Files: encodings, compression, folders, numbers, currencies


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp1252", "utf-16", "utf-8-sig"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = text(tmp_path, (HEADER + view("u", "Käse")).encode(encoding))
    _, events = load(path, more=f"encoding: {encoding}")
    assert items(events) == ["Käse"]


@pytest.mark.parametrize(
    ("cell", "more", "value"),
    [
        ("1.234,50", "decimal: ','\nthousands: '.'", 1234.5),
        ("12 345,5", "decimal: ','\nthousands: ' '", 12345.5),
        ("1,234.5", "thousands: ','", 1234.5),
        ("3,5", "decimal: ','", 3.5),
        ("3,5", "", None),
        ("1.5", "decimal: ','", None),
        ("1.23,5", "decimal: ','\nthousands: '.'", None),
    ],
)
def test_decimal_comma(tmp_path: Path, cell: str, more: str, value: float | None) -> None:
    content = f't,u,a,i,p\n{view("u").strip()},"{cell}"\n'
    report, events = load(text(tmp_path, content), columns=COLUMNS + ", price: p", more=more)
    assert [e.items[0].price for e in events] == ([] if value is None else [value])
    assert report.rejected == ({"unreadable_number": 1} if value is None else {})


def test_decimals_are_of_csv(tmp_path: Path) -> None:
    with pytest.raises(importers.InvalidSourceError, match="decimal and thousands are of csv"):
        load(text(tmp_path, LINE, "x.ndjson"), more="decimal: ','")


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".zst", zstd)])
def test_compressed_files(tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]) -> None:
    path = text(tmp_path, pack((HEADER + view("u")).encode()), f"x.csv{ending}")
    assert items(load(path)[1]) == ["A"]
    path = text(tmp_path, pack(LINE.replace(b'"A"', b'"B"')), f"x.ndjson{ending}")
    assert items(load(path)[1]) == ["A", "B"]


def test_a_folder_is_the_table_of_its_parts(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    columns = "t,u,a,i,o\n"
    order = f"{T},u,purchase,"
    text(folder, columns + order + "A,o1\n", "part-0.csv")
    text(folder, gzip.compress((columns + order + "B,o1\nx\n").encode()), "part-1.csv.gz")
    pq.write_table(pa.table({"t": [T], "u": ["u"], "a": ["purchase"], "i": ["C"], "o": ["o1"]}),
                   folder / "part-2.snappy.parquet")  # fmt: skip
    text(folder, b"", "_SUCCESS")
    report, events = load(folder, columns=COLUMNS + ", order_id: o")
    assert [items(events), len(events), report.rows_in] == [["A", "B", "C"], 1, 4]
    assert pd.read_parquet(report.rejects_file)["source_row"].tolist() == [2]


def test_currencies_are_upper_case(tmp_path: Path) -> None:
    path = text(tmp_path, f"c,{HEADER}eur,{view('u')}")
    assert [e.currency for e in load(path, columns=COLUMNS + ", currency: c")[1]] == ["EUR"]
    other = tmp_path / "other"
    other.mkdir()
    path = text(other, HEADER + view("u"))
    assert [e.currency for e in load(path, more="currency: usd")[1]] == ["USD"]


# Times

NOON = 1_585_915_200_000  # 2020-04-03T12:00:00Z, 14:00 in Berlin


@pytest.mark.parametrize(
    "cell",
    ["2020-04-03T12:00:00Z", "2020-04-03t12:00:00z", "2020-04-03 12:00:00 UTC",
     "2020-04-03 12:00:00.000000 UTC", "2020-04-03 13:00:00+01", "2020-04-03 13:00:00 +0100",
     "2020-04-03T07:30:00-04:30", "2020-04-03 14:00:00", "2020-04-03T14:00", "20200403T140000",
     "2020-04-03 14:00:00.000000999", "1585915200", "1585915200000", "1585915200000000",
     "1585915200000000000", "1585915200.0", "1.5859152e9"],
)  # fmt: skip
def test_each_time_is_read_by_itself(cell: str) -> None:
    others = ["2020-01-01 00:00:00+02", "x", None, "2020-01-01 00:00:00", "7"]
    assert times_ms([*others, cell], "auto", "Europe/Berlin")[5] == NOON


@pytest.mark.parametrize(
    ("unit", "cell"), [("us", "1585915200000999"), ("ns", "1585915200000000001"),
                       ("s", "1585915200"), ("ms", "1585915200000")]
)  # fmt: skip
def test_units_of_epochs(unit: str, cell: str) -> None:
    assert times_ms([cell, "2020-04-03T12:00:00Z"], unit, "UTC").tolist() == [NOON, pd.NA]


@pytest.mark.parametrize("unit", ["auto", "s", "ms", "us", "ns"])
@pytest.mark.parametrize("cell", ["1e99", "-1e99", "9" * 30, "0." + "1" * 30, "1e-99", "9" * 99])
def test_numbers_that_are_no_times(unit: str, cell: str) -> None:
    assert times_ms([cell], unit, "UTC").tolist()[0] in {0, 111, pd.NA}


def test_times_of_arrow(tmp_path: Path) -> None:
    moment = datetime.fromtimestamp(NOON / 1000, UTC)
    kinds = [pa.timestamp("s", "Europe/Berlin"), pa.timestamp("ms", "UTC"),
             pa.timestamp("us", "+05:30"), pa.timestamp("ns", "America/New_York")]  # fmt: skip
    for number, kind in enumerate(kinds):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = parquet(folder, pa.array(["A", "B"]), pa.array([moment, None], kind))
        report, events = load(path)
        assert [e.time_ms for e in events] == [NOON]
        assert report.rejected == {"unreadable_time": 1}


forms = st.sampled_from(["{}", "{}Z", "{} UTC", "{}+01", "{}-0530", "{}+05:45", "{} +0100"])


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.datetimes(), forms) | st.text(max_size=12), max_size=12),
    st.sampled_from(["auto", "iso", "ms"]),
    st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe", "UTC"]),
)
def test_a_time_does_not_depend_on_the_others(
    drawn: list[tuple[datetime, str] | str], unit: str, zone: str
) -> None:
    cells = [d if isinstance(d, str) else d[1].format(d[0].isoformat(" ")) for d in drawn]
    alone = [times_ms([cell], unit, zone).tolist()[0] for cell in cells]
    assert times_ms(cells, unit, zone).tolist() == alone
    for cell, read in zip(drawn, alone, strict=True):
        if unit != "ms" and not isinstance(cell, str) and cell[1] in {"{}Z", "{} UTC"}:
            assert read == (cell[0].replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // (
                datetime.resolution * 1000
            )


# Whole tables

id_cells = st.one_of(
    st.none(),
    st.integers(0, 10**6).map(str),
    st.integers(2**53 - 2, 2**53 + 2).map(str),
    st.integers(-(2**63), 2**70).map(str),
    st.from_regex(r"0[0-9]{3,8}", fullmatch=True),
    st.from_regex(r"[0-9]{1,4}(\.0|\.5|e[0-9]|E\+1[0-9])", fullmatch=True),
    st.text(max_size=8),
    st.sampled_from(["", " ", "NULL", "nan", "{user}", "a\x00b", "a\x00c", "é", "é", '"', ","]),
)
amounts = st.none() | st.integers(0, 2**60) | st.floats(0, 1e9) | st.sampled_from(["x", "-"])


def as_csv(rows: list[dict[str, Any]]) -> tuple[str, bytes]:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([list(rows[0]), *(["" if c is None else c for c in r.values()] for r in rows)])
    return "x.csv", out.getvalue().encode("utf-8", "surrogatepass")


def as_ndjson(rows: list[dict[str, Any]]) -> tuple[str, bytes]:
    def told(row: dict[str, Any]) -> dict[str, Any]:
        whole = row["u"] is not None and row["u"].isascii() and row["u"].isdigit()
        return row | {"u": int(row["u"])} if whole and str(int(row["u"])) == row["u"] else row

    return "x.ndjson", "\n".join(json.dumps(told(row)) for row in rows).encode()


def as_parquet(rows: list[dict[str, Any]]) -> tuple[str, bytes]:
    columns = {n: [None if r[n] is None else str(r[n]).encode("utf-8", "surrogatepass")
                   for r in rows] for n in rows[0]}  # fmt: skip
    sink = io.BytesIO()
    pq.write_table(pa.table({n: pa.array(c, pa.binary()) for n, c in columns.items()}), sink)
    return "x.parquet", sink.getvalue()


@settings(max_examples=20)
@given(
    rows=st.lists(st.tuples(id_cells, id_cells, amounts), min_size=1, max_size=8),
    write=st.sampled_from([as_csv, as_ndjson, as_parquet]),
)
def test_an_id_is_exact_or_its_row_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str | None, str | None, Any]],
    write: Callable[[list[dict[str, Any]]], tuple[str, bytes]],
) -> None:
    """Row n happens at second n, so that an event tells which row it was made of."""
    folder = tmp_path_factory.mktemp("table")
    start = 1_585_915_200
    table = [
        {"t": str(start + n), "u": u, "a": "view_item", "i": i, "p": p}
        for n, (u, i, p) in enumerate([("first", "first", None), *rows])
    ]
    name, content = write(table)
    report, events = load(text(folder, content, name), columns=COLUMNS + ", price: p")
    pseudonyms = Pseudonyms.load(folder / "home")
    assert report.accepted == len(events) > 0
    for event in events:
        row = table[event.time_ms // 1000 - start]
        assert event.user == pseudonyms.of_user(row["u"].strip())
        assert items([event]) == [row["i"].strip()]
        assert event.items[0].price == (None if row["p"] is None else float(row["p"]))
    refused = pd.read_parquet(report.rejects_file)
    assert refused["reason"].notna().all()
    if write is as_csv and any(set("\r\n") & set(f"{u}{i}") for u, i, _ in rows):
        return  # an id of two lines is two rows that are refused: those behind it count on
    fine = {"".join(p) for p in itertools.product("abc", "123")}
    for row, reason in zip(refused["source_row"], refused["reason"], strict=True):
        told = table[row]
        assert not ({told["u"], told["i"]} <= fine and told["p"] is None), reason


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_exact(value: float) -> None:
    read, broken = numbers([repr(value)])
    assert (read.tolist(), broken.tolist()) == ([value], [False])


@settings(max_examples=10)
@given(content=st.binary(max_size=80), name=st.sampled_from(["x.csv", "x.ndjson", "x.csv.gz"]))
def test_any_bytes_are_rows_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    start = (HEADER + view("u")).encode() if name.startswith("x.csv") else LINE + b"\n"
    refused = None
    try:
        report, _ = load(text(folder, start + content, name), keep_raw=True)
    except importers.InvalidSourceError as error:
        refused = str(error)
    if refused is not None:
        assert "\n" not in refused
        return
    assert report.accepted >= 1
    for row in pd.read_parquet(report.rejects_file).get("row", []):
        assert row is None or isinstance(row, str)


def test_raw_rows_are_json(tmp_path: Path) -> None:
    path = text(tmp_path, HEADER + view("u") + "a,b\n" + view("v", "").strip() + ",w\n")
    rows = pd.read_parquet(load(path, keep_raw=True)[0].rejects_file)["row"]
    assert [orjson.loads(row) for row in rows] == [
        {"t": "a", "u": "b"}, {"t": T, "u": "v", "a": "view_item", "i": "", "…": ["w"]},
    ]  # fmt: skip


arrow_types = st.sampled_from(
    [pa.int8(), pa.uint16(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(),
     pa.binary(), pa.large_binary(), pa.string(), pa.timestamp("s"), pa.timestamp("ns", "UTC"),
     pa.timestamp("us", "America/New_York"), pa.date32(), pa.date64(), pa.time64("ns"),
     pa.duration("ms"), pa.bool_(), pa.list_(pa.int8()), pa.binary(8)]
)  # fmt: skip


@settings(max_examples=200)
@given(kind=arrow_types, words=st.lists(st.none() | st.binary(min_size=8, max_size=8), max_size=4))
def test_no_bits_of_a_column_end_the_reading(kind: pa.DataType, words: list[bytes | None]) -> None:
    plain = pa.array(words, pa.binary(8))
    if pa.types.is_list(kind):
        column = pa.array([None if w is None else list(w[:2]) for w in words], pa.list_(pa.uint8()))
    elif kind == pa.binary(8) or not pa.types.is_primitive(kind):
        column = plain if kind == pa.binary(8) else plain.cast(pa.binary())
    elif pa.types.is_boolean(kind):
        column = pa.array([None if w is None else w[0] > 9 for w in words])
    else:
        wide = pa.int64() if kind.bit_width == 64 else getattr(pa, f"int{kind.bit_width}")()
        size = kind.bit_width // 8
        numbers_ = [None if w is None else int.from_bytes(w[:size], signed=True) for w in words]
        column = pa.array(numbers_, wide)
        column = column.cast(kind) if pa.types.is_timestamp(kind) else column.view(kind)
    cells = arrow_cells(column, "x")
    assert [cell is None for cell in cells] == [
        w is None or (pa.types.is_floating(kind) and value != value)
        for w, value in zip(words, _values(column), strict=True)
    ]
    if pa.types.is_integer(kind):
        assert [None if c is None else int(c) for c in cells] == column.to_pylist()


def _values(column: pa.Array) -> list[Any]:
    return column.to_pylist() if pa.types.is_floating(column.type) else [None] * len(column)
