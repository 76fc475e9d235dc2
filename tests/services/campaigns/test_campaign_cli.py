"""Campaigns on the command line, over a real store and a small archive."""

from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from gateway_thread import ADMIN_KEY, Api
from test_campaign_report import NOW_MS, shop, stored
from typer.testing import CliRunner, Result

from services.campaigns import language
from services.campaigns.keys import CAMPAIGNS
from services.commands import campaign as cli_campaign
from services.commands.cli import app

SPRING = """
audience: ready-lifecycle-active
offer: {id: o}
channel: email
window: {from: 2025-01-01, until: 2025-03-01}
quiet_hours: {from: 21:00, until: 8:00}
"""


@pytest.fixture
def home(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with redis.Redis.from_url(redis_url) as store:
        store.delete(CAMPAIGNS)
    monkeypatch.setenv("PORTRAIT_HOME", str(tmp_path))
    monkeypatch.setenv("PORTRAIT_REDIS_URL", redis_url)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def portrait(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["campaign", *arguments])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def last(done: Result) -> Any:
    return orjson.loads(done.stdout.splitlines()[-1])


def test_a_campaign_from_a_file_is_kept_listed_and_removed(home: Path) -> None:
    (home / "spring.yaml").write_text(SPRING)
    assert last(portrait("put", "spring", str(home / "spring.yaml"), "--json"))["new"] is True
    assert last(portrait("put", "spring", str(home / "spring.yaml"), "--json"))["new"] is False
    hours = last(portrait("show", "spring"))["quiet_hours"]
    assert (hours["from"], hours["until"]) == ("21:00", "08:00")
    assert [each["name"] for each in last(portrait("list", "--json"))] == ["spring"]
    assert "properties" in last(portrait("schema"))
    portrait("delete", "spring")
    portrait("delete", "spring", code=2)
    portrait("show", "spring", code=2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SPRING.replace("offer: {id: o}", "offer: {}"), "/offer/id"),
        (SPRING.replace("ready-lifecycle-active", "nobody"), "no audience is named nobody"),
        ("window: [", "line 1"),
    ],
)
def test_a_wrong_campaign_is_one_line_and_exit_code_2(home: Path, text: str, said: str) -> None:
    (home / "wrong.yaml").write_text(text)
    done = portrait("put", "wrong", str(home / "wrong.yaml"), code=2)
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    portrait("show", "wrong", code=2)


def test_a_report_is_printed_and_written_with_its_pictures(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = stored(rank_by="uplift")
    body = language.to_document(campaign.campaign) | {"audience": "ready-lifecycle-active"}
    (home / "spring.json").write_bytes(orjson.dumps(body))
    portrait("put", "spring", str(home / "spring.json"))
    shop(home, campaign).close()
    monkeypatch.setattr(cli_campaign, "now_ms", lambda: NOW_MS)
    found = last(portrait("report", "spring", "--out", str(home / "out"), "--json"))
    assert found["claim"] == "effect"
    assert orjson.loads((home / "out" / "report.json").read_bytes()) == found
    assert {p.name for p in (home / "out").iterdir()} == {"report.json", "arms.svg", "qini.svg"}
    portrait("report", "nobody", code=2)


def test_decisions_and_ranks_are_the_running_services(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PORTRAIT_API_KEY", raising=False)
    assert "PORTRAIT_API_KEY" in portrait("decide", "all", "u", code=2).stderr
    monkeypatch.setenv("PORTRAIT_API_KEY", ADMIN_KEY)
    url = f"http://127.0.0.1:{api.port}"
    with api.client() as client:
        rule = {"rule": {"event": {"type": "login"}}, "consent": []}
        client.audiences.put("all", rule)
        client.campaigns.put("all", {
            "audience": "all", "offer": {"id": "o"}, "channel": "email",
            "control": {"holdout": 0}, "window": {"from": "2020-01-01", "until": "2099-01-01"},
        })  # fmt: skip
        event = {"type": "login", "user_id": "u", "consent": {"email": True}}
        client.post_event(event, return_profile=True)
    assert last(portrait("decide", "all", "u", "--url", url))["arm"] == "treated"
    assert last(portrait("rank", "all", "--url", url))["rank_by"] == "random"
    assert (
        "no campaign is named none" in portrait("decide", "none", "u", "--url", url, code=2).stderr
    )
