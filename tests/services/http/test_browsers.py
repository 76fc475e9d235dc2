"""Keys in browsers: origins, preflights, beacons; and keys as the user name of HTTP Basic."""

import base64
from collections.abc import Callable
from typing import Any

import httpx2
import orjson
import pytest
from gateway_thread import ADMIN_KEY, Api

from services.client import Client

SHOP, OTHER = "https://shop.example", "https://evil.example"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}
EVENT = {"type": "login", "user_id": "u"}


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()


@pytest.fixture(scope="module")
def keys(api: Api) -> dict[str, str]:
    with api.client() as client:
        return {
            "shop": client.keys.create("shop", "write", origins=[SHOP])["key"],
            "free": client.keys.create("free", "write")["key"],
            "server": client.keys.create("server", "server")["key"],
        }


@pytest.fixture
def http(api: Api, keys: dict[str, str]) -> Any:
    with httpx2.Client(base_url=f"http://127.0.0.1:{api.port}") as http:
        yield http


def post(http: Any, key: str, origin: str | None) -> Any:
    headers = {"authorization": f"Bearer {key}"} | ({} if origin is None else {"origin": origin})
    return http.post("/v1/events", json=EVENT, headers=headers)


def test_a_page_of_a_known_origin_may_ask_and_send_and_read(
    http: Any, keys: dict[str, str]
) -> None:
    asked = http.options("/v1/events", headers={"origin": SHOP, **PREFLIGHT})
    assert (asked.status_code, asked.content) == (204, b"")
    assert asked.headers["access-control-allow-origin"] == SHOP
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert {"authorization", "content-type"} <= set(
        asked.headers["access-control-allow-headers"].split(", ")
    )
    sent = post(http, keys["shop"], SHOP)
    assert (sent.status_code, sent.headers["access-control-allow-origin"]) == (202, SHOP)
    assert sent.headers["vary"] == "Origin"
    refused = post(http, "wrong", SHOP)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, SHOP)


def test_a_page_of_another_origin_is_refused(http: Any, keys: dict[str, str]) -> None:
    asked = http.options("/v1/events", headers={"origin": OTHER, **PREFLIGHT})
    assert asked.status_code == 401
    assert "access-control-allow-origin" not in asked.headers
    for origin in (OTHER, "null", "https://shop.example.evil.example", "http://shop.example"):
        sent = post(http, keys["shop"], origin)
        assert (sent.status_code, sent.json()["type"]) == (403, "/problems/forbidden"), origin
        assert "access-control-allow-origin" not in sent.headers
        assert post(http, keys["free"], origin).status_code == 202  # it names none
    assert post(http, keys["shop"], None).status_code == 202  # no browser: origins are no secret


def test_an_options_request_that_is_no_preflight_needs_a_key(http: Any) -> None:
    assert http.options("/v1/events", headers={"origin": SHOP}).status_code == 401
    assert http.options("/v1/events", headers=PREFLIGHT).status_code == 401


@pytest.mark.parametrize("path", ["/v1/events", "/v1/events/batch"])
def test_a_beacon_has_its_key_in_the_query(
    http: Any, client: Client, keys: dict[str, str], path: str, user: str
) -> None:
    event = {"type": "login", "user_id": user, "id": f"{user}-{path}"}
    content = orjson.dumps([event] if path.endswith("batch") else event)
    headers = {"content-type": "text/plain;charset=UTF-8", "origin": SHOP}
    sent = http.post(f"{path}?key={keys['shop']}", content=content, headers=headers)
    assert sent.status_code == 202, sent.text
    client.wait_applied(sent.json()["receipt"])
    assert [each["id"] for each in client.events(user)["events"]] == [event["id"]]
    assert keys["shop"] not in sent.text + str(sent.headers)
    refused = http.post(f"{path}?key={keys['server']}", content=content, headers=headers)
    assert (refused.status_code, "scope write" in refused.json()["detail"]) == (403, True)
    assert http.post(f"{path}?key=wrong", content=content, headers=headers).status_code == 401


def test_a_key_in_the_query_is_a_beacons_alone(http: Any, keys: dict[str, str]) -> None:
    key, content = keys["free"], orjson.dumps(EVENT)
    text, json = {"content-type": "text/plain"}, {"content-type": "application/json"}
    ask = http.request
    assert ask("POST", f"/v1/events?key={key}", content=content, headers=json).status_code == 401
    assert ask("POST", f"/v1/rank?key={key}", content=content, headers=text).status_code == 401
    assert ask("GET", f"/v1/events?key={key}", headers=text).status_code == 401
    twice = f"/v1/events?key={key}&key={key}"
    assert ask("POST", twice, content=content, headers=text).status_code == 401
    bearer = text | {"authorization": f"Bearer {key}"}
    assert ask("POST", "/v1/events", content=content, headers=bearer).status_code == 415
    reads = f"/v1/events?return=profile&key={key}"
    assert ask("POST", reads, content=content, headers=text).status_code == 403


def test_a_key_may_be_the_user_name_of_http_basic(http: Any, keys: dict[str, str]) -> None:
    assert http.get("/v1/models", auth=(ADMIN_KEY, "")).status_code == 200
    assert http.post("/v1/events", json=EVENT, auth=(keys["free"], "x")).status_code == 202
    for given in ("=", "!", base64.b64encode(b"\xff:").decode(), base64.b64encode(b":").decode()):
        sent = http.get("/v1/models", headers={"authorization": f"Basic {given}"})
        assert sent.status_code == 401, given
