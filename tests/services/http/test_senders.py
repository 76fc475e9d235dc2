"""What a key that may stand in a browser may send, and what it cannot make of other people."""

import itertools
from typing import Any

import orjson
import pytest
import redis
from api_calls import post, view
from gateway_thread import Api
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import CANONICAL_TYPES, ITEM_TYPES, Event, EventRecord, to_record
from feature_repo.events.types import find_types
from feature_repo.user_profile import explicit
from services.client import Client
from services.event_log.keys import owners_key
from services.event_log.links import merge_histories, move_event
from services.history.merged_history import restore_owners
from services.http import api_keys
from services.http.senders import refusal

KEYS = {f"{scope}-key": scope for scope, may in api_keys.CONTAINS.items() if "write" in may}
BROWSER = api_keys.Caller("browser", "write", "0" * 12)
PSEUDONYMS = Pseudonyms(key=b"0123456789abcdef", partitions=16)
names = (f"cookie-{n}" for n in itertools.count())


@pytest.fixture(scope="module")
def api(make_api: Any) -> Api:
    return keyed(make_api())


def keyed(api: Api) -> Api:
    store = redis.Redis.from_url(api.url)
    for key, scope in KEYS.items():
        api_keys.register(store, key, name=scope, scope=scope)
    store.close()
    return api


@pytest.fixture
def cookie() -> str:
    return next(names)


def event_of(kind: str, **more: Any) -> dict[str, Any]:
    items = {"items": [{"item_id": "A"}]} if kind in ITEM_TYPES else {}
    order = {"order_id": "o"} if kind in {"purchase", "refund"} else {}
    rating = {"rating": 5} if kind == "rate_item" else {}
    return {"type": kind, "user_id": "u", **items, **order, **rating, **more}


NEVER = ["refund", "coupon_redeemed", "campaign_decision", "message_sent", "message_opened",
         "message_clicked", "message_unsubscribed", "message_of_my_own"]  # fmt: skip
REFUSED: list[tuple[dict[str, Any], str]] = [
    *((event_of(kind), "/type") for kind in NEVER),
    *((event_of("login", source=s), "/source")
      for s in ("portrait", "Portrait", " portrait", "portrait-campaigns")),
    (event_of("login", consent={"ads": False, "email": True}), "/consent"),
    (event_of("consent_updated", properties={"ads": True}), "/properties"),
    (event_of("consent_updated", properties={"purpose": "ads", "granted": True}), "/properties"),
    (event_of("identify", anonymous_id="c", consent={"email": True}), "/consent"),
]  # fmt: skip
TAKEN: list[dict[str, Any]] = [
    *(event_of(kind) for kind in sorted(CANONICAL_TYPES - set(NEVER))),
    event_of("played_with_the_zoom"),
    event_of("login", source="web-portrait"),
    event_of("consent_updated", consent={"email": False}),
    event_of("consent_updated", properties={"ads": False}),
    event_of("view_item", properties={"ads": True}),  # no statement: another type
    {"type": "consent_updated", "anonymous_id": "c", "consent": {"email": True}},
]


@pytest.mark.parametrize(("body", "pointer"), REFUSED, ids=str)
def test_what_is_not_a_shoppers_is_refused_to_a_write_key_alone(
    api: Api, body: dict[str, Any], pointer: str
) -> None:
    with api.client("write-key") as browser:
        problem = post(browser, body)
        assert (problem["status"], problem["type"]) == (403, "/problems/forbidden")
        assert problem["errors"][0]["pointer"] == pointer
    with api.client("server-key") as shop:
        assert shop.post_event(body)["status"] == "accepted"


def test_what_a_shopper_does_is_taken(api: Api) -> None:
    with api.client("write-key") as browser:
        for body in TAKEN:
            assert browser.post_event(body)["status"] == "accepted"


def test_these_types_are_the_shops() -> None:
    assert find_types("shop") == set(NEVER) - {"message_of_my_own"}


def test_in_a_batch_they_are_refused_one_by_one(api: Api) -> None:
    bodies = [{**body, "id": f"b{n}"} for n, (body, _) in enumerate(REFUSED)]
    good = [{**body, "id": f"g{n}"} for n, body in enumerate(TAKEN)]
    with api.client("write-key") as browser:
        found = orjson.loads(browser.http.post("/v1/events/batch", json=bodies + good).content)
    assert (found["accepted"], found["rejected"]) == (len(good), len(bodies))
    assert [(e["index"], e["id"], e["type"], e["pointer"]) for e in found["errors"]] == [
        (n, f"b{n}", "/problems/forbidden", pointer) for n, (_, pointer) in enumerate(REFUSED)
    ]


def test_an_event_keeps_which_key_sent_it(api: Api, user: str) -> None:
    for key, scope in KEYS.items():
        with api.client(key) as sender:
            sender.post_event(view(user, id=scope))
    with api.client() as admin:
        events = admin.events(user, limit=5)["events"]
    marks = {event["id"]: event["key"] for event in events}
    assert marks == {s: f"{s}:{api_keys.digest(k)[:12]}" for k, s in KEYS.items()}
    with api.client("write-key") as browser:  # nobody says it for themselves
        assert post(browser, view(user, key="admin:1"))["errors"][0]["pointer"] == "/key"


def test_a_write_key_makes_no_event_of_the_shops_a_duplicate(api: Api, user: str) -> None:
    seen, bought = view(user, id="e", source="s"), event_of("purchase", user_id=user, id="e")
    with api.client("write-key") as browser, api.client("server-key") as shop:
        first = browser.post_event(seen)
        assert first["status"] == "accepted"
        order = shop.post_event(bought | {"source": "s"})
        assert order["status"] == "accepted"
        for sender, before in ((browser, first), (shop, order)):  # each its own receipt again
            again = sender.post_event(seen if sender is browser else bought | {"source": "s"})
            assert (again["status"], again["receipt"]) == ("duplicate", before["receipt"])
        told = shop.post_event(view(user, id="f"))
        repeated = browser.post_event(view(user, id="f"))
        assert (repeated["status"], repeated["receipt"]) == ("duplicate", told["receipt"])
        batch = [view(user, id="g"), view(user, id="g")]
        assert browser.post_batch(batch)["duplicates"] == 1


# --- links


def consents(client: Client, user: str) -> dict[str, bool]:
    """Return what a user said, by the purposes' own names."""
    found = client.profile(user)["consent"]
    return {purpose: said["granted"] for purpose, said in found.items()}


def send(api: Api, key: str, *bodies: dict[str, Any]) -> None:
    with api.client(key) as client:
        for body in bodies:
            receipt = client.post_event(body)["receipt"]
    with api.client() as admin:
        admin.wait_applied(receipt)


def link(user: str, cookie: str) -> dict[str, Any]:
    return {"type": "identify", "user_id": user, "anonymous_id": cookie}


def says(cookie: str, **purposes: bool) -> dict[str, Any]:
    return {"type": "consent_updated", "anonymous_id": cookie, "consent": purposes}


@pytest.mark.parametrize("granted_first", [True, False])
def test_a_write_key_gets_no_grant_for_a_user_by_way_of_its_own_cookie(
    api: Api, user: str, cookie: str, *, granted_first: bool
) -> None:
    both = [says(cookie, email=True, ads=False), link(user, cookie)]
    send(api, "write-key", *(both if granted_first else reversed(both)))
    with api.client() as admin:
        assert consents(admin, user) == {"ads": False}
    send(api, "server-key", says(cookie, email=True))
    with api.client() as admin:  # the shop's server may say so
        assert consents(admin, user) == {"ads": False, "email": True}


def test_a_guest_may_grant_for_itself(api: Api, cookie: str) -> None:
    send(api, "write-key", says(cookie, email=True))
    with api.client() as admin:
        profile = admin.http.get(f"/v1/users/{cookie}/profile").json()
    assert profile["consent"]["email"]["granted"]


def seen(api: Api, user: str) -> set[str]:
    with api.client() as admin:
        return {event["id"] for event in admin.events(user, limit=50)["events"]}


def browse(cookie: str, name: str) -> dict[str, Any]:
    return {"type": "login", "anonymous_id": cookie, "id": f"{cookie}-{name}"}


@pytest.mark.parametrize("restored", [False, True])
def test_a_server_key_corrects_a_link_that_a_write_key_claimed(
    api: Api, user: str, cookie: str, *, restored: bool
) -> None:
    thief = f"thief-{user}"
    send(api, "write-key", browse(cookie, "before"), link(thief, cookie), browse(cookie, "stolen"))
    send(api, "write-key", link(user, cookie), browse(cookie, "still"))  # the first claim holds
    send(api, "server-key", link(user, cookie))
    if restored:  # a store that lost its notes learns the same from the log
        store = redis.Redis.from_url(api.url)
        for partition in range(api.settings.partitions):
            store.delete(owners_key(partition))
        archive = Archive(api.settings.home / "archive" / "events")
        restore_owners(store, archive, api.settings.partitions)
        store.close()
    send(api, "write-key", browse(cookie, "after"))
    of_cookie = {name: f"{cookie}-{name}" for name in ("before", "stolen", "still", "after")}
    assert of_cookie["after"] in seen(api, user)
    # What it did before stays in the profile where it was counted.
    assert {of_cookie[name] for name in ("before", "stolen", "still")} <= seen(api, thief)
    assert not set(of_cookie.values()) & (seen(api, user) & seen(api, thief))
    with api.client() as admin:
        for one in (user, thief):
            assert admin.profile(one)["event_count"] == len(seen(api, one))
        assert admin.profile(cookie)["user_id"] == cookie
        assert admin.profile(cookie)["event_count"] == admin.profile(user)["event_count"]


@pytest.mark.parametrize("vouched", ["link", "again"])
def test_a_link_that_a_server_key_vouched_for_stays(
    api: Api, user: str, cookie: str, vouched: str
) -> None:
    other = f"other-{user}"
    if vouched == "again":
        send(api, "write-key", link(user, cookie))
    send(api, "server-key", link(user, cookie))
    for key in ("write-key", "server-key"):
        send(api, key, link(other, cookie))
    send(api, "write-key", browse(cookie, "after"))
    assert f"{cookie}-after" in seen(api, user)


def test_write_keys_may_be_kept_from_linking(make_api: Any, user: str, cookie: str) -> None:
    api = keyed(make_api(write_keys_link=False))
    with api.client("write-key") as browser:
        assert post(browser, link(user, cookie))["errors"][0]["pointer"] == "/anonymous_id"
        assert browser.post_event(view(user))["status"] == "accepted"
    send(api, "server-key", browse(cookie, "before"), link(user, cookie))
    assert f"{cookie}-before" in seen(api, user)


# --- without a service: whatever a browser's key may send, in any order

PURPOSES = st.dictionaries(st.sampled_from(["email", "ads"]), st.booleans(), max_size=2)
GUESTS = st.lists(
    st.tuples(st.sampled_from(["consent_updated", "login"]), PURPOSES, st.booleans()), max_size=6
)


def said(events: list[EventRecord]) -> dict[str, bool]:
    return {p: c.granted for p, c in explicit.fold(events).consent.items()}


@given(guest=GUESTS, before=st.integers(0, 6))
def test_no_order_of_a_browsers_events_grants_anything_for_a_user(
    guest: list[tuple[str, dict[str, bool], bool]], before: int
) -> None:
    made, denied = list[EventRecord](), set[str]()
    for n, (kind, purposes, member) in enumerate(guest):
        place = "consent" if member else "properties"
        body = {"type": kind, "anonymous_id": "c", "id": str(n), "time": 1000 + n, place: purposes}
        event = Event.model_validate(body)
        assert refusal(event, BROWSER, may_link=True) is None
        made.append(to_record(event, PSEUDONYMS, 1_000_000 + n, BROWSER.mark))
        if member or kind == "consent_updated":
            denied |= {purpose for purpose, granted in purposes.items() if not granted}
    event = Event.model_validate(link("victim", "c") | {"time": 2000, "id": "link"})
    named = to_record(event, PSEUDONYMS, 2_000_000, BROWSER.mark)
    earlier, later = made[:before], made[before:]
    own = [named, *(move_event(one, named.user) for one in later)]
    placed = [(LogPosition(100 + n, 0), one) for n, one in enumerate(own)]
    theirs = [(LogPosition(n + 1, 0), one) for n, one in enumerate(earlier)]
    folded = said(merge_histories(placed, {PSEUDONYMS.of_anonymous("c"): theirs}))
    assert folded == dict.fromkeys(denied, False)
