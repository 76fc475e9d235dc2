"""Events over HTTP: what is taken, what is refused and how it is said."""

import gzip
import time
from typing import Any

import orjson
import pytest
from api_calls import post, refused, view

from services.client import Client


def test_a_repeated_id_is_a_duplicate_with_the_same_receipt(client: Client, user: str) -> None:
    first, again = (client.post_event(view(user, id="same-" + user)) for _ in range(2))
    assert again == {**first, "status": "duplicate"}
    assert client.profile(user, after=first["receipt"])["version"] == 1
    # The source is part of the key.
    other = client.post_event(view(user, id="same-" + user, source="web"))
    assert other["status"] == "accepted"


def test_an_id_that_another_users_event_had_leaves_no_profile(client: Client, user: str) -> None:
    client.post_event(view(user, id="taken-" + user))
    send: dict[str, Any] = {"method": "POST", "path": "/v1/events?return=profile"}
    others = (view(f"{user}-{n}", id="taken-" + user) for n in range(1000))
    # An id is taken in its user's partition: the first of these who lies there as well.
    same = next(e for e in others if client.post_event(e)["status"] == "duplicate")
    problem = refused(client, **send, json=same)
    assert (problem["status"], problem["type"]) == (404, "/problems/not-found")
    assert "another user" in problem["detail"]
    told = client.http.post("/v1/events?return=profile", json=view(user, id="taken-" + user))
    assert told.json()["status"] == "duplicate"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"type": "View Item"}, "/type"),
        ({"items": []}, ""),
        ({"user_id": None}, ""),
        ({"surprise": 1}, "/surprise"),
        ({"time": "yesterday"}, "/time"),
        ({"items": [{"item_id": "A", "price": -1}]}, "/items/0/price"),
    ],
)
def test_an_invalid_event_is_422_and_says_where(
    client: Client, user: str, change: dict[str, Any], pointer: str
) -> None:
    problem = post(client, {**view(user), **change})
    assert problem["status"] == 422
    assert problem["errors"][0]["pointer"] == pointer


NOBODY = ["undefined", "Undefined", "null", "NULL", "None", "nil", "NaN", "anonymous", "-1", "00",
          "[object Object]", "0" * 32, "00000000-0000-0000-0000-000000000000", " ", "\t", " null ",
          " u", "u\n", ".", ".."]  # fmt: skip


@pytest.mark.parametrize("field", ["user_id", "anonymous_id"])
@pytest.mark.parametrize("wrong", NOBODY)
def test_an_id_that_is_nobodys_is_422(client: Client, user: str, field: str, wrong: str) -> None:
    event = {**view(user), field: wrong}
    problem = post(client, event)
    assert (problem["status"], problem["errors"][0]["pointer"]) == (422, f"/{field}")
    found = orjson.loads(client.http.post("/v1/events/batch", json=[{**event, "id": "n"}]).content)
    assert (found["accepted"], found["errors"][0]["pointer"]) == (0, f"/{field}")


def test_consents_and_decisions_are_nobodys_neither(client: Client) -> None:
    request = {"json": {"consents": {"email": True}}}
    problem = refused(client, "PUT", "/v1/users/undefined/consents", **request)
    assert (problem["status"], problem["errors"][0]["pointer"]) == (422, "/path/user_id")
    request = {"json": {"user_id": "null"}}
    assert refused(client, "POST", "/v1/campaigns/any/decide", **request)["status"] == 422


@pytest.mark.parametrize(
    ("said", "pointer", "name"),
    [
        ({"consent": {"ads": True, "Profiling": False}}, "/consent/Profiling", "profiling"),
        ({"properties": {"ADS ": False}}, "/properties/ADS ", "ads"),
        ({"properties": {"purpose": "Email", "granted": False}}, "/properties/purpose", "email"),
        ({"type": "login", "consent": {"Ads": False}}, "/consent/Ads", "ads"),
    ],
)
def test_a_purpose_that_differs_from_a_name_by_case_or_blanks_is_422(
    client: Client, user: str, said: dict[str, Any], pointer: str, name: str
) -> None:
    event = {"type": "consent_updated", "user_id": user, "id": f"{user}-1", **said}
    problem = post(client, event)
    assert (problem["status"], problem["errors"][0]["pointer"]) == (422, pointer)
    assert problem["detail"] == f"the purpose is named {name}"
    fine = {"type": "consent_updated", "user_id": user, "id": f"{user}-2"}
    fine |= {"consent": {"ads": False, "email": True, "Newsletter": True}}
    found = orjson.loads(client.http.post("/v1/events/batch", json=[event, fine]).content)
    assert (found["accepted"], found["errors"][0]["pointer"]) == (1, pointer)
    standing = client.consents(user, after=found["receipt"])["consents"]
    assert len(standing) == 8  # the seven, and the shop's own: each by one name
    assert (standing["marketing_email"]["granted"], standing["Newsletter"]["granted"]) == (1, 1)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"type": ', 400),
        (b"[]", 422),
        (b'{"type":"view_item","user_id":"u","items":[{"item_id":"A"}],"value":NaN}', 422),
        (b'{"type":"x","user_id":"u","url":"' + b"a" * 33_000 + b'"}', 413),
    ],
)
def test_bodies_that_are_no_event(client: Client, body: bytes, status: int) -> None:
    assert post(client, body)["status"] == status


def test_times_outside_the_window_are_422(client: Client, user: str) -> None:
    now = time.time()
    for moment in (now + 400, now - 73 * 3600):
        assert post(client, view(user, time=moment))["errors"][0]["pointer"] == "/time"
    for moment in (now + 200, now - 71 * 3600):
        assert client.post_event(view(user, time=moment))["status"] == "accepted"


def test_other_media_types_are_415(client: Client) -> None:
    for wrong in ({"content-type": "text/plain"}, {"content-encoding": "br"}):
        headers = {"content-type": "application/json", **wrong}
        problem = refused(client, "POST", "/v1/events", content=b"{}", headers=headers)
        assert problem["status"] == 415


def test_a_batch_takes_what_is_valid(client: Client, user: str) -> None:
    events = [view(user, id=f"{user}-{n}") for n in range(5)]
    answer = client.post_batch(events)
    counts = {"received": 5, "accepted": 5, "duplicates": 0, "rejected": 0}
    assert {name: answer[name] for name in counts} == counts
    mixed = [*events[:2], view(user, id="bad", items=[]), view(user, id=f"{user}-new")]
    response = client.http.post("/v1/events/batch", json=mixed)
    body = orjson.loads(response.content)
    assert response.status_code == 207
    assert (body["accepted"], body["duplicates"], body["rejected"]) == (1, 2, 1)
    assert [(e["index"], e["id"]) for e in body["errors"]] == [(2, "bad")]
    none = client.http.post("/v1/events/batch", json=[{"type": "view_item"}])
    assert none.status_code == 422
    client.wait_applied(body["receipt"])
    assert client.profile(user)["version"] == 6


def test_a_batch_needs_ids(client: Client, user: str) -> None:
    response = client.http.post("/v1/events/batch", json=[view(user)])
    assert orjson.loads(response.content)["errors"][0]["pointer"] == "/id"


def test_a_batch_as_gzipped_ndjson(client: Client, user: str) -> None:
    lines = b"\n".join(orjson.dumps(view(user, id=f"{user}-{n}")) for n in range(3)) + b"\n{\n"
    response = client.http.post(
        "/v1/events/batch",
        content=gzip.compress(lines),
        headers={"content-type": "application/x-ndjson", "content-encoding": "gzip"},
    )
    body = orjson.loads(response.content)
    assert (response.status_code, body["accepted"], body["rejected"]) == (207, 3, 1)


def test_batches_over_a_limit_are_413(client: Client, user: str) -> None:
    many = [view(user, id=str(n)) for n in range(1001)]
    assert post(client, many, "/v1/events/batch")["status"] == 413
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 100_000
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    problem = refused(client, "POST", "/v1/events/batch", content=bomb, headers=headers)
    assert problem["status"] == 413


def test_amounts_in_another_currency_are_set_aside_and_said(client: Client, user: str) -> None:
    def buy(order: str, currency: str, **more: Any) -> dict[str, Any]:
        items = [{"item_id": "A", "price": 10}]
        return {"type": "purchase", "user_id": user, "order_id": order, "items": items,
                "currency": currency, **more}  # fmt: skip

    first = client.post_event(buy("o1", "eur"))
    other = client.post_event(buy("o2", "JPY", value=1500))
    assert "set_aside" not in first
    assert other["set_aside"] == "other_currency"
    batch = client.post_batch([buy("o3", "EUR", id="a"), buy("o4", "CHF", id="b")])
    assert batch["amounts_set_aside"] == 1
    profile = client.profile(user, after=batch["receipt"])
    assert profile["rfm"]["monetary"]["28d"] == 20
    assert profile["rfm"]["frequency"]["28d"] == 4
    found = client.http.get(f"/v1/users/{user}/events?type=purchase").json()["events"]
    kept = [e["properties"]["portrait_set_aside"] for e in found if "properties" in e]
    assert [each["currency"] for each in kept if "value" in each] == ["JPY"]
    assert 'portrait_events_set_aside_total{reason="other_currency"} 2.0' in client.metrics()


def test_more_ids_may_be_named_nobodys(make_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAIT_NOBODY_IDS", "")  # as it is again afterwards
    with make_api(nobody_ids="guest, 999").client() as client:
        for wrong in ("Guest", "999", "null"):
            assert post(client, view(wrong))["errors"][0]["pointer"] == "/user_id"
        assert client.post_event(view("9999"))["status"] == "accepted"
