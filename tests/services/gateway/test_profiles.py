"""Profiles, histories and consents over HTTP, as of any receipt."""

from typing import Any

import pytest
from api_calls import purchase, refused, view
from stalls import running_s

from feature_repo.events.schema import iso, now_ms
from feature_repo.user_profile.consent import MAX_PURPOSES
from feature_repo.user_profile.purposes import DEFAULTS
from services.client import Client


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
    asked = client.consents(user, after=receipt)["consents"]
    assert {p: (one["granted"], one["at"], one["source"]) for p, one in asked.items()} == {
        p: (granted, None, "default") for p, granted in DEFAULTS.items()
    }
    first = client.put_consents(user, {"email": True, "ads": True}, source="preferences")
    receipt = client.put_consents(user, {"ads": False})["receipt"]
    found = client.consents(user, after=receipt)["consents"]
    assert {purpose: each["granted"] for purpose, each in found.items() if each["at"]} == {
        "marketing_email": True, "ads": False,
    }  # fmt: skip
    assert found["marketing_email"]["source"] == "preferences"
    assert found.keys() == DEFAULTS.keys()
    kept = client.export(user)
    assert (kept["complete"], kept["consents"]) == (True, found)
    assert kept["profile"]["event_count"] == len(kept["events"]) == 3
    assert [event["type"] for event in kept["events"]] == ["view_item", *["consent_updated"] * 2]
    assert kept["events"][1]["id"] == first["id"]
    for wrong in ({}, {"consents": {}}, {"consents": {"": True}}, {"consents": {"a": "perhaps"}}):
        assert client.http.put(f"/v1/users/{user}/consents", json=wrong).status_code == 422
    assert client.export(user)["events"] == kept["events"]


def test_an_anonymous_id_of_a_users_name_speaks_not_for_the_user(client: Client, user: str) -> None:
    client.post_event(view(user), return_profile=True)
    said = {"type": "consent_updated", "anonymous_id": user, "consent": {"email": True}}
    client.post_event(said, return_profile=True)
    assert stated(client, user) == set()
    receipt = client.put_consents(user, {"ads": True})["receipt"]
    assert stated(client, user, after=receipt) == {"ads"}


def test_consents_are_asked_and_stated_of_whom_the_profile_shows(client: Client, user: str) -> None:
    visit, owner = {"type": "login", "anonymous_id": user}, f"other-{user}"
    client.post_event(visit, return_profile=True)
    assert stated(client, user) == set()
    receipt = client.put_consents(user, {"ads": True})["receipt"]
    assert stated(client, user, after=receipt) == {"ads"}
    assert client.profile(user)["event_count"] == 2  # the visitor's: no user came to be
    client.post_event(view(owner, anonymous_id=user), return_profile=True)
    receipt = client.put_consents(user, {"analytics": True, "profiling": False})["receipt"]
    assert stated(client, user, after=receipt) == {"ads", "analytics", "profiling"}
    assert client.consents(owner)["consents"] == client.consents(user)["consents"]
    client.post_event(visit, return_profile=True)
    assert client.profile(user)["event_count"] == client.profile(owner)["event_count"] == 4


def test_a_purpose_that_is_nearly_a_known_one_is_refused_by_name(client: Client, user: str) -> None:
    client.post_event(view(user), return_profile=True)
    given = {"Analytics": False, " ads": True, "EMAIL": True, "ads": True, "offers": True}
    path = f"/v1/users/{user}/consents"
    problem = refused(client, "PUT", path, json={"consents": given})
    assert problem["status"] == 422
    assert {one["pointer"]: one["detail"].split()[-1] for one in problem["errors"]} == {
        "/consents/Analytics": "analytics", "/consents/ ads": "ads", "/consents/EMAIL": "email",
    }  # fmt: skip
    assert stated(client, user) == set()


def stated(client: Client, user: str, after: str | None = None) -> set[str]:
    """Return the purposes about which a user said something."""
    return {p for p, one in client.consents(user, after=after)["consents"].items() if one["at"]}


def test_a_decision_keeps_its_terms_and_a_grant_ends(client: Client, user: str) -> None:
    ends = now_ms() // 1000 + 3600
    given = {
        "marketing_email": {"granted": True, "expires_at": ends, "version": "2026-11"},
        "profiling": {"granted": False, "version": "2026-11"}, "newsletter": True,
    }  # fmt: skip
    receipt = client.put_consents(user, given, source="web")["receipt"]
    found = client.consents(user, after=receipt)["consents"]
    terms = ("granted", "expires_at", "version")
    assert {p: tuple(found[p][name] for name in terms) for p in given} == {
        "marketing_email": (True, iso(ends * 1000), "2026-11"),
        "profiling": (False, None, "2026-11"), "newsletter": (True, None, None),
    }  # fmt: skip
    shown = client.profile(user)["consent"]["marketing_email"]
    assert shown == found["marketing_email"]
    # A grant that has ended by now: only an event says so, PUT takes none.
    past = {"marketing_email": {"expires_at": 1_000_000_000}}
    said_past = {"type": "consent_updated", "user_id": user, "properties": {"terms": past}}
    client.post_event(said_past | {"consent": {"marketing_email": True}}, return_profile=True)
    after = client.consents(user)["consents"]["marketing_email"]
    assert (after["granted"], after["at"], after["source"]) == (False, None, "default")


@pytest.mark.parametrize(
    ("given", "pointer"),
    [({"granted": False, "expires_at": 4_000_000_000}, "/body/consents/ads"),
     ({"granted": True, "expires_at": 1_000_000_000}, "/consents/ads/expires_at"),
     ({"granted": True, "expires_at": "soon"}, "/body/consents/ads/expires_at"),
     ({"granted": True, "version": "v" * 65}, "/body/consents/ads/version"),
     ({"expires_at": 1}, "/body/consents/ads/granted"),
     ({"granted": "perhaps"}, "/body/consents/ads/granted"),
     ("yes", "/body/consents/ads/granted"), (1, "/body/consents/ads/granted")],
)  # fmt: skip
def test_terms_that_cannot_be_are_refused(
    client: Client, user: str, given: dict[str, Any], pointer: str
) -> None:
    body = {"consents": {"ads": given}}
    problem = refused(client, "PUT", f"/v1/users/{user}/consents", json=body)
    assert problem["status"] == 422
    assert [each["pointer"] for each in problem["errors"]] == [pointer]


def test_purposes_that_have_no_room_are_refused_by_name(client: Client, user: str) -> None:
    names = [f"marketing_{n}" for n in range(MAX_PURPOSES)]  # those with a name need no room
    client.wait_applied(client.put_consents(user, dict.fromkeys(DEFAULTS, True))["receipt"])
    client.wait_applied(client.put_consents(user, dict.fromkeys(names, True))["receipt"])
    for granted in (True, False):
        given = {"consents": {"a/b": granted, names[0]: False}}
        problem = refused(client, "PUT", f"/v1/users/{user}/consents", json=given)
        assert problem["status"] == 422
        assert f"at most {MAX_PURPOSES} purposes" in problem["detail"]
        assert [each["pointer"] for each in problem["errors"]] == ["/consents/a~1b"]
    for granted, status in ((True, 422), (False, 202)):  # a denial needs no second spelling
        given = {"consents": {"0": granted}}
        assert client.http.put(f"/v1/users/{user}/consents", json=given).status_code == status


def test_profile_has_an_etag(client: Client, user: str) -> None:
    client.post_event(view(user), return_profile=True)
    path = f"/v1/users/{user}/profile"
    first = client.http.get(path)
    same = client.http.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    client.post_event(view(user), return_profile=True)
    changed = client.http.get(path, headers={"if-none-match": first.headers["etag"]})
    assert changed.status_code == 200


@pytest.mark.parametrize("path", ["users/{}/profile?", "users/{}/consents?", "receipts?"])
def test_a_receipt_of_a_partition_that_there_is_not_is_refused(
    client: Client, user: str, path: str
) -> None:
    client.post_event(view(user), return_profile=True)
    problem = refused(client, "GET", f"/v1/{path.format(user)}after=p999-1-1")
    assert problem["status"] == 422
    assert "999" in problem["detail"]


def test_a_receipt_that_never_comes_is_504_in_bounded_time(client: Client, user: str) -> None:
    receipt = client.post_event(view(user))["receipt"]
    partition = receipt.split("-")[0]
    started = running_s()
    path = f"/v1/users/{user}/profile?after={partition}-99999999999999-0"
    problem = refused(client, "GET", path)
    assert problem["status"] == 504
    assert running_s() - started < 7
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
