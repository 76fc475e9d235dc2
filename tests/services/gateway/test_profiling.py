"""Users who deny profiling: their events are acknowledged, and nothing of them is kept."""

from collections.abc import Callable
from typing import Any

import pytest
import redis
from api_calls import purchase, view
from gateway_thread import Api
from waiting import wait_until

from feature_repo.user_profile.purposes import PURPOSES
from services.catalogue import popularity
from services.client import Client

MARK = "marker-of-what-must-not-be-kept"


def unprofiled(client: Client) -> float:
    text = client.http.get("/metrics").text
    name = "portrait_events_unprofiled_total"
    return float(next(row for row in text.splitlines() if row.startswith(name + " ")).split()[1])


def stored_bytes(api: Api) -> bytes:
    """Return every value of the store, as one."""
    with redis.Redis.from_url(api.url) as store:
        read: dict[bytes, Callable[[bytes], Any]] = {
            b"stream": store.xrange, b"hash": store.hgetall, b"set": store.smembers,
            b"string": store.get, b"zset": lambda key: store.zrange(key, 0, -1),
            b"list": lambda key: store.lrange(key, 0, -1),
        }  # fmt: skip
        found = (read[store.type(key)](key) for key in store.scan_iter())
        return repr(list(found)).encode()


def marked(user: str, number: int, **more: Any) -> dict[str, Any]:
    return purchase(user, MARK, id=f"{user}-{number}", query=MARK, url=MARK, session_id=MARK,
                    properties={"k": MARK}, **more)  # fmt: skip


@pytest.mark.parametrize("purpose", PURPOSES)
def test_only_a_denial_of_profiling_leaves_the_content_of_events_out(
    client: Client, user: str, purpose: str
) -> None:
    client.post_event(view(user), return_profile=True)
    client.put_consents(user, {purpose: False})  # what follows is behind it, applied or not
    before = unprofiled(client)
    sent = view(user, "B", id=f"{user}-1")
    first, again = client.post_event(sent), client.post_event(sent)
    assert (first["status"], again["status"]) == ("accepted", "duplicate")
    assert first["receipt"] == again["receipt"]
    counted = 2 if purpose == "profiling" else 3
    assert client.profile(user, after=first["receipt"])["version"] == counted
    assert unprofiled(client) - before == 3 - counted


def test_nothing_of_their_events_is_anywhere_in_the_store(
    api: Api, client: Client, user: str
) -> None:
    kept = client.post_event(view(user, MARK + "-control"), return_profile=True)["profile"]
    receipt = client.put_consents(user, {"profiling": False})["receipt"]
    whole = client.profile(user, after=receipt)
    sent = [marked(user, number) for number in range(3)]
    for one in sent:
        answer = client.post_event(one, return_profile=True)
        assert answer["profile"]["version"] == kept["version"] + 1
    taken = client.post_batch([*sent, *(marked(user, n, anonymous_id=f"v-{user}") for n in (7, 8))])
    assert (taken["duplicates"], taken["accepted"]) == (3, 2)
    client.wait_applied(taken["receipt"])
    after = client.profile(user)
    # The link alone is kept: the anonymous id is the user's.
    assert after["version"] == whole["version"] + 1
    found = stored_bytes(api)
    assert MARK.encode() + b"-control" in found
    assert found.count(MARK.encode()) == found.count(MARK.encode() + b"-control")
    guest = {"type": "view_item", "anonymous_id": f"v-{user}", "items": [{"item_id": MARK}]}
    client.wait_applied(client.post_event(guest)["receipt"])
    assert client.profile(user)["version"] == after["version"]


def test_what_they_say_about_consent_is_kept_and_a_grant_opens_the_profile_again(
    client: Client, user: str
) -> None:
    client.put_consents(user, {"profiling": False})
    login = {"type": "login", "user_id": user, "consent": {"ads": True}, "url": MARK}
    client.post_event(login)
    client.post_event({"type": "message_unsubscribed", "user_id": user, "channel": "sms"})
    receipt = client.put_consents(user, {"marketing_email": True})["receipt"]
    found = client.consents(user, after=receipt)["consents"]
    said = {purpose: found[purpose]["granted"] for purpose in found if found[purpose]["at"]}
    assert said == {
        "profiling": False, "ads": True, "marketing_sms": False,
        "marketing_email": True,
    }  # fmt: skip
    kept = client.export(user)["events"]
    assert {event["type"] for event in kept} == {"consent_updated"}
    profile = client.profile(user)  # statements tell of no habit, no session, no sign of life
    assert sum(profile["habits"]["hour_histogram"]) == 0
    assert profile["session"]["started_at"] is None
    assert not any("url" in event for event in kept)
    denied_s = found["profiling"]["at"]
    while True:  # in the same second the denial holds
        receipt = client.put_consents(user, {"profiling": True})["receipt"]
        found = client.consents(user, after=receipt)["consents"]
        if found["profiling"]["granted"]:
            break
        assert found["profiling"]["at"] == denied_s
    version = client.profile(user)["version"]
    answer = client.post_event(view(user), return_profile=True)
    assert answer["profile"]["version"] == version + 1


def test_who_denies_analytics_makes_nothing_popular(api: Api, client: Client, user: str) -> None:
    client.put_consents(user, {"analytics": False})
    client.post_event(purchase(user, f"of-{user}"), return_profile=True)
    client.post_event(purchase(f"{user}-2", f"of-{user}-2"), return_profile=True)
    with redis.Redis.from_url(api.url) as store:
        wait_until(lambda: store.zscore(popularity.KEY, f"of-{user}-2") is not None, "the count")
        assert store.zscore(popularity.KEY, f"of-{user}") is None


@pytest.mark.parametrize("batch", [False, True])
def test_the_browsers_privacy_signal_is_written_once_for_each_id(
    client: Client, user: str, *, batch: bool
) -> None:
    def post(name: str, **ids: str) -> str:
        event = {"type": "login", "id": f"{user}-{name}", **ids}
        path, body = ("/v1/events/batch", [event]) if batch else ("/v1/events", event)
        answer = client.http.post(path, json=body, headers={"sec-gpc": "1"})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["receipt"])

    def said(name: str) -> dict[str, tuple[bool, str]]:
        found = client.profile(name)["consent"]
        return {purpose: (one["granted"], one["source"]) for purpose, one in found.items()}

    denied = {"ads": (False, "gpc"), "personalization": (False, "gpc")}
    client.wait_applied(post("1", anonymous_id=f"v-{user}"))
    assert said(f"v-{user}") == denied
    client.wait_applied(post("2", user_id=user))
    assert (said(user), client.profile(user)["version"]) == (denied, 2)
    client.wait_applied(post("3", user_id=user, anonymous_id=f"v-{user}"))
    for name in ("4", "5"):  # two of the visitor, and no further statement with what follows
        client.wait_applied(post(name, user_id=user, anonymous_id=f"v-{user}"))
    assert (said(user), client.profile(user)["version"]) == (denied, 2 + 2 + 3)
    other = client.http.post("/v1/events", json=view(f"o-{user}"), headers={"sec-gpc": "0"})
    client.wait_applied(other.json()["receipt"])
    assert said(f"o-{user}") == {}


def test_a_shop_may_profile_only_who_was_asked(make_api: Callable[..., Api]) -> None:
    api = make_api(consent_defaults={"profiling": False})  # the last test of this file
    with api.client() as client:
        receipt = client.post_event(view("asked"))["receipt"]
        client.wait_applied(receipt)
        assert client.http.get("/v1/users/asked/profile").status_code == 404
        assert client.http.post("/v1/events?return=profile", json=view("asked")).status_code == 202
        receipt = client.put_consents("asked", {"profiling": True})["receipt"]
        assert client.profile("asked", after=receipt)["version"] == 1
        answer = client.post_event(view("asked"), return_profile=True)
        assert answer["profile"]["version"] == 2
