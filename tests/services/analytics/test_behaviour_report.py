"""The behaviour report: a page, pictures and tables, with nothing of fewer than twenty people."""

import csv
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from services.analytics.tables import TABLES
from services.commands.cli import app
from tests.feature_repo import analytics_shop as shop


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    shop.write(home, shop.table(), features=True)
    return home


def test_every_part_has_a_picture_and_a_table_that_say_as_of_when(
    home: Path, tmp_path: Path
) -> None:
    asked = ["report", "--home", str(home), "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(app, [*asked, "--as-of", "2024-07-20"])
    assert done.exit_code == 0, (done.output, done.exception)
    found = orjson.loads(done.stdout.splitlines()[-1])
    assert found["as_of"] == "2024-07-20T00:00:00.000Z"
    names = {"behaviour.html"} | {f"{n}.{kind}" for n in TABLES for kind in ("svg", "csv")}
    assert set(found["files"]) == names == {path.name for path in (tmp_path / "out").iterdir()}
    page = (tmp_path / "out" / "behaviour.html").read_text()
    assert page.count("<svg") == page.count("As of 2024-07-20T00:00:00.000Z.") == len(TABLES)
    assert "<script" not in page
    assert 'src="http' not in page
    assert "view_item" in page
    for name in TABLES:
        with (tmp_path / "out" / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows
        assert {row["as_of"] for row in rows} == {found["as_of"]}
        for row in rows:
            for column in ("users", "users_at_least", "cohort_users"):
                assert row.get(column, "") == "" or int(row[column]) >= 20


@pytest.mark.parametrize(
    ("more", "said", "code"),
    [
        (["--steps", "purchase"], "steps: 1 steps", 2),
        (["--steps", "Buy,purchase"], "'Buy'", 2),
        (["--as-of", "then"], "then", 2),
    ],
)
def test_a_wrong_option_is_one_line_and_writes_nothing(
    home: Path, tmp_path: Path, more: list[str], said: str, code: int
) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["report", "--home", str(home), "--out", str(out), *more])
    assert done.exit_code == code
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not out.exists()


def test_without_events_there_is_no_report(tmp_path: Path) -> None:
    asked = ["report", "--home", str(tmp_path / "home"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 2
    assert "portrait import" in done.stderr
    assert not (tmp_path / "out").exists()
