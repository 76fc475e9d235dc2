"""CSV that a spreadsheet may open: nobody's words become its formulas."""

import ast
import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.analytics.tables import write
from services.runtime.spreadsheet import write_rows

ROOT = Path(__file__).parents[3]


def written(cell: object) -> str:
    text = io.StringIO(newline="")
    write_rows(text, [[cell, "end"]])
    ((first, _),) = csv.reader(io.StringIO(text.getvalue(), newline=""))
    return first


@pytest.mark.parametrize(
    ("cell", "read"),
    [
        ('=HYPERLINK("http://x.example","y")', '\'=HYPERLINK("http://x.example","y")'),
        ("@SUM(A1)", "'@SUM(A1)"), ("+1+1", "'+1+1"), ("-1+1", "'-1+1"), ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"), ("-5", "-5"), ("+49301234", "+49301234"), (-5.5, "-5.5"), (None, ""),
        ("Tea", "Tea"), ("a=b", "a=b"), ("'x", "'x"),
    ],
)  # fmt: skip
def test_formulas_are_text_and_numbers_stay_numbers(cell: object, read: str) -> None:
    assert written(cell) == read


@given(st.text(min_size=1))
def test_no_cell_begins_a_formula(cell: str) -> None:
    read = written(cell)
    assert read.removeprefix("'") == cell.removeprefix("'")
    assert read[0] not in "=@\t\r\n＝＋－＠"
    if read[0] in "+-":
        float(read.replace(",", "."))  # nothing but a number


def test_a_category_of_a_report_is_defused(tmp_path: Path) -> None:
    pair = {"category": "=1+1", "other": "Tea", "interval": None}
    write(tmp_path / "a.csv", "affinities", {"as_of": "2026-01-01", "pairs": [pair]})
    (row,) = csv.DictReader((tmp_path / "a.csv").open(newline=""))
    assert row["category"] == "'=1+1"


def test_nothing_else_writes_csv() -> None:
    """`services.lab.bench` hands pairs of numbers to other programs."""
    found = {
        str(path.relative_to(ROOT))
        for room in ("services", "feature_repo", "training")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in {"writer", "DictWriter", "to_csv"})
    }
    assert found == {"services/runtime/spreadsheet.py", "services/lab/bench/peers.py"}
