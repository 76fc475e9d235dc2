"""Audiences over HTTP: a gateway on a real store, and an archive of known users."""

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import redis
from gateway_thread import Api

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import EventRecord, ItemRecord
from services.audiences.definitions import KEY
from services.client import Client
from services.http import api_keys
from services.runtime import workers

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000 // DAY_MS * DAY_MS
SHOPPERS = tuple(f"shopper-{n:02d}" for n in range(25))
BUYERS: dict[str, Any] = {"event": {"type": "purchase"}}


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Api:
    api = make_api()
    pseudonyms = Pseudonyms.load(api.settings.home, api.settings.partitions)
    entries = []
    for number, shopper in enumerate(SHOPPERS):
        for kind, day in (("view_item", 0), ("purchase", number)):
            if kind == "purchase" and number >= 20:
                continue
            time_ms = START_MS + day * DAY_MS
            record = EventRecord(
                id=f"{kind}-{number}", type=kind, user=pseudonyms.of_user(shopper), time_ms=time_ms,
                received_ms=time_ms, order_id=f"o{number}",
                items=[ItemRecord("A", price=2.0, category="Food/Tea")],
                consent={"email": number % 2 == 0},
            )  # fmt: skip
            entries.append((LogPosition.imported(time_ms), record))
    Archive(api.settings.home / "archive" / "events").append("import", entries)
    return api


@pytest.fixture
def client(api: Api) -> Iterator[Client]:
    with redis.Redis.from_url(api.url) as store:
        store.delete(KEY)
    with api.client() as client:
        yield client


@pytest.fixture(scope="module")
def pseudonyms(api: Api) -> Pseudonyms:
    return Pseudonyms.load(api.settings.home, api.settings.partitions)


def call(client: Client, method: str, path: str, body: Any = None, kind: str = "json") -> Any:
    content = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
    return client.http.request(
        method, f"/v1/audiences{path}", content=content,
        headers={} if body is None else {"content-type": f"application/{kind}"},
    )  # fmt: skip


def put(client: Client, name: str, rule: Any, **more: Any) -> Any:
    return call(client, "PUT", f"/{name}", {"rule": rule, "consent": [], **more})


def problem(response: Any, status: int) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found["status"] == response.status_code == status, found
    return found


def test_an_audience_is_created_shown_replaced_and_removed(client: Client) -> None:
    created = put(client, "buyers", BUYERS, title="Buyers")
    assert (created.status_code, created.headers["location"]) == (201, "/v1/audiences/buyers")
    assert created.json()["plan"] == {"mode": "realtime", "reasons": [], "time_passes": False}
    assert not created.json()["contactable"]
    assert call(client, "GET", "/buyers").json() == created.json()
    replaced = put(client, "buyers", BUYERS, consent=["email"])
    assert replaced.status_code == 200
    assert replaced.json()["created_at"] == created.json()["created_at"]
    assert replaced.json()["contactable"]
    listed = {each["name"]: each for each in call(client, "GET", "").json()["audiences"]}
    assert not listed["buyers"]["ready"]
    assert listed["ready-lifecycle-lapsed"]["ready"]
    assert call(client, "DELETE", "/buyers").status_code == 204
    problem(call(client, "GET", "/buyers"), 404)
    problem(call(client, "DELETE", "/buyers"), 404)


def test_post_creates_and_never_replaces(client: Client) -> None:
    body = {"name": "buyers", "rule": BUYERS, "consent": []}
    assert call(client, "POST", "", body).status_code == 201
    problem(call(client, "POST", "", body), 409)
    assert problem(call(client, "POST", "", {**body, "name": "A b"}), 422)["errors"] == [
        {"pointer": "/name", "detail": "String should match pattern '^[a-z0-9][a-z0-9_-]{0,63}$'"}
    ]


def test_yaml_is_taken_too(client: Client) -> None:
    text = b"rule: {event: {type: purchase, between: [2023-11-01, 2024-01-01]}}\nconsent: []\n"
    assert call(client, "PUT", "/dated", text, "yaml").status_code == 201
    assert call(client, "GET", "/dated/preview").json()["count"] == 20
    found = problem(call(client, "PUT", "/dated", b"rule: [", "yaml"), 422)
    assert "line" in found["errors"][0]["detail"]


def test_what_is_wrong_is_pointed_at_and_nothing_is_stored(client: Client) -> None:
    rule = {"all": [BUYERS, {"event": {"type": "purchase", "within": "soon"}}]}
    found = problem(put(client, "buyers", rule), 422)
    assert found["errors"][0]["pointer"] == "/rule/all/1/event/within"
    preview = problem(call(client, "POST", "/preview", {"rule": rule, "consent": []}), 422)
    assert preview["errors"] == found["errors"]
    problem(call(client, "PUT", "/buyers", b"{", "json"), 400)
    problem(call(client, "PUT", "/buyers", b"x", "xml"), 415)
    problem(call(client, "PUT", "/buyers", []), 422)
    problem(put(client, "overlap", BUYERS), 422)
    problem(put(client, "ready-mine", BUYERS), 422)
    problem(call(client, "GET", "/buyers"), 404)


def test_a_preview_counts_without_storing(client: Client) -> None:
    rule = {"all": [BUYERS, {"trait": {"name": "event_count", "gte": 2}}]}
    body = {"rule": rule, "consent": ["email"]}
    found = call(client, "POST", "/preview", body).json()
    assert (found["count"], found["users"], found["contactable"]) == (10, 25, True)
    assert found["data"]["events"] == 45
    assert found["took_ms"] > 0
    assert [each for each in call(client, "GET", "").json()["audiences"] if not each["ready"]] == []


def test_history_as_of_any_date(client: Client) -> None:
    put(client, "buyers", BUYERS)
    for path, count in (("?as_of=2023-11-14", 1), ("?as_of=2023-11-18T23:00:00Z", 5), ("", 20)):
        assert call(client, "GET", f"/buyers/preview{path}").json()["count"] == count
    found = problem(call(client, "GET", "/buyers/preview?as_of=then"), 422)
    assert found["errors"][0]["pointer"] == "/query/as_of"


def test_members_come_in_pages_and_as_a_file(client: Client, pseudonyms: Pseudonyms) -> None:
    put(client, "buyers", BUYERS)
    found, cursor = list[str](), ""
    while cursor is not None:
        path = f"/buyers/members?limit=7{f'&cursor={cursor}' if cursor else ''}".replace("{", "%7B")
        page = call(client, "GET", path.replace("}", "%7D")).json()
        found += page["members"]
        cursor = page["next_cursor"]
    expected = sorted(pseudonyms.of_user(shopper) for shopper in SHOPPERS[:20])
    assert found == expected
    file = call(client, "GET", "/buyers/export")
    assert file.headers["content-type"] == "text/csv; charset=utf-8"
    assert file.text.splitlines() == ["user", *expected]
    problem(call(client, "GET", "/nobody/members"), 404)
    problem(call(client, "GET", "/nobody/export"), 404)


def test_overlap(client: Client) -> None:
    put(client, "buyers", BUYERS)
    put(client, "mailed", {"event": {"type": "view_item"}}, consent=["email"])
    found = call(client, "GET", "/overlap?names=buyers,mailed").json()
    assert found["counts"] == {"buyers": 20, "mailed": 13}
    pair = {"a": "buyers", "b": "mailed", "both": 10, "either": 23, "jaccard": 0.434783}
    assert found["pairs"] == [pair]
    problem(call(client, "GET", "/overlap?names=buyers"), 422)
    problem(call(client, "GET", "/overlap?names=buyers,nobody"), 404)


def test_audiences_that_rest_on_others(client: Client) -> None:
    missing = problem(put(client, "two", {"not": {"audience": "one"}}), 422)
    assert missing["errors"][0]["pointer"] == "/rule/not/audience"
    put(client, "one", BUYERS, consent=["email"])
    assert put(client, "two", {"all": [BUYERS, {"not": {"audience": "one"}}]}).status_code == 201
    assert call(client, "GET", "/two/preview").json()["count"] == 10
    problem(put(client, "one", {"audience": "two"}), 422)
    problem(call(client, "DELETE", "/one"), 409)
    assert put(client, "three", {"audience": "ready-lifecycle-lapsed"}).status_code == 201
    problem(put(client, "four", {"audience": "ready-interest-food-tea"}), 422)


def test_user_ids_are_kept_nowhere(client: Client, api: Api, pseudonyms: Pseudonyms) -> None:
    shown = put(client, "friends", {"user_ids": [SHOPPERS[0], "stranger"]}).json()
    assert shown["rule"] == {
        "entities": [pseudonyms.of_user(SHOPPERS[0]), pseudonyms.of_user("stranger")]
    }
    assert call(client, "GET", "/friends/preview").json()["count"] == 1
    with redis.Redis.from_url(api.url) as store:
        assert b"shopper-00" not in b"".join(store.hvals(KEY))


def test_schema_and_traits_are_served(client: Client) -> None:
    assert "rule" in call(client, "GET", "/schema").json()["properties"]
    traits = {each["name"]: each for each in call(client, "GET", "/traits").json()["traits"]}
    assert traits["lifecycle.stage"]["realtime"]
    assert not traits["rfm_recency_quintile"]["realtime"]


def test_a_key_that_may_only_write_events_is_refused(client: Client, api: Api) -> None:
    with redis.Redis.from_url(api.url) as store:
        api_keys.register(store, "writer", name="w", scope="write")
    with api.client("writer") as writer:
        problem(call(writer, "GET", ""), 403)


def test_a_rule_that_costs_too_much_is_refused_and_a_question_that_does_ends(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    step: dict[str, Any] = {"sequence": {"start": {"type": "view_item"}, "then": {"type": "login"}}}
    rule = {"all": [{"any": [step] * 50}, {"any": [step] * 50}]}
    for method, path in (("PUT", "/many"), ("POST", "/preview")):
        found = problem(call(client, method, path, {"rule": rule, "consent": []}), 422)
        assert found["errors"][0]["detail"].endswith("100 sequences: at most 20")
    put(client, "buyers", BUYERS)
    monkeypatch.setattr(workers.ASKING, "bound_s", 0.0)
    for path in (
        "/buyers/preview",
        "/buyers/members",
        "/buyers/export",
        "/overlap?names=buyers,b2",
    ):
        put(client, "b2", BUYERS)
        response = call(client, "GET", path)
        found = problem(response, 503)
        assert (found["type"], response.headers["retry-after"]) == ("/problems/too-costly", "10")
    assert client.http.get("/v1/analytics/trends").json()["type"] == "/problems/too-costly"
