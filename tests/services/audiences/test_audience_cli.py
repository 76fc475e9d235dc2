"""Audiences on the command line, over a real store and a small archive."""

from pathlib import Path

import orjson
import pytest
import redis
from typer.testing import CliRunner, Result

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import EventRecord
from services.audiences.definitions import KEY
from services.commands.cli import app

BUYERS = "rule: {event: {type: purchase}}\nconsent: []\n"


@pytest.fixture
def home(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two users, one of whom buys in 2017; returns the state folder."""
    with redis.Redis.from_url(redis_url) as store:
        store.delete(KEY)
    monkeypatch.setenv("PORTRAIT_HOME", str(tmp_path))
    monkeypatch.setenv("PORTRAIT_REDIS_URL", redis_url)
    monkeypatch.setenv("COLUMNS", "200")
    pseudonyms = Pseudonyms.load(tmp_path)
    entries = [
        (LogPosition.imported(time_ms), EventRecord(
            id=kind, type=kind, user=pseudonyms.of_user(user), time_ms=time_ms, received_ms=time_ms,
        ))
        for kind, user, time_ms in (
            ("purchase", "7", 1_500_000_000_000), ("view_item", "8", 1_400_000_000_000),
        )
    ]  # fmt: skip
    Archive(tmp_path / "archive" / "events").append("import", entries)
    (tmp_path / "buyers.yaml").write_text(BUYERS)
    return tmp_path


def portrait(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["audience", *arguments])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def last(done: Result) -> dict[str, object]:
    found: dict[str, object] = orjson.loads(done.stdout.splitlines()[-1])
    return found


def test_a_definition_from_a_file_is_kept_counted_and_listed(home: Path) -> None:
    buyer = Pseudonyms.load(home).of_user("7")
    assert last(portrait("put", "buyers", str(home / "buyers.yaml"), "--json"))["new"] is True
    assert last(portrait("put", "buyers", str(home / "buyers.yaml"), "--json"))["new"] is False
    assert last(portrait("preview", "buyers", "--json"))["count"] == 1
    assert last(portrait("preview", "buyers", "--as-of", "2016-01-01", "--json"))["count"] == 0
    assert portrait("members", "buyers").stdout.split() == [buyer]
    portrait("export", "buyers", "--out", str(home / "out.csv"))
    assert (home / "out.csv").read_text().split() == ["user", buyer]
    assert last(portrait("show", "buyers"))["plan"] == {
        "mode": "realtime", "reasons": [], "time_passes": False,
    }  # fmt: skip
    overlap = last(portrait("overlap", "buyers", "ready-lifecycle-visitor", "--json"))
    assert overlap["counts"] == {"buyers": 1, "ready-lifecycle-visitor": 1}
    assert portrait("list", "--json").stdout.count('"buyers"') == 1
    portrait("delete", "buyers")
    portrait("delete", "buyers", code=2)


def test_a_definition_that_is_not_stored_is_counted(home: Path) -> None:
    found = last(portrait("preview", "--file", str(home / "buyers.yaml"), "--json"))
    assert (found["count"], found["users"]) == (1, 2)
    assert portrait("list", "--json").stdout.strip().endswith("[]")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rule: {event: {type: Buy}}\nconsent: []", "/rule/event/type"),
        ("rule: [", "line 1, column 8"),
        ("rule: {audience: nobody}\nconsent: []", "no audience is named nobody"),
    ],
)
def test_a_wrong_definition_is_one_line_and_exit_code_2(home: Path, text: str, said: str) -> None:
    (home / "wrong.yaml").write_text(text)
    for command in (["put", "wrong"], ["preview", "--file"]):
        done = portrait(*command, str(home / "wrong.yaml"), code=2)
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    portrait("show", "wrong", code=2)


def test_a_file_that_is_not_there(home: Path) -> None:
    assert "absent.yaml" in portrait("put", "x", str(home / "absent.yaml"), code=2).stderr
    assert "--file" in portrait("preview", code=2).stderr


def test_the_schema_is_printed(home: Path) -> None:
    assert "properties" in last(portrait("schema"))
