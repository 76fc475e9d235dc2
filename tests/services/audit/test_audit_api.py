"""The audit over HTTP: what is noted of which key, and never a raw id."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from gateway_thread import ADMIN_KEY, Api
from typer.testing import CliRunner
from waiting import wait_until

from feature_repo.events.pseudonyms import Pseudonyms
from services.audit.recorder import EVENTS, SERVING, is_noted, name_user
from services.client import Client
from services.commands.cli import app
from services.gateway import access
from services.http import api_keys

RAW = "raw-id-of-a-person"


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Api:
    api = make_api()
    with redis.Redis.from_url(api.url) as store:
        api_keys.register(store, "shop-key", name="shop", scope="server")
        api_keys.register(store, "write-key", name="web", scope="write")
    return api


def entries(client: Client, request_id: str) -> list[Any]:
    """Wait for the entry of a request, which is also the last, and return all of that id."""
    found: list[Any] = []

    def come() -> bool:
        found[:] = [
            each for each in client.audit(limit=1000)["entries"] if each["request_id"] == request_id
        ]
        return bool(found)

    wait_until(come, "the entry")
    return found


def test_what_reads_a_person_is_kept_with_key_pseudonym_and_outcome(
    api: Api, client: Client
) -> None:
    client.post_event({"type": "login", "user_id": RAW}, return_profile=True)
    pseudonyms = Pseudonyms.load(api.settings.home, api.settings.partitions)
    name = name_user(pseudonyms, RAW)
    with api.client("shop-key") as shop:
        for number, (method, path, body) in enumerate([
            ("GET", f"/v1/users/{RAW}/profile", None),
            ("HEAD", f"/v1/users/{RAW}/profile", None),
            ("GET", f"/v1/users/{RAW}/recommendations", None),
            ("POST", "/v1/rank", {"user_id": RAW, "items": ["A"]}),
            ("POST", "/v1/events?return=profile", {"type": "login", "user_id": RAW}),
            ("GET", f"/v1/users/{RAW}/export", None),
        ]):  # fmt: skip
            headers = {"x-request-id": f"q{number}"}
            status = shop.http.request(method, path, json=body, headers=headers).status_code
            (kept,) = entries(client, f"q{number}")
            assert kept["user"] == name, path
            assert (kept["key"], kept["scope"], kept["status"]) == (
                api_keys.digest("shop-key")[:12], "server", status,
            )  # fmt: skip
            assert kept["operation"].startswith(f"{method} /v1/"), kept
            assert RAW not in kept["operation"]
        assert status == 403  # refusals of a known key are kept too
    with redis.Redis.from_url(api.url) as store:
        waiting = b"".join(b"".join(f.values()) for _, f in store.xrange("portrait:{audit}:log"))
    files = list((api.settings.home / "audit").glob("*.jsonl"))
    assert files
    told = waiting + b"".join(path.read_bytes() for path in files)
    assert name.encode() in told
    assert RAW.encode() not in told
    assert pseudonyms.of_user(RAW).encode() not in told


def test_keys_are_audited_and_events_are_not(api: Api, client: Client) -> None:
    with api.client("write-key") as web:
        web.http.post("/v1/events", json={"type": "login", "user_id": "u"})
    headers = {"x-request-id": "made"}
    made = client.http.post("/v1/keys", json={"name": "x", "scope": "write"}, headers=headers)
    assert entries(client, "made")[0]["target"] == made.json()["id"]
    path = f"/v1/keys/{made.json()['id']}/rotate"
    other = client.http.post(path, json={}, headers={"x-request-id": "other"}).json()["id"]
    assert entries(client, "other")[0]["target"] == f"{made.json()['id']} {other}"
    client.http.delete(f"/v1/keys/{made.json()['id']}", headers={"x-request-id": "gone"})
    (gone,) = entries(client, "gone")
    assert (gone["target"], gone["status"], gone["user"]) == (made.json()["id"], 204, None)
    every = client.audit(limit=1000)["entries"]
    assert api_keys.digest("write-key")[:12] not in {each["key"] for each in every}
    mine = client.audit(key=api_keys.digest(ADMIN_KEY)[:12], limit=1000)["entries"]
    assert {"GET /v1/audit", "POST /v1/keys"} <= {each["operation"] for each in mine}
    assert client.audit(since="2100-01-01")["entries"] == []


@pytest.mark.parametrize("name", [RAW, "x" * 3000, "has blanks"])
def test_no_target_is_kept_of_what_was_refused(client: Client, name: str) -> None:
    asked = client.http.put(f"/v1/audiences/{name}", json={}, headers={"x-request-id": name[:9]})
    (kept,) = entries(client, asked.headers["x-request-id"])
    assert (kept["status"], kept["target"]) == (422, None)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [("since=soon", "/query/since"), ("until=0001-01-01", "/query/until"),
     ("cursor=x", "/query/cursor"), ("cursor={day}.5", "/query/cursor"), ("key=me", "/query/key"),
     ("limit=0", "/query/limit")],
)  # fmt: skip
def test_a_wrong_question_is_pointed_at(api: Api, client: Client, query: str, pointer: str) -> None:
    wait_until(lambda: client.audit(limit=1)["entries"], "an entry")
    day = min((api.settings.home / "audit").glob("*.jsonl")).stem
    response = client.http.get(f"/v1/audit?{query.format(day=day)}")
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, pointer)


def test_every_route_that_changes_or_reads_a_person_is_noted() -> None:
    rows = [row.split(" ") for row in access.operations()]
    for method, path, needed in rows:
        noted = is_noted(method, path, needed, serving=True)
        wanted = method != "GET" or "{user_id}" in path or needed == "admin"
        assert noted or not wanted or path in EVENTS, path
        assert is_noted(method, path, needed, serving=False) == (noted and path not in SERVING)
    paths = {path for _, path, _ in rows}
    assert paths >= SERVING | EVENTS


def test_the_command_says_whether_the_chain_is_whole(
    api: Api, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.http.get(f"/v1/users/{RAW}/profile", headers={"x-request-id": "last"})
    entries(client, "last")
    monkeypatch.setenv("PORTRAIT_HOME", str(api.settings.home))
    monkeypatch.setenv("PORTRAIT_REDIS_URL", api.url)

    def verify(code: int) -> Any:
        done = CliRunner().invoke(app, ["audit", "verify", "--json"])
        assert done.exit_code == code, done.output
        return orjson.loads(done.stdout.splitlines()[-1])

    found = verify(0)
    assert found["lines"] > 1
    assert found["compared"]
    anchor = api.settings.home / "audit" / "anchor.json"
    anchor.write_text('{"day":"x"}')
    assert verify(1)["broken"].startswith("anchor.json: ")
    anchor.unlink()
    with monkeypatch.context() as away:
        away.setenv("PORTRAIT_REDIS_URL", "redis://127.0.0.1:1")
        assert not verify(0)["compared"]
    named = CliRunner().invoke(app, ["audit", "name", RAW]).stdout.strip()
    assert named in {each["user"] for each in client.audit(limit=1000)["entries"]}
    path: Path = min((api.settings.home / "audit").glob("*.jsonl"))
    body = path.read_bytes()
    path.write_bytes(body.replace(b'"scope":"admin"', b'"scope":"write"', 1))
    try:
        assert "line" in verify(1)["broken"]
    finally:
        path.write_bytes(body)
