"""Models on the command line, with the store alone."""

from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
import small_model
from typer.testing import CliRunner, Result

from services.audit.machine import find_actor
from services.audit.writer import LOG
from services.commands.cli import app


@pytest.fixture(autouse=True)
def home(
    tmp_path: Path, redis_url: str, store_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> Path:
    assert store_client.dbsize() == 0
    monkeypatch.setenv("PORTRAIT_HOME", str(tmp_path))
    monkeypatch.setenv("PORTRAIT_REDIS_URL", redis_url)
    monkeypatch.setenv("COLUMNS", "200")
    for seed, name in enumerate(("one", "two")):
        small_model.write(tmp_path / "models" / name, seed)
    return tmp_path


def portrait(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["model", *arguments])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def last(done: Result) -> Any:
    return orjson.loads(done.stdout.splitlines()[-1])


def test_a_model_goes_from_list_to_production_and_back(store_client: redis.Redis) -> None:
    assert last(portrait("list", "--json"))["production"] is None
    assert last(portrait("promote", "one", "--json"))["production"] == "one"
    assert last(portrait("promote", "two", "--json")) == {
        "production": "two", "shadow": None, "candidate": None, "previous": "one",
    }  # fmt: skip
    assert last(portrait("shadow", "one", "--json"))["shadow"] == "one"
    assert last(portrait("rollback", "--json"))["production"] == "one"
    listed = last(portrait("list", "--changes", "2", "--json"))
    assert [(each["by"], each["action"], each["name"]) for each in listed["changes"]] == [
        (find_actor(), "rollback", "one"), (find_actor(), "promote", "one"),
    ]  # fmt: skip
    entries = [orjson.loads(e[b"entries"])[0] for _, e in store_client.xrange(LOG)]
    assert [(each["operation"], each["target"]) for each in entries] == [
        ("portrait model promote", "one"), ("portrait model promote", "two"),
        ("portrait model shadow", "one"), ("portrait model rollback", "one"),
    ]  # fmt: skip
    assert listed["models"][0]["aliases"] == ["production", "shadow"]
    portrait("remove", "two")
    assert [each["name"] for each in last(portrait("list", "--json"))["models"]] == ["one"]


def test_a_card_is_markdown_or_json() -> None:
    assert portrait("show", "one").stdout.startswith("# Model one\n")
    assert last(portrait("show", "one", "--json"))["name"] == "one"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["show", "nobody"], 2, "no model 'nobody'"),
        (["promote", "nobody"], 2, "no model 'nobody'"),
        (["promote", "../one"], 2, "no model"),
        (["promote", "one", "--alias", "best"], 2, "best"),
        (["rollback"], 2, "nothing to go back to"),
        (["remove", "nobody"], 2, "no model"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], code: int, words: str) -> None:
    assert words in portrait(*arguments, code=code).stderr
