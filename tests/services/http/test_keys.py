"""API keys over HTTP: made, shown once, kept as digests, rotated, revoked, expired."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import redis
from gateway_thread import ADMIN_KEY, Api
from waiting import wait_until

from services.client import ApiError, Client
from services.http import api_keys
from services.http.api_keys import KEYS, USED
from services.http.key_records import REVOKED

DAY_S = 86_400


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()


@pytest.fixture
def store(api: Api) -> Iterator[Any]:
    with redis.Redis.from_url(api.url) as store:
        yield store


def status(api: Api, key: str, path: str = "/v1/models") -> int:
    with api.client(key) as client:
        return int(client.http.get(path).status_code)


def shown(client: Client, key_id: str) -> Any:
    return next(each for each in client.keys.all()["keys"] if each["id"] == key_id)


def test_a_key_works_at_once_and_only_its_digest_is_kept(
    api: Api, client: Client, store: Any
) -> None:
    response = client.http.post("/v1/keys", json={"name": "backend", "scope": "server"})
    made = response.json()
    assert (response.status_code, response.headers["cache-control"]) == (201, "no-store")
    assert len(made["key"]) > 32 / 6 * 4
    assert made["id"] == api_keys.digest(made["key"])[:12]
    assert status(api, made["key"]) == 200
    assert status(api, made["key"], "/v1/keys") == 403
    kept = shown(client, made["id"])
    assert kept | {"key": made["key"], "last_used_at": None} == made
    told = client.http.get("/v1/keys").content + b"".join(
        part for name in (KEYS, USED, REVOKED) for pair in store.hgetall(name).items()
        for part in pair
    )  # fmt: skip
    assert made["key"].encode() not in told


def test_two_keys_are_never_alike(client: Client) -> None:
    made = [client.keys.create("twin", "write") for _ in range(3)]
    assert len({each["key"] for each in made}) == len({each["id"] for each in made}) == 3


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"scope": "root"}, "/body/scope"),
        ({"name": ""}, "/body/name"),
        ({"name": "n" * 129}, "/body/name"),
        ({"expires_at": "2020-01-01"}, "/body/expires_at"),
        ({"expires_at": "soon"}, "/body/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, "/body/expires_at"),
        ({"origins": ["shop.example"]}, "/body/origins/0"),
        ({"origins": ["https://shop.example/"]}, "/body/origins/0"),
        ({"origins": ["https://a@shop.example"]}, "/body/origins/0"),
        ({"origins": ["https://shop.example:x"]}, "/body/origins/0"),
        ({"origins": ["null"]}, "/body/origins/0"),
        ({"origins": ["https://shop.example"] * 21}, "/body/origins"),
        ({"key": "mine"}, "/body/key"),
    ],
)
def test_what_is_wrong_with_a_wanted_key_is_pointed_at(
    client: Client, store: Any, change: dict[str, Any], pointer: str
) -> None:
    before = store.hgetall(KEYS)
    response = client.http.post("/v1/keys", json={"name": "a", "scope": "write", **change})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, pointer)
    assert store.hgetall(KEYS) == before


def test_an_expired_key_is_refused_from_that_moment_on(
    api: Api, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = client.keys.create("guest", "server", expires_at="2100-01-01")
    assert status(api, made["key"]) == 200
    later_s = time.time() + 100 * 365 * DAY_S
    monkeypatch.setattr(api_keys.time, "time", lambda: later_s)
    assert status(api, made["key"]) == 401
    assert status(api, ADMIN_KEY) == 200


def test_a_revoked_key_is_refused_and_stays_named(api: Api, client: Client, store: Any) -> None:
    made = client.keys.create("leaver", "server")
    assert status(api, made["key"]) == 200
    assert client.keys.revoke(made["id"]) is True
    assert status(api, made["key"]) == 401
    kept = shown(client, made["id"])
    assert (kept["state"], kept["name"]) == ("revoked", "leaver")
    assert kept["revoked_at"]
    assert client.keys.revoke(made["id"]) is False
    with pytest.raises(ApiError, match="no key has the id"):
        client.keys.rotate(made["id"])


def test_a_key_revoked_elsewhere_is_refused_once_the_ring_is_read_again(
    api: Api, client: Client, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = client.keys.create("leaver", "server")
    assert status(api, made["key"]) == 200
    store.hdel(KEYS, api_keys.digest(made["key"]))
    monkeypatch.setattr(api_keys, "_FRESH_S", -1.0)
    assert status(api, made["key"]) == 401


def test_a_rotated_key_works_as_long_as_was_said(
    api: Api, client: Client, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = client.keys.create("backend", "server", origins=["https://shop.example"])
    new = client.keys.rotate(old["id"], overlap_s=3600)
    assert status(api, old["key"]) == status(api, new["key"]) == 200
    kept = shown(client, old["id"])
    assert (kept["state"], kept["replaced_by"]) == ("rotated", new["id"])
    assert (new["name"], new["scope"], new["origins"]) == (
        "backend", "server", ["https://shop.example"],
    )  # fmt: skip
    assert new["expires_at"] is None
    record = orjson.loads(store.hget(KEYS, api_keys.digest(old["key"])))
    assert record["expires_ms"] == orjson.loads(
        store.hget(KEYS, api_keys.digest(new["key"]))
    )["created_ms"] + 3_600_000  # fmt: skip
    with pytest.raises(ApiError, match=new["id"]) as caught:
        client.keys.rotate(old["id"])
    assert caught.value.status == 409
    later_s = time.time() + 3601
    monkeypatch.setattr(api_keys.time, "time", lambda: later_s)
    assert (status(api, old["key"]), status(api, new["key"])) == (401, 200)


def test_a_rotation_without_overlap_ends_the_old_key(api: Api, client: Client) -> None:
    old = client.keys.create("backend", "server")
    new = client.keys.rotate(old["id"], overlap_s=0)
    assert (status(api, old["key"]), status(api, new["key"])) == (401, 200)
    response = client.http.post(f"/v1/keys/{new['id']}/rotate", json={"overlap_s": 2_592_001})
    assert response.status_code == 422


def test_last_use_is_written_once_a_minute_and_not_before_the_answer(
    api: Api, client: Client, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = client.keys.create("used", "server")
    assert shown(client, made["id"])["last_used_at"] is None
    assert status(api, made["key"]) == 200
    wait_until(lambda: store.hexists(USED, made["id"]), "the last use")
    store.hset(USED, made["id"], 1)
    assert status(api, made["key"]) == 200
    assert client.keys.all()["keys"]  # a round trip later
    assert store.hget(USED, made["id"]) == b"1"
    monkeypatch.setattr(api_keys, "_USE_S", 0.0)
    assert status(api, made["key"]) == 200
    wait_until(lambda: store.hget(USED, made["id"]) != b"1", "the next use")


def test_keys_of_an_earlier_version_are_read(api: Api, client: Client, store: Any) -> None:
    body = orjson.dumps({"name": "old shop", "scope": "server"})
    store.hset(KEYS, api_keys.digest("old"), body)
    client.keys.create("any", "write")  # has the ring read anew
    assert status(api, "old") == 200
    kept = shown(client, api_keys.digest("old")[:12])
    assert (kept["state"], kept["created_at"], kept["expires_at"]) == ("active", None, None)
    made = client.keys.rotate(kept["id"], overlap_s=0)
    assert (status(api, "old"), status(api, made["key"])) == (401, 200)


def test_a_key_of_a_scope_that_is_not_known_is_nobodys(
    api: Api, client: Client, store: Any
) -> None:
    store.hset(KEYS, api_keys.digest("odd"), orjson.dumps({"name": "odd", "scope": "owner"}))
    client.keys.create("any", "write")
    assert status(api, "odd") == 401
    assert status(api, ADMIN_KEY) == 200
    store.hdel(KEYS, api_keys.digest("odd"))
