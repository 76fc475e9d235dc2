"""Campaigns over HTTP: kept, checked, decided in a fixed order of reasons, and logged."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import redis
from gateway_thread import Api

from feature_repo.errors import StoreUnavailableError
from feature_repo.events.pseudonyms import Pseudonyms
from services.campaigns.assignment import GLOBAL_SALT, hash_share
from services.client import Client
from services.erasure import graves
from services.event_log.append import Appender

DAY_MS = 86_400_000
GLOBAL_SHARE = 0.2


def day(offset: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() + offset * 86_400))


def campaign(**given: Any) -> dict[str, Any]:
    return {
        "audience": "lookers", "offer": {"id": "tea-5", "title": "Tea", "cost": 0.25},
        "channel": "email", "window": {"from": day(-2), "until": day(20)},
        "control": {"holdout": 0, "global_holdout": False},
    } | given  # fmt: skip


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Api:
    api = make_api(global_holdout=GLOBAL_SHARE)
    with api.client() as client:
        definition = {
            "rule": {"event": {"type": "view_item"}}, "consent": ["offers"],
            "exclude": [{"event": {"type": "purchase"}}],
        }  # fmt: skip
        client.audiences.put("lookers", definition)
        client.audiences.put("everyone", {"rule": {"event": {"type": "login"}}, "consent": []})
    return api


@pytest.fixture
def client(api: Api) -> Iterator[Client]:
    with redis.Redis.from_url(api.url) as store:
        for key in store.scan_iter("{campaigns}*"):
            store.delete(key)
    with api.client() as client:
        yield client


@pytest.fixture(scope="module")
def pseudonyms(api: Api) -> Pseudonyms:
    return Pseudonyms.load(api.settings.home, api.settings.partitions)


def call(client: Client, method: str, path: str, body: Any = None) -> Any:
    return client.http.request(
        method, f"/v1/campaigns{path}", content=None if body is None else orjson.dumps(body),
        headers={} if body is None else {"content-type": "application/json"},
    )  # fmt: skip


def made(client: Client, name: str, **given: Any) -> Any:
    response = call(client, "PUT", f"/{name}", campaign(**given))
    assert response.status_code == 201, response.json()
    return response.json()


def decide(client: Client, name: str, user: str, **given: Any) -> dict[str, Any]:
    response = call(client, "POST", f"/{name}/decide", {"user_id": user, **given})
    assert response.status_code == 200, response.json()
    found: dict[str, Any] = response.json()
    return found


def problem(response: Any, status: int) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found["status"] == response.status_code == status, found
    return found


def shopper(client: Client, user: str, *kinds: str, **event: Any) -> str:
    """Post a user's events, who consents to all, and wait until they are applied."""
    consent = event.pop("consent", {"email": True, "offers": True})
    body = {"user_id": user, "items": [{"item_id": "A", "price": 3}], "order_id": "o"} | event
    for kind in kinds or ("view_item",):
        sent = body | {"type": kind, "consent": consent}
        client.post_event(sent, return_profile=True)
    return user


def events(client: Client, user: str, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.events(user, type=kind)["events"]
    return found


def test_a_campaign_is_created_shown_listed_replaced_and_removed(client: Client) -> None:
    created = call(client, "PUT", "/spring", campaign(title="Spring"))
    assert (created.status_code, created.headers["location"]) == (201, "/v1/campaigns/spring")
    shown = created.json()
    assert (shown["goal"]["within"], shown["top"], shown["spent"]["messages"]) == ("7d", 100, 0)
    assert call(client, "GET", "/spring").json() == shown
    replaced = call(client, "PUT", "/spring", campaign(title="Late spring"))
    assert (replaced.status_code, replaced.json()["title"]) == (200, "Late spring")
    assert replaced.json()["created_at"] == shown["created_at"]
    problem(call(client, "POST", "", campaign(name="spring")), 409)
    assert call(client, "POST", "", campaign(name="autumn")).status_code == 201
    made(client, "winter")
    first = call(client, "GET", "?limit=2").json()
    assert [each["name"] for each in first["campaigns"]] == ["autumn", "spring"]
    rest = call(client, "GET", f"?limit=2&cursor={first['next_cursor']}").json()
    assert [each["name"] for each in rest["campaigns"]] == ["winter"]
    assert rest["next_cursor"] is None
    assert call(client, "DELETE", "/winter").status_code == 204
    problem(call(client, "DELETE", "/winter"), 404)
    problem(call(client, "GET", "/winter"), 404)


def test_what_is_wrong_is_pointed_at_and_nothing_is_stored(client: Client) -> None:
    wrong = campaign(
        caps=[{"most": 1, "within": "1d"}, {"most": 0, "within": "91d"}], rank_by="luck",
        quiet_hours={"from": "25:00", "until": "08:00"}, budget={}, speed=3,
        window={"from": day(3), "until": day(2)},
    )  # fmt: skip
    found = problem(call(client, "PUT", "/wrong", wrong), 422)
    assert {each["pointer"] for each in found["errors"]} == {
        "/caps/1/most", "/rank_by", "/quiet_hours/from", "/budget", "/speed", "/window",
    }  # fmt: skip
    missing = problem(call(client, "PUT", "/wrong", {"audience": "lookers"}), 422)
    assert {e["pointer"] for e in missing["errors"]} == {"/offer", "/channel", "/window"}
    nobody = problem(call(client, "PUT", "/wrong", campaign(audience="nobody")), 422)
    assert nobody["errors"][0]["pointer"] == "/audience"
    problem(call(client, "PUT", "/schema", campaign()), 422)
    problem(call(client, "GET", "/wrong"), 404)
    problem(call(client, "POST", "/wrong/decide", {"user_id": "u"}), 404)
    problem(call(client, "POST", "/wrong/rank"), 404)
    problem(call(client, "GET", "/wrong/report"), 404)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/body/user_id"),
        ({"user_id": ""}, "/body/user_id"),
        ({"user_id": "u", "decision_id": "a b"}, "/body/decision_id"),
        ({"user_id": "u", "tz": "Mars"}, "/body/tz"),
        ({"user_id": "u", "time": "soon"}, "/body/time"),
        ({"user_id": "u", "time": "2001-01-01T00:00:00Z"}, "/time"),
        ({"user_id": "u", "more": 1}, "/body/more"),
    ],
)
def test_a_wrong_decision_is_refused(client: Client, body: Any, pointer: str) -> None:
    made(client, "spring")
    found = problem(call(client, "POST", "/spring/decide", body), 422)
    assert found["errors"][0]["pointer"] == pointer
    assert call(client, "GET", "/spring").json()["decided"] == 0


def test_reasons_come_in_their_order(client: Client, pseudonyms: Pseudonyms) -> None:
    """One obstacle after another is taken away, the first that is left decides."""
    shopper(client, "u-order", "login", consent={})
    quiet = {"from": "00:00", "until": "23:59"}
    blocks: dict[str, Any] = {
        "control": {"holdout": 0.9, "salt": "s", "global_holdout": True}, "top": 1,
        "quiet_hours": quiet, "budget": {"messages": 0},
    }  # fmt: skip
    users = (f"held-{n}" for n in range(1000))
    held = next(
        user for user in users
        if hash_share(GLOBAL_SALT, pseudonyms.of_user(user)) < GLOBAL_SHARE
        and hash_share("s", pseudonyms.of_user(user)) < 0.9
    )  # fmt: skip
    moment = f"{day(-1)}T00:30:00Z"
    made(client, "order", **blocks, active=False)
    assert decide(client, "order", held, time=moment)["reasons"] == ["not_active", "unknown_user"]
    shopper(client, held, "login", consent={})
    shopper(client, held, "purchase", consent={})

    def first(**given: Any) -> Any:
        return decide(client, "order", held, time=moment, **given)

    # A score is asked of those alone who may take part.
    rest = ["global_holdout", "holdout", "quiet_hours"]
    assert first()["reasons"] == ["not_active", "no_consent", "not_in_audience", "excluded", *rest]
    call(client, "PUT", "/order", campaign(**blocks, window={"from": day(2), "until": day(3)}))
    assert first()["reasons"][0] == "not_begun"
    call(client, "PUT", "/order", campaign(**blocks, window={"from": day(-3), "until": day(-2)}))
    assert first()["reasons"][0] == "ended"
    call(client, "PUT", "/order", campaign(**blocks))
    assert first()["reasons"] == ["no_consent", "not_in_audience", "excluded", *rest]
    assert (first()["arm"], first()["assigned"], first()["offer"]) == ("none", None, None)
    shopper(client, held, "login")
    assert first()["reasons"] == ["not_in_audience", "excluded", *rest]
    shopper(client, held, "view_item")
    assert first()["reasons"] == ["excluded", *rest]
    client.audiences.put("lookers-too", {"rule": {"event": {"type": "view_item"}}, "consent": []})
    call(client, "PUT", "/order", campaign(**blocks, audience="lookers-too"))
    found = first()
    assert (found["arm"], found["assigned"], found["reasons"]) == (
        "control", None, ["global_holdout", "holdout", "not_chosen", "quiet_hours"]
    )  # fmt: skip


def test_after_the_hold_outs_come_rank_quiet_hours_cap_and_budget(client: Client) -> None:
    user = shopper(client, "u-rest")
    quiet = {"from": "00:00", "until": "01:00"}
    late, noon = f"{day(-1)}T00:30:00Z", f"{day(-1)}T12:00:00Z"
    for name, given, moment, reasons in (
        ("held", {"control": {"holdout": 0.9, "salt": "s", "global_holdout": False}}, noon, None),
        ("few", {"top": 1e-9, "quiet_hours": quiet}, late, ["not_chosen", "quiet_hours"]),
        ("night", {"quiet_hours": quiet, "budget": {"messages": 0}}, late, ["quiet_hours"]),
        ("day", {"quiet_hours": quiet}, noon, ["chosen"]),
        ("capped", {"caps": [{"scope": "channel", "most": 1, "within": "2d"}],
                    "budget": {"amount": 0.2}}, noon, ["frequency_cap", "budget"]),
        ("free", {"caps": [{"scope": "campaign", "most": 1, "within": "2d"}]}, noon, ["chosen"]),
        ("poor", {"budget": {"amount": 0.2}}, noon, ["budget"]),
        ("coin", {"explore": 1, "top": 1e-9}, noon, ["not_chosen"]),
    ):  # fmt: skip
        made(client, name, **given)
        found = decide(client, name, user, time=moment)
        if reasons is not None:
            expected = [["explored"], reasons] if name == "coin" else [reasons]
            assert found["reasons"] in expected, name
            assert found["assigned"] == "treated"
            assert found["arm"] == ("treated" if reasons[0] == "chosen" else found["arm"])
    assert decide(client, "coin", user)["propensity"] == 0.5


def test_arms_can_be_computed_again_from_the_documented_formula(
    client: Client, pseudonyms: Pseudonyms
) -> None:
    import hashlib

    made(client, "hashed", audience="everyone",
         control={"holdout": 0.5, "salt": "pepper", "global_holdout": True})  # fmt: skip

    def again(salt: str, user: str) -> float:
        text = f"{salt}|{pseudonyms.of_user(user)}"
        return (int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) // 2048) / 2**53

    seen = set()
    for n in range(24):
        user = shopper(client, f"u-hash-{n}", "login")
        found = decide(client, "hashed", user)
        if again("portrait:global", user) < GLOBAL_SHARE:
            expected = ("control", None, "global_holdout")
        elif again("pepper", user) < 0.5:
            expected = ("control", "control", "holdout")
        else:
            expected = ("treated", "treated", "chosen")
        assert (found["arm"], found["assigned"], found["reasons"][0]) == expected
        seen.add(expected[2])
        (logged,) = events(client, user, "campaign_decision")
        assert logged["campaign_id"] == "hashed"
        assert logged["properties"]["arm"] == found["arm"]
        assert logged["properties"]["salt"] == "pepper"
        sent = events(client, user, "message_sent")
        assert len(sent) == (found["arm"] == "treated")
    assert seen == {"global_holdout", "holdout", "chosen"}


def test_a_repeated_decision_is_the_same_and_spends_nothing(client: Client) -> None:
    user = shopper(client, "u-again")
    made(client, "again", budget={"messages": 5})
    first = call(client, "POST", "/again/decide", {"user_id": user})
    again = call(client, "POST", "/again/decide", {"user_id": user})
    assert "idempotent-replayed" not in first.headers
    assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")
    other = decide(client, "again", user, decision_id="monday")
    assert (other["arm"], decide(client, "again", user, decision_id="monday")) == ("treated", other)
    assert call(client, "GET", "/again").json()["spent"] == {"messages": 2, "amount": 0.5}
    assert len(events(client, user, "message_sent")) == 2
    assert len(events(client, user, "campaign_decision")) == 2


def test_a_blocked_user_may_be_asked_again_unless_the_decision_has_a_name(client: Client) -> None:
    user = shopper(client, "u-night")
    made(client, "night", quiet_hours={"from": "22:00", "until": "08:00"})
    night, noon = f"{day(-1)}T23:00:00Z", f"{day(0)}T00:00:00Z"
    assert decide(client, "night", user, time=night)["reasons"] == ["quiet_hours"]
    named = decide(client, "night", user, time=night, decision_id="one")
    tokyo = decide(client, "night", user, time=noon, tz="Asia/Tokyo")
    assert (tokyo["arm"], tokyo["reasons"]) == ("treated", ["chosen"])
    assert decide(client, "night", user, time=noon, tz="Asia/Tokyo", decision_id="one") == named


def test_the_time_zone_is_that_of_the_users_last_event(client: Client) -> None:
    made(client, "zoned", quiet_hours={"from": "22:00", "until": "08:00"})
    moment = f"{day(-1)}T23:00:00Z"
    for user, tz, reason in (("u-tokyo", "Asia/Tokyo", "quiet_hours"), ("u-none", None, None)):
        shopper(client, user, **({} if tz is None else {"tz": "Europe/Berlin"}))
        shopper(client, user, **({} if tz is None else {"tz": tz}))
        found = decide(client, "zoned", user, time=f"{day(-1)}T23:30:00Z")
        # 08:30 in Tokyo, 23:30 in UTC, which stands in.
        assert found["reasons"] == (["chosen"] if tz else ["quiet_hours"]), reason
    assert decide(client, "zoned", "u-tokyo", time=moment)["reasons"] == ["chosen"]


def test_a_decision_that_was_spent_but_not_logged_is_completed_by_its_repeat(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = shopper(client, "u-cut")
    made(client, "cut", budget={"messages": 1}, caps=[{"most": 1, "within": "1d"}])
    append, failed = Appender.append, list[str]()

    async def failing(self: Appender, records: Any) -> Any:
        if not failed:
            failed.append(records[0].id)
            raise StoreUnavailableError("the log is away")
        return await append(self, records)

    monkeypatch.setattr(Appender, "append", failing)
    problem(call(client, "POST", "/cut/decide", {"user_id": user}), 503)
    assert call(client, "GET", "/cut").json()["spent"]["messages"] == 1
    assert events(client, user, "message_sent") == []
    answers = [decide(client, "cut", user) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0]["reasons"] == ["chosen"]
    assert call(client, "GET", "/cut").json()["spent"]["messages"] == 1
    for kind in ("message_sent", "campaign_decision"):
        assert len(events(client, user, kind)) == 1
    assert failed == [events(client, user, "campaign_decision")[0]["id"]]


def test_consent_that_is_taken_back_stops_even_a_decision_that_was_made(client: Client) -> None:
    now_s, user = int(time.time()), shopper(client, "u-leaves", time=int(time.time()) - 50)
    made(client, "left")
    assert decide(client, "left", user)["arm"] == "treated"
    withdrawn = {"type": "consent_updated", "consent": {"email": False}}
    for ago_s, left in ((40, withdrawn), (20, {"type": "message_unsubscribed"})):
        sent = {**left, "user_id": user, "channel": "email", "time": now_s - ago_s}
        client.post_event(sent, return_profile=True)
        assert decide(client, "left", user)["reasons"] == ["no_consent"]
        shopper(client, user, "consent_updated", time=now_s - ago_s + 10, consent={"email": True})
        assert decide(client, "left", user)["arm"] == "treated"
    assert call(client, "GET", "/left").json()["spent"]["messages"] == 1


def test_an_anonymous_id_of_a_users_name_decides_nothing(client: Client) -> None:
    made(client, "named")
    shopper(client, "victim", user_id=None, anonymous_id="victim")
    assert decide(client, "named", "victim")["reasons"] == ["unknown_user"]
    shopper(client, "victim", consent={"email": True})
    assert decide(client, "named", "victim")["reasons"] == ["no_consent"]
    shopper(client, "victim")
    assert decide(client, "named", "victim")["arm"] == "treated"


def test_an_experiment_that_has_decided_stays_what_it_is(client: Client) -> None:
    user = shopper(client, "u-fixed")
    made(client, "fixed")
    assert call(client, "PUT", "/fixed", campaign(goal={"within": "3d"})).status_code == 200
    decide(client, "fixed", user)
    changed = campaign(control={"holdout": 0.5, "global_holdout": False}, goal={"within": "9d"})
    found = problem(call(client, "PUT", "/fixed", changed), 422)
    assert {e["pointer"] for e in found["errors"]} == {"/control", "/goal"}
    same = campaign(goal={"within": "3d"}, active=False)
    assert call(client, "PUT", "/fixed", same).status_code == 200
    assert call(client, "DELETE", "/fixed").status_code == 204
    problem(call(client, "PUT", "/fixed", same), 409)


def test_a_score_that_nobody_has_is_refused(client: Client) -> None:
    user = shopper(client, "u-score")
    for rank_by, score in (("uplift", "uplift:tea-5"), ("propensity", "purchase_7d")):
        made(client, rank_by, rank_by=rank_by)
        for path, body in (("decide", {"user_id": user}), ("rank", None)):
            found = problem(call(client, "POST", f"/{rank_by}/{path}", body), 422)
            assert found["errors"][0]["pointer"] == "/rank_by"
            assert score in found["detail"]
        assert call(client, "GET", f"/{rank_by}").json()["decided"] == 0


def test_an_erased_person_is_gone(client: Client, api: Api, pseudonyms: Pseudonyms) -> None:
    user = shopper(client, "u-erased")
    made(client, "gone")
    pseudonym = pseudonyms.of_user(user)
    with redis.Redis.from_url(api.url) as store:
        store.sadd(f"{pseudonym[:6]}erased", pseudonym)
    problem(call(client, "POST", "/gone/decide", {"user_id": user}), 410)
    linked = shopper(client, "u-linked", anonymous_id="g-linked")
    with redis.Redis.from_url(api.url) as store:
        graves.bury(store, [pseudonyms.of_user(linked)])
    problem(call(client, "POST", "/gone/decide", {"user_id": "g-linked"}), 410)
    assert call(client, "GET", "/gone").json()["spent"]["messages"] == 0


def test_a_decision_is_no_sign_of_life(client: Client) -> None:
    user = shopper(client, "u-passive")
    before = client.profile(user)["identity"]
    made(client, "passive")
    assert decide(client, "passive", user)["arm"] == "treated"
    client.post_event({"type": "message_sent", "user_id": user}, return_profile=True)
    found = client.profile(user)
    kinds = found["identity"].pop("events_by_type")
    assert kinds == {"view_item": 1, "campaign_decision": 1, "message_sent": 2}
    del before["events_by_type"]
    assert found["identity"] == before
    assert found["session"]["events"] == 1
