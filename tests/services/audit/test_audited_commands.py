"""Commands on the machine beside a running service: each is in the trail, which stays whole."""

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from api_calls import view
from gateway_thread import Api
from typer.testing import CliRunner
from waiting import wait_until

from feature_repo.events.pseudonyms import Pseudonyms
from services.audit.recorder import name_user
from services.client import Client
from services.commands.cli import app

AUDIENCE = "rule: {event: {type: view_item}}\nconsent: []\n"
CAMPAIGN = """
audience: some
offer: {id: o}
channel: email
window: {from: 2020-01-01, until: 2099-01-01}
"""


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()


@pytest.fixture(autouse=True)
def folder(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORTRAIT_HOME", str(api.settings.home))
    monkeypatch.setenv("PORTRAIT_REDIS_URL", api.url)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def portrait(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, (done.output, done.exception)
    lines = done.stdout.splitlines()
    return orjson.loads(lines[-1]) if "--json" in arguments else lines


def entries(client: Client, count: int) -> list[dict[str, Any]]:
    """Return the entries of commands once there are so many, oldest first."""
    found = list[dict[str, Any]]()

    def look() -> bool:
        page = client.audit(key=f"cli:{getpass.getuser()}", limit=1000)["entries"]
        found[:] = [dict(one) for one in page]
        return len(found) >= count

    wait_until(look, f"{count} entries")
    return found


def test_each_command_leaves_an_entry_and_the_chain_is_whole(
    client: Client, api: Api, folder: Path
) -> None:
    client.post_event(view("reader"), return_profile=True)
    made = portrait("keys", "create", "web", "write", "--json")
    new = portrait("keys", "rotate", made["id"], "--json")
    portrait("keys", "revoke", new["id"])
    portrait("keys", "revoke", "0123456789ab", code=2)
    (folder / "a.yaml").write_text(AUDIENCE)
    (folder / "c.yaml").write_text(CAMPAIGN)
    portrait("audience", "put", "some", "a.yaml")
    portrait("audience", "members", "some")
    portrait("audience", "export", "some")
    portrait("campaign", "put", "spring", "c.yaml")
    portrait("campaign", "delete", "spring")
    portrait("campaign", "delete", "spring", code=2)
    portrait("audience", "delete", "some")
    portrait("dead-letters", "drop", "--all")
    portrait("privacy", "sweep", "--days", "400")
    portrait("rebuild", "--user", "reader")
    found = entries(client, 14)
    assert [(one["operation"].removeprefix("portrait "), one["target"]) for one in found] == [
        ("keys create", made["id"]), ("keys rotate", made["id"]), ("keys revoke", new["id"]),
        ("keys revoke", None), ("audience put", "some"), ("audience members", "some"),
        ("audience export", "some"), ("campaign put", "spring"), ("campaign delete", "spring"),
        ("campaign delete", None), ("audience delete", "some"), ("dead-letters drop", None),
        ("privacy sweep", None), ("rebuild", None),
    ]  # fmt: skip
    assert [n for n, one in enumerate(found) if one["status"] != 200] == [3, 9]
    assert {one["scope"] for one in found} == {"machine"}
    named = Pseudonyms.load(api.settings.home, api.settings.partitions)
    assert [one["user"] for one in found if one["user"]] == [name_user(named, "reader")]


def test_commands_and_gateways_at_the_same_time_make_one_chain(client: Client) -> None:
    before = len(entries(client, 0))
    for number in range(6):
        portrait("keys", "create", f"k{number}", "write", "--json")
        for _ in range(5):
            client.keys.revoke(client.keys.create("x", "write")["id"])
        assert portrait("audit", "verify", "--json")["broken"] is None
    assert len(entries(client, before + 6)) == before + 6
    told = portrait("audit", "verify", "--json")
    assert told["compared"]
    assert told["lines"] >= 6 * 11


def test_what_lists_and_what_the_machine_alone_is_asked_leaves_none(client: Client) -> None:
    before = len(entries(client, 0))
    portrait("keys", "list")
    portrait("audience", "list")
    portrait("dead-letters", "list")
    portrait("keys", "create", "last", "write", "--json")
    assert len(entries(client, before + 1)) == before + 1
