"""The docs name only tests that exist."""

import re
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def named(page: Path) -> list[tuple[str, str]]:
    return TEST.findall(page.read_text())


def test_file_names_of_tests_are_unique() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    files = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    missing = [
        f"{file}::{test}"
        for file, test in named(page)
        if not re.search(rf"^(?:async )?def {test}\(", files.get(file, ""), re.MULTILINE)
    ]
    assert missing == []


def test_every_row_of_faults_and_invariants_names_a_test() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text().partition("## Chaos")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    without = [row for row in rows if not TEST.search(row) and not row.endswith("| tests |")]
    assert len(rows) > 30
    assert without == []


def test_the_table_of_bounds_is_what_the_code_says() -> None:
    text = (ROOT / "docs" / "security.md").read_text().partition("## Bounds of every input")[2]
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| [^|]+ \| `([\w.]+)` \|$", text, re.MULTILINE)
    assert len(rows) > 25
    for most, name in rows:
        room, _, rest = name.rpartition(".")
        if room.endswith(".ASKING"):
            room, rest = "services.runtime.workers", f"ASKING.{rest}"
        found = attrgetter(rest)(import_module(room))
        shown = f"{found:,}" if isinstance(found, int) else str(found).removesuffix(".0")
        assert most == shown, name
