"""Minimised events over HTTP and by import: what log, archive and answers then hold."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pyarrow.parquet as pq
import pytest
from api_calls import post, view
from gateway_thread import Api

from feature_repo import importers
from feature_repo.archive.event_archive import Archive
from feature_repo.events.minimisation import FieldPolicy, parse_fields
from services.client import Client

MAIL = "jo@shop.example"


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Api:
    return make_api(
        drop_fields="properties.secret", hash_fields="query", personal_data="reject",
        personal_ids="reject",
    )  # fmt: skip


def _events(client: Client, user: str, receipt: str) -> list[dict[str, Any]]:
    client.profile(user, after=receipt)
    return list(client.events(user)["events"])


def test_an_event_is_kept_without_what_is_listed(client: Client, user: str) -> None:
    told = {"secret": MAIL, "colour": "red"}
    body = view(user, id=f"{user}-1", query="tea", properties=told)
    first = client.post_event(body)
    assert client.post_event(body) == {**first, "status": "duplicate"}
    batch = client.post_batch([body | {"id": f"{user}-2"}])
    assert batch["accepted"] == 1
    one, two = _events(client, user, batch["receipt"])
    assert one["properties"] == {"colour": "red"}
    assert one["query"] == two["query"]
    assert one["query"].startswith("h:")


def test_what_looks_personal_is_422_and_in_a_batch_that_event_alone(
    client: Client, user: str
) -> None:
    problem = post(client, view(user, url=f"https://x/?to={MAIL}"))
    assert (problem["status"], problem["errors"][0]["pointer"]) == (422, "/url")
    assert MAIL not in orjson.dumps(problem).decode()
    assert post(client, view(MAIL))["errors"][0]["pointer"] == "/user_id"
    bodies = [view(user, id=f"{user}-{n}", properties={"note": note})
              for n, note in enumerate(["fine", f"ask {MAIL}", "4006381333931"])]  # fmt: skip
    answer = client.http.post("/v1/events/batch", json=bodies)
    told = orjson.loads(answer.content)
    assert (answer.status_code, told["accepted"], told["rejected"]) == (207, 2, 1)
    error = told["errors"][0]
    assert (error["index"], error["pointer"]) == (1, "/properties/note")
    assert MAIL not in answer.text
    assert len(_events(client, user, told["receipt"])) == 2


def test_a_beacon_is_minimised_as_well(api: Api, client: Client, user: str) -> None:
    key = client.keys.create("page", "write")["key"]
    body = [view(user, id=user, properties={"secret": "s"}, query="tea")]
    sent = httpx2.post(
        f"http://127.0.0.1:{api.port}/v1/events/batch?key={key}", content=orjson.dumps(body),
        headers={"content-type": "text/plain"},
    )  # fmt: skip
    assert sent.status_code == 202, sent.text
    found = _events(client, user, sent.json()["receipt"])
    assert "properties" not in found[0]
    assert found[0]["query"].startswith("h:")


def test_a_denial_is_taken_for_whatever_id(client: Client) -> None:
    assert client.put_consents(MAIL, {"ads": False})["receipt"]


def test_an_import_does_the_same(tmp_path: Path) -> None:
    file, home = tmp_path / "events.ndjson", tmp_path / "home"
    at = time.time_ns() // 1_000_000 - 10_000
    lines = [
        view("u", id=f"e{n}", time=at, query=query, properties={"secret": MAIL, "note": note})
        for n, (query, note) in enumerate([("tea", "a"), ("tea", f"ask {MAIL}"), ("cup", "b")])
    ]
    file.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    policy = FieldPolicy(parse_fields("properties.secret"), parse_fields("query"), "reject")
    for events_new in (2, 0):  # the same again is the same
        report = importers.run("file", home=home, path=file, policy=policy)
        assert (report.accepted, report.events_new) == (2, events_new)
        assert dict(report.rejected) == {"personal_data": 1}
    rejects = pq.read_table(report.rejects_file).to_pylist()
    assert rejects[0]["detail"] == (
        "properties/note: looks like an e-mail address: send the event without it"
    )
    (history,) = [events for _, events in Archive(home / "archive" / "events").histories()]
    assert [event.properties for event in history] == [{"note": "a"}, {"note": "b"}]
    assert all(event.query is not None and event.query[:2] == "h:" for event in history)
    assert all(MAIL.encode() not in path.read_bytes() for path in home.rglob("*.parquet"))
