"""Erasure on the command line, asked of a running service."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from api_calls import view
from gateway_thread import ADMIN_KEY, Api
from typer.testing import CliRunner, Result

from services.client import ApiError, Client
from services.commands.cli import app
from services.commands.running_service import running_service
from services.hosting import admin_key
from services.hosting.embedded import free_port
from services.update import updater


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Iterator[Api]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updater, "SETTLE_MS", 0)
        yield make_api(archive_every_s=0.1)


@pytest.fixture(autouse=True)
def folder(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORTRAIT_HOME", str(tmp_path))
    monkeypatch.setenv("PORTRAIT_PORT", str(api.port))
    monkeypatch.setenv("PORTRAIT_API_KEY", ADMIN_KEY)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def portrait(*arguments: str, code: int = 0, stdin: str = "") -> Result:
    done = CliRunner().invoke(app, ["privacy", *arguments], input=stdin)
    assert done.exit_code == code, (done.output, done.exception)
    return done


def last(done: Result) -> Any:
    return orjson.loads(done.stdout.splitlines()[-1])


def test_users_of_a_list_are_erased_and_the_receipt_is_shown(
    client: Client, user: str, folder: Path
) -> None:
    named = [f"{user}-{n}" for n in range(4)]
    for name in named:
        client.post_event(view(name), return_profile=True)
    (folder / "ids.txt").write_text(f"\ufeff{named[1]}\n\n {named[2]} \r\n{named[0]}\n")
    receipt = last(portrait("erase", named[0], "--file", "ids.txt", "--wait", "--json"))
    assert (receipt["status"], receipt["users"], receipt["suppress"]) == ("done", 3, True)
    assert {one["store"]: one["removed"] for one in receipt["stores"]}["rows"] == 3
    for name in named[:3]:
        with pytest.raises(ApiError, match="410"):
            client.profile(name)
    assert client.profile(named[3])["user_id"] == named[3]
    name = receipt["erasure_id"]
    assert last(portrait("erasures", name, "--json")) == receipt
    assert last(portrait("erasures", "--json"))["erasures"][0]["erasure_id"] == name


def test_who_may_begin_anew_begins_anew(client: Client, user: str) -> None:
    client.post_event(view(user, "old"), return_profile=True)
    begun = last(portrait("erase", "--file", "-", "--no-suppress", "--json", stdin=f"{user}\n"))
    assert begun["status"] == "pending"
    client.privacy.wait_erased(begun["erasure_id"])
    shown = client.post_event(view(user, "new"), return_profile=True)["profile"]
    assert shown["identity"]["events_by_type"] == {"view_item": 1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["erase"], "no ids to erase"),
        (["erase", "--file", "absent.txt"], "absent.txt cannot be read"),
        (["erase", "--file", "empty.txt"], "empty.txt holds none"),
        (["erase", "--file", "many.txt"], "5,001 ids are more than the 5,000"),
        (["erase", "u" * 129], "has 129 characters: 1 to 128"),
        (["erase", "one", ""], "'' has 0 characters"),
        (["erasures", "er-none"], "no erasure has this id"),
        (["erasures", "--url", "nonsense"], "no service answers at nonsense"),
    ],
)
def test_what_cannot_be_meant(arguments: list[str], said: str, client: Client) -> None:
    Path("empty.txt").write_text("\n \n")
    Path("many.txt").write_text("".join(f"one-{n}\n" for n in range(5_001)))
    before = client.privacy.erasures()
    line = portrait(*arguments, code=2).stderr.splitlines()
    assert (len(line), said in line[0]) == (1, True), line
    assert client.privacy.erasures() == before


def test_a_service_that_does_not_run_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    port = str(free_port())
    monkeypatch.setenv("PORTRAIT_PORT", port)
    for arguments in (["erase", "123"], ["erasures"]):
        lines = portrait(*arguments, code=2).stderr.splitlines()
        assert len(lines) == 1, lines
        assert f"127.0.0.1:{port}" in lines[0]
        assert "portrait serve" in lines[0]


def test_a_key_that_is_none_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAIT_API_KEY", "another")
    assert "401" in portrait("erasures", code=2).stderr
    monkeypatch.delenv("PORTRAIT_API_KEY")
    assert "admin.key" in portrait("erasures", code=2).stderr


def test_a_command_reads_the_key_that_the_home_keeps(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PORTRAIT_API_KEY")
    key = admin_key.keep(folder)
    with running_service(None) as client:
        assert client.api_key == key
    monkeypatch.setenv("PORTRAIT_API_KEY", "another")
    with running_service(None) as client:
        assert client.api_key == "another"
