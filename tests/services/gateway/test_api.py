"""The HTTP contract over a real store: a gateway under uvicorn and an updater thread."""

import asyncio
import re
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx2
import orjson
import pytest
import redis
from api_calls import post, purchase, refused, view
from gateway_thread import ADMIN_KEY, Api
from stalls import running_s
from waiting import wait_until

from feature_repo.archive.catalogue import Item, merge_patch
from feature_repo.online.connection import connect_async
from services.catalogue.catalogue import CHANGED, Catalogue
from services.client import Client
from services.gateway.application import create_app
from services.http import api_keys
from services.settings import Settings


def test_unknown_users_and_paths_are_404(client: Client) -> None:
    for path in ("/v1/users/nobody/profile", "/v1/users/nobody/events", "/nowhere"):
        assert refused(client, "GET", path)["status"] == 404
    assert refused(client, "DELETE", "/v1/events")["status"] == 405


@pytest.mark.parametrize(
    ("path", "word"),
    [("/v1/users/nobody/profile", "profile"), ("/v1/items/none", "/v1/items"),
     ("/v1/items/none/similar", "/v1/items"), ("/nowhere", "/docs"),
     ("/v1/audiences/none", "name")],
)  # fmt: skip
def test_a_404_hints_at_what_was_looked_for(client: Client, path: str, word: str) -> None:
    hint = refused(client, "GET", path)["hint"]
    assert word in hint
    assert ("profile" in hint) == ("/users/" in path)


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


def test_a_patch_changes_the_named_fields_only(client: Client, user: str) -> None:
    item = {
        "item_id": user, "title": "Tea", "brand": "Ox", "price": 3.5,
        "properties": {"origin": "Assam", "organic": True, "of": {"a": 1, "b": 2}},
        "available_from": "2020-01-01T00:00:00Z",
    }  # fmt: skip
    client.put_item(item)
    whole = client.item(user)
    change = {"price": 2.9, "brand": None, "properties": {"origin": None, "of": {"b": 3}}}
    expected = {**whole, "price": 2.9, "properties": {"organic": True, "of": {"a": 1, "b": 3}}}
    del expected["brand"]
    assert client.patch_item(user, change) == client.item(user) == expected
    assert client.patch_item(user, {}) == expected
    assert client.patch_item(user, {"in_stock": False}) == {**expected, "in_stock": False}
    assert client.patch_item(user, {"in_stock": None})["in_stock"] is True
    media = {"content-type": "application/merge-patch+json"}
    path = f"/v1/items/{user}"
    assert client.http.patch(path, content='{"price": 4}', headers=media).status_code == 200
    for body, pointer in (
        ('{"price": -1}', "/price"), ('{"colour": "red"}', "/colour"),
        ('{"in_stock": 7}', "/in_stock"),
        ('{"item_id": "other"}', "/item_id"), ('{"item_id": null}', "/item_id"),
        ('{"properties": ' + '{"a": ' * 200 + "1" + "}" * 201, "/properties"),
    ):  # fmt: skip
        problem = refused(client, "PATCH", path, content=body, headers=media)
        assert (problem["status"], problem["errors"][0]["pointer"]) == (422, pointer)
    assert refused(client, "PATCH", path, json=[])["status"] == 422
    assert client.item(user) == {**expected, "price": 4}
    assert refused(client, "PATCH", f"{path}-not", json={"price": 1})["status"] == 404


def test_a_batch_of_patches_takes_each_by_itself(client: Client, user: str) -> None:
    a, b, none = f"{user}-a", f"{user}-b", f"{user}-none"
    client.put_items([{"item_id": a, "title": "A"}, {"item_id": b, "title": "B", "price": 1}])
    found = client.patch_items([
        {"item_id": a, "price": 2}, {"item_id": none, "price": 2}, {"price": 2},
        {"item_id": b, "price": -2}, {"item_id": a, "brand": "Ox"}, {"item_id": b, "price": None},
    ])  # fmt: skip
    assert (found["received"], found["accepted"], found["rejected"]) == (6, 3, 3)
    assert [(e["index"], e["pointer"], e["type"]) for e in found["errors"]] == [
        (1, "/item_id", "/problems/not-found"), (2, "/item_id", "/problems/invalid"),
        (3, "/price", "/problems/invalid"),
    ]  # fmt: skip
    common = {"in_stock": True, "is_merchandise": True}
    assert client.item(a) == {"item_id": a, "title": "A", "price": 2, "brand": "Ox", **common}
    assert client.item(b) == {"item_id": b, "title": "B", **common}
    assert client.http.patch("/v1/items", json=[{"item_id": a}]).status_code == 200
    assert client.http.patch("/v1/items", json=[{"item_id": a}, {}]).status_code == 207
    assert client.http.patch("/v1/items", json=[{"item_id": none}]).status_code == 422
    lines = {"content-type": "application/x-ndjson"}
    body = "\n".join(orjson.dumps({"item_id": name, "in_stock": False}).decode() for name in (a, b))
    assert client.http.patch("/v1/items", content=body, headers=lines).status_code == 200
    assert not client.item(b)["in_stock"]


def test_patches_that_come_at_once_are_all_kept(
    api: Api, redis_url: str, client: Client, user: str
) -> None:
    client.put_item({"item_id": user, "properties": {}})

    async def change() -> None:
        store = connect_async(redis_url)
        try:
            gateways = [Catalogue(store), Catalogue(store)]
            await asyncio.gather(*(
                gateways[n % 2].patch([
                    (user, partial(merge_patch, patch={"properties": {name: n}})),
                    (user, partial(merge_patch, patch={"price": n})),
                ])
                for n, name in enumerate("abcdefghijklmnopqrst")
            ))  # fmt: skip
        finally:
            await store.aclose()

    asyncio.run(change())
    assert client.item(user)["properties"] == dict(
        zip("abcdefghijklmnopqrst", range(20), strict=True)
    )


def test_a_batch_of_items_is_followed_without_loading_all(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    loads = list[Catalogue]()
    load = Catalogue._load

    async def counted(self: Catalogue) -> None:
        loads.append(self)
        await load(self)

    monkeypatch.setattr(Catalogue, "_load", counted)

    async def follow() -> None:
        store = connect_async(redis_url)
        writer, reader = Catalogue(store), Catalogue(store)
        async with store.pubsub() as announced:
            await announced.subscribe(CHANGED)
            await reader.start()
            try:
                await writer.put([Item(item_id=f"{user}-{n}") for n in range(1000)], 0)
                while f"{user}-999" not in reader.entries:
                    message = await announced.get_message(ignore_subscribe_messages=True, timeout=1)
                    if message is not None:
                        reader.announce(message["data"])
                    await asyncio.sleep(0)
            finally:
                await reader.stop()
        await store.aclose()

    asyncio.run(follow())
    assert len(loads) == 1  # at the start


def test_similar_items_share_the_shelf(client: Client, user: str) -> None:
    client.put_items(
        [
            {"item_id": f"{user}-a", "category": f"{user}/p/q"},
            {"item_id": f"{user}-b", "category": f"{user}/p/q"},
            {"item_id": f"{user}-c", "category": f"{user}/p/r"},
        ]
    )

    def found() -> list[str]:
        return [i["item_id"] for i in client.similar(f"{user}-a", n=2)["items"]]

    wait_until(found, "edits of other tests to be taken up, a thousand an answer")
    assert found() == [f"{user}-b", f"{user}-c"]
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
        wait_until(
            lambda: shop.http.post("/v1/events", json=view("scoped")).status_code != 401,
            "keys to be read again",
        )
        assert refused(shop, "GET", "/v1/users/scoped/profile")["status"] == 403
        assert post(shop, view("scoped"), "/v1/events?return=profile")["status"] == 403


def test_the_docs_load_nothing_from_others(client: Client) -> None:
    page = client.http.get("/docs").text
    loaded = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)""", page)
    assert set(loaded) >= {"/openapi.json", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"}
    assert [url for url in loaded if not url.startswith("/") or url.startswith("//")] == []
    assert "//" not in page
    with httpx2.Client(base_url=client.base_url) as browser:  # which has no key
        assert {browser.get(url).status_code for url in loaded} <= {200, 204}


def test_operations(client: Client) -> None:
    assert client.ready()
    assert "portrait_events_applied_total" in client.metrics()
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
    from services.hosting.embedded import EmbeddedStore

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
