"""The HTTP contract over a real store: a gateway under uvicorn and an updater thread."""

import gzip
import itertools
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import redis
from gateway_thread import ADMIN_KEY, Api
from running_clock import running_s
from store_nodes import wait_until

from services.client import Client
from services.gateway import create_app
from services.http import api_keys
from services.settings import Settings

_users = itertools.count()


@pytest.fixture
def client(api: Api) -> Iterator[Client]:
    with api.client() as client:
        yield client


@pytest.fixture
def user() -> str:
    return f"user-{next(_users)}"


def view(user: str, item: str = "A", **more: Any) -> dict[str, Any]:
    return {"type": "view_item", "user_id": user, "items": [{"item_id": item}], **more}


def purchase(user: str, item: str, **more: Any) -> dict[str, Any]:
    return {**view(user, item), "type": "purchase", "order_id": "o-" + item, **more}


def refused(
    client: Client, method: str, path: str, *, escaped: bool = False, **request: Any
) -> dict[str, Any]:
    """Send what must be refused and return the checked problem."""
    response = client.http.request(method, path, **request)
    problem: dict[str, Any] = orjson.loads(response.content)
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["status"] == response.status_code
    assert problem["request_id"] == response.headers["x-request-id"]
    assert response.headers["server-timing"].startswith("app;dur=")
    assert problem["hint"]
    assert escaped or problem["instance"] == path.split("?", maxsplit=1)[0]
    assert client.http.get(problem["type"]).status_code == 200
    return problem


def post(client: Client, body: Any, path: str = "/v1/events") -> dict[str, Any]:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return refused(
        client, "POST", path, content=content, headers={"content-type": "application/json"}
    )


def test_an_event_is_in_the_profile_that_its_receipt_asks_for(client: Client, user: str) -> None:
    answer = client.post_event(view(user))
    assert answer["status"] == "accepted"
    profile = client.profile(user, after=answer["receipt"])
    assert (profile["user_id"], profile["version"], profile["event_count"]) == (user, 1, 1)


def test_return_profile_answers_200_with_the_effect(client: Client, user: str) -> None:
    for version in (1, 2, 3):
        assert client.post_event(view(user), return_profile=True)["profile"]["version"] == version


def test_an_anonymous_visitor_who_signs_in_has_one_profile(client: Client, user: str) -> None:
    def anonymous(item: str) -> dict[str, Any]:
        return {"type": "view_item", "anonymous_id": "v-" + user, "items": [{"item_id": item}]}

    def taken(event: dict[str, Any]) -> str:
        return str(client.http.post("/v1/events", json=event).json()["receipt"])

    taken(view(user, "early"))
    taken(anonymous("before"))
    signed_in = {"type": "login", "user_id": user, "anonymous_id": "v-" + user}
    receipt = taken(signed_in)

    path = f"/v1/users/{user}/profile?after={receipt}"
    known = client.http.get(path).json()
    assert known["event_count"] == 3
    assert (known["identity"]["anonymous"], known["identity"]["linked"]) == (False, 1)
    assert {i["key"] for i in known["interests"] if i["kind"] == "item"} == {"early", "before"}
    late = taken(anonymous("after"))
    one = client.http.get(f"/v1/users/v-{user}/profile?after={late}").json()
    other = client.http.get(f"/v1/users/{user}/profile?after={late}").json()
    assert one["event_count"] == 4
    assert [one[part] for part in ("identity", "recent", "version")] == [
        other[part] for part in ("identity", "recent", "version")
    ]
    told = client.http.post("/v1/events?return=profile", json=anonymous("last")).json()
    assert told["profile"]["event_count"] == 5
    for name in (user, "v-" + user):
        events = client.http.get(f"/v1/users/{name}/events").json()["events"]
        shown = [e["items"][0]["item_id"] if "items" in e else e["type"] for e in events]
        assert shown == ["last", "after", "login", "before", "early"]
        pages = client.http.get(f"/v1/users/{name}/events?limit=2").json()
        after = pages["next_cursor"]
        rest = client.http.get(f"/v1/users/{name}/events?limit=3&cursor={after}").json()["events"]
        assert [e["id"] for e in rest] == [e["id"] for e in events[2:]]
        explained = client.http.get(f"/v1/users/{name}/explanations?target=item:before").json()
        assert explained["exact"]


def test_consents_are_stated_and_read_and_everything_is_exported(client: Client, user: str) -> None:
    assert client.http.get(f"/v1/users/{user}/consents").status_code == 404
    assert client.http.get(f"/v1/users/{user}/export").status_code == 404
    receipt = client.post_event(view(user))["receipt"]
    assert client.consents(user, after=receipt)["consents"] == {}
    first = client.put_consents(user, {"email": True, "ads": True}, source="preferences")
    receipt = client.put_consents(user, {"ads": False})["receipt"]
    found = client.consents(user, after=receipt)["consents"]
    assert {purpose: each["granted"] for purpose, each in found.items()} == {
        "email": True, "ads": False,
    }  # fmt: skip
    assert found["email"]["source"] == "preferences"
    kept = client.export(user)
    assert (kept["complete"], kept["consents"]) == (True, found)
    assert kept["profile"]["event_count"] == len(kept["events"]) == 3
    assert [event["type"] for event in kept["events"]] == ["view_item", *["consent_updated"] * 2]
    assert kept["events"][1]["id"] == first["id"]
    for wrong in ({}, {"consents": {}}, {"consents": {"": True}}, {"consents": {"a": "perhaps"}}):
        assert client.http.put(f"/v1/users/{user}/consents", json=wrong).status_code == 422
    assert client.export(user)["events"] == kept["events"]


def test_an_anonymous_visitors_consents_are_their_own(client: Client, user: str) -> None:
    seen = {"type": "view_item", "anonymous_id": user, "items": [{"item_id": "A"}]}
    client.wait_applied(client.post_event(seen)["receipt"])
    receipt = client.put_consents(user, {"ads": True})["receipt"]
    profile = client.http.get(f"/v1/users/{user}/profile?after={receipt}").json()
    assert (profile["identity"]["anonymous"], profile["event_count"]) == (True, 2)
    assert profile["consent"]["ads"]["granted"]


def test_a_repeated_id_is_a_duplicate_with_the_same_receipt(client: Client, user: str) -> None:
    first, again = (client.post_event(view(user, id="same-" + user)) for _ in range(2))
    assert again == {**first, "status": "duplicate"}
    assert client.profile(user, after=first["receipt"])["version"] == 1
    # The source is part of the key.
    other = client.post_event(view(user, id="same-" + user, source="web"))
    assert other["status"] == "accepted"


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


def test_profile_has_an_etag(client: Client, user: str) -> None:
    client.post_event(view(user), return_profile=True)
    path = f"/v1/users/{user}/profile"
    first = client.http.get(path)
    same = client.http.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    client.post_event(view(user), return_profile=True)
    changed = client.http.get(path, headers={"if-none-match": first.headers["etag"]})
    assert changed.status_code == 200


def test_unknown_users_and_paths_are_404(client: Client) -> None:
    for path in ("/v1/users/nobody/profile", "/v1/users/nobody/events", "/nowhere"):
        assert refused(client, "GET", path)["status"] == 404
    assert refused(client, "DELETE", "/v1/events")["status"] == 405


def test_a_receipt_that_never_comes_is_504_in_bounded_time(client: Client, user: str) -> None:
    receipt = client.post_event(view(user))["receipt"]
    partition = receipt.split("-")[0]
    started = running_s()
    path = f"/v1/users/{user}/profile?after={partition}-99999999999999-0"
    problem = refused(client, "GET", path)
    assert problem["status"] == 504
    assert running_s() - started < 8
    assert refused(client, "GET", f"/v1/users/{user}/profile?after=nonsense")["status"] == 422


def test_events_come_newest_first_in_pages(client: Client, user: str) -> None:
    for n in range(5):
        receipt = client.post_event(view(user, id=f"{user}-{n}"))["receipt"]
    receipt = client.post_event(purchase(user, "B", id=f"{user}-5"))["receipt"]
    seen, cursor = list[str](), None
    while True:
        page = client.events(user, limit=4, cursor=cursor, after=receipt)
        seen += [event["id"] for event in page["events"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"{user}-{n}" for n in reversed(range(6))]
    only = client.events(user, type="purchase")["events"]
    assert [event["id"] for event in only] == [f"{user}-5"]
    assert "user" not in only[0]


def test_anonymous_visitors_have_a_profile(client: Client, user: str) -> None:
    event = {**view(user), "anonymous_id": "anon-" + user}
    del event["user_id"]
    client.post_event(event, return_profile=True)
    assert client.profile("anon-" + user)["version"] == 1


def test_recommendations_follow_the_very_last_event(client: Client, user: str) -> None:
    client.put_items(
        [
            {"item_id": f"{user}-{shelf}{n}", "category": f"{user}/{shelf}"}
            for shelf in "xy"
            for n in range(3)
        ]
    )
    for item in ("x0", "y0"):
        receipt = client.post_event(purchase(user, f"{user}-{item}"))["receipt"]
        answer = client.recommendations(
            user, n=3, after=receipt, exclude=["purchased"], category=f"{user}/{item[0]}",
            explain=True,
        )  # fmt: skip
        assert answer["personalized"]
        assert {i["item_id"] for i in answer["items"]} == {f"{user}-{item[0]}{n}" for n in (1, 2)}
        assert answer["items"][0]["reasons"][0]["code"] == "interest_category"
    ids = client.recommendations(user, exclude=[f"{user}-x0", f"{user}-y0"])["items"]
    assert not {f"{user}-x0", f"{user}-y0"} & {i["item_id"] for i in ids}


def test_unknown_users_get_a_cold_start(client: Client) -> None:
    answer = client.recommendations("a stranger", n=5)
    assert (answer["reason"], answer["personalized"]) == ("cold_start", False)
    assert (answer["degraded"], answer["model"]) == (False, None)


def test_sessions_and_ranking(client: Client, user: str) -> None:
    client.put_items([{"item_id": f"{user}-{n}", "category": f"{user}/s"} for n in range(3)])
    body = {"events": [{"items": [{"item_id": f"{user}-1"}]}], "n": 3, "category": f"{user}/s"}
    answer = orjson.loads(client.http.post("/v1/recommendations", json=body).content)
    assert answer["personalized"]
    assert answer["items"][0]["item_id"] == f"{user}-1"
    client.post_event(purchase(user, f"{user}-2"), return_profile=True)
    ranked = client.rank(user, [f"{user}-0", f"{user}-2", "unheard-of"])["items"]
    assert [i["item_id"] for i in ranked] == [f"{user}-2", f"{user}-0", "unheard-of"]
    assert [i["rank"] for i in ranked] == [1, 2, 3]


def test_the_catalogue(client: Client, user: str) -> None:
    item = {"item_id": f"i-{user}", "title": "Fine Coffee", "category": "Grocery/Coffee"}
    assert client.http.put(f"/v1/items/{item['item_id']}", json=item).status_code == 201
    assert client.http.put(f"/v1/items/{item['item_id']}", json=item).status_code == 200
    shown = orjson.loads(client.http.get(f"/v1/items/{item['item_id']}").content)
    assert shown == {**item, "in_stock": True, "is_merchandise": True}
    receipt = client.post_event(purchase(user, item["item_id"]))["receipt"]
    seed = client.profile(user, view="seed", after=receipt)
    assert seed["User Behavior"] == ["Purchase Fine Coffee"]
    # The event was completed from the catalogue before it went into the log.
    assert client.events(user)["events"][0]["items"][0]["category"] == "Grocery/Coffee"
    client.put_item({**item, "in_stock": False})
    ids = [i["item_id"] for i in client.recommendations(user, n=500)["items"]]
    assert item["item_id"] not in ids
    assert client.http.delete(f"/v1/items/{item['item_id']}").status_code == 204
    assert refused(client, "GET", f"/v1/items/{item['item_id']}")["status"] == 404
    bad = client.put_items([{"item_id": "x", "price": -1}])
    assert (bad["accepted"], bad["errors"][0]["pointer"]) == (0, "/price")


@pytest.mark.parametrize("name", ["a/b", "/", "100%2F", "ü/%", "a/profile", "a b?c#d"])
def test_ids_may_hold_any_sign(client: Client, name: str) -> None:
    client.put_item({"item_id": name, "category": "signs"})
    assert client.item(name)["item_id"] == name
    client.post_event(view(name, name), return_profile=True)
    assert client.profile(name)["user_id"] == name
    assert len(client.events(name)["events"]) == 1
    assert client.delete_item(name)
    escaped = quote(name, safe="")
    assert refused(client, "GET", f"/v1/nowhere/{escaped}", escaped=True)["status"] == 404


def test_similar_items_share_the_shelf(client: Client, user: str) -> None:
    client.put_items(
        [
            {"item_id": f"{user}-a", "category": f"{user}/p/q"},
            {"item_id": f"{user}-b", "category": f"{user}/p/q"},
            {"item_id": f"{user}-c", "category": f"{user}/p/r"},
        ]
    )
    found = client.similar(f"{user}-a", n=2)
    assert [i["item_id"] for i in found["items"]] == [f"{user}-b", f"{user}-c"]
    assert refused(client, "GET", "/v1/items/unheard-of/similar")["status"] == 404


def test_keys_and_scopes(api: Api) -> None:
    store = redis.Redis.from_url(api.url)
    api_keys.register(store, "write-key", name="web shop", scope="write")
    store.close()
    with api.client("nonsense") as stranger:
        assert refused(stranger, "GET", "/v1/models")["status"] == 401
        assert stranger.http.get("/health/live").status_code == 200
        del stranger.http.headers["authorization"]
        assert refused(stranger, "POST", "/v1/events")["status"] == 401
        stranger.http.headers["x-api-key"] = ADMIN_KEY
        assert stranger.http.get("/v1/models").status_code == 200
    with api.client("write-key") as shop:
        deadline_s = time.monotonic() + 10
        while shop.http.post("/v1/events", json=view("scoped")).status_code == 401:
            assert time.monotonic() < deadline_s  # keys are read again every few seconds
            time.sleep(0.2)
        assert refused(shop, "GET", "/v1/users/scoped/profile")["status"] == 403
        assert post(shop, view("scoped"), "/v1/events?return=profile")["status"] == 403


def test_operations(client: Client) -> None:
    assert client.ready()
    assert "portrait_events_applied_total" in client.metrics()
    assert client.http.get("/docs").status_code == 200
    schema = orjson.loads(client.http.get("/openapi.json").content)
    assert schema["openapi"].startswith("3.1")
    wanted = {
        "/v1/events", "/v1/events/batch", "/v1/users/{user_id}/profile",
        "/v1/users/{user_id}/events",
        "/v1/users/{user_id}/recommendations", "/v1/recommendations", "/v1/rank",
        "/v1/users/{user_id}/explanations",
        "/v1/items/{item_id}", "/v1/items/batch", "/v1/items/{item_id}/similar", "/health/live",
        "/health/ready", "/metrics", "/v1/models",
    }  # fmt: skip
    assert wanted <= set(schema["paths"])
    given = client.http.get("/health/live", headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"


def test_with_the_store_away_ingest_refuses_and_recommendations_degrade(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    from services.embedded import EmbeddedStore

    home = tmp_path_factory.mktemp("down")
    store = EmbeddedStore(home / "store")
    store.start()
    api = Api(Settings(home=home, redis_url=store.url), store.url)
    try:
        api.start()
        with api.client() as client:
            client.put_item({"item_id": "A"})
            store.stop()
            started = running_s()
            problem = post(client, view("u"))
            assert (problem["status"], problem["type"]) == (503, "/problems/unavailable")
            assert running_s() - started < 1
            response = client.http.get("/v1/users/u/recommendations")
            assert response.status_code == 200
            assert orjson.loads(response.content)["degraded"] is True
            assert client.http.get("/health/live").status_code == 200
            assert client.http.get("/health/ready").status_code == 503
            client.http.get("/v1/users/u/recommendations?placement=home")
            lost = 'portrait_impressions_total{outcome="lost"} 1.0'
            wait_until(lambda: lost in client.metrics(), "the loss to be counted")
    finally:
        api.stop()
        store.stop()


def test_replay_clock_takes_event_time_as_now(make_api: Any) -> None:
    api = make_api(replay_clock=True)
    with api.client() as client:
        event = view("u", time="2017-12-20T10:00:00Z")
        profile = client.post_event(event, return_profile=True)["profile"]
        assert profile["updated_at"].startswith("2017-12-20T10:00:00")
        assert profile["provenance"]["as_of"].startswith("2017-12-20T10:00:00")
    assert create_app(api.settings, api.url, None).title == "Portrait"
