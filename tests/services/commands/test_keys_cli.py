"""API keys on the command line, over a real store."""

from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from typer.testing import CliRunner, Result

from services.commands.cli import app
from services.http.api_keys import KEYS, digest
from services.http.key_records import REVOKED


@pytest.fixture(autouse=True)
def home(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with redis.Redis.from_url(redis_url) as store:
        store.delete(KEYS, REVOKED)
    monkeypatch.setenv("PORTRAIT_HOME", str(tmp_path))
    monkeypatch.setenv("PORTRAIT_REDIS_URL", redis_url)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def portrait(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["keys", *arguments])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def last(done: Result) -> Any:
    return orjson.loads(done.stdout.splitlines()[-1])


def test_a_key_is_made_listed_rotated_and_revoked(redis_url: str) -> None:
    key = portrait("create", "web", "write", "--origin", "https://shop.example").stdout.splitlines()
    with redis.Redis.from_url(redis_url) as store:
        assert store.hexists(KEYS, digest(key[-1]))
    listed = last(portrait("list", "--json"))
    assert [(each["name"], each["state"], each["origins"]) for each in listed] == [
        ("web", "active", ["https://shop.example"])
    ]
    assert key[-1] not in portrait("list", "--json").output
    made = last(portrait("rotate", listed[0]["id"], "--overlap-s", "60", "--json"))
    assert made["key"] != key[-1]
    portrait("revoke", made["id"])
    states = {each["id"]: each["state"] for each in last(portrait("list", "--json"))}
    assert states == {listed[0]["id"]: "rotated", made["id"]: "revoked"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "web", "root"), "'write', 'analyst', 'server' or 'admin'"),
        (("create", "web", "write", "--origin", "shop"), "'shop' is no origin"),
        (("create", "web", "write", "--expires-at", "2020-01-01"), "has passed"),
        (("revoke", "0123456789ab"), "no key has the id 0123456789ab"),
        (("rotate", "0123456789ab"), "no key has the id 0123456789ab"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: tuple[str, ...], said: str) -> None:
    stderr = portrait(*arguments, code=2).stderr
    assert said in stderr
    assert len(stderr.strip().splitlines()) == 1
