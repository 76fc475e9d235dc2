"""Entering and leaving: told once, at the event that does it, and equal to the members."""

import itertools
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import orjson
import pytest
import redis
from gateway_thread import Api
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.audiences import language
from feature_repo.events.schema import EventRecord
from feature_repo.online.live_row import LiveState
from services.audiences import definitions
from services.audiences import watch as audience_watch
from services.audiences.watch import CHANGES, AudienceWatch
from services.client import Client
from services.models.transition import Transition
from services.runtime.backoff import Backoff
from tests.feature_repo import audience_shops as shops

LOOKED: dict[str, Any] = {"event": {"type": "view_item", "count": {"gte": 2}}}
ITEM = {"item_id": "A"}
RULES: dict[str, Any] = {
    "looked": LOOKED,
    "only-looked": {"all": [LOOKED, {"not": {"event": {"type": "purchase"}}}]},
    "new": {"trait": {"name": "lifecycle.stage", "eq": "new"}},
    "quiet": {"trait": {"name": "rfm.recency_days", "gte": 10}},
    "batch": {"event": {"type": "purchase", "within": "7d"}},
}


def watch() -> AudienceWatch:
    made = AudienceWatch(None, Backoff())
    made.follow({
        name: language.read({"rule": rule, "consent": ["ads"] if name == "looked" else []})
        for name, rule in RULES.items()
    })  # fmt: skip
    return made


@given(log=shops.logs(), cuts=st.lists(st.integers(0, 35), max_size=6))
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_entered_and_left_add_up_to_who_is_a_member(
    log: list[EventRecord], cuts: list[int]
) -> None:
    watched, transition = watch(), Transition(None)
    rows = dict[str, LiveState | None]()
    inside = set[tuple[str, str]]()
    edges = sorted({0, len(log), *(min(cut, len(log)) for cut in cuts)})
    for start, end in pairwise(edges):
        batch = log[start:end]
        before = {event.user: rows.get(event.user) for event in batch}
        after, _ = transition.apply(before, batch)
        for change in watched.changes(before, after):
            member = change["audience"], change["user"]
            assert (member in inside) == (change["change"] == "left")
            inside ^= {member}
        rows.update(after)
    everyone = {user: row for user, row in rows.items() if row is not None}
    fresh = {(c["audience"], c["user"]) for c in watched.changes({}, everyone)}
    assert inside == fresh
    assert "batch" not in {name for name, _ in inside}


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()


def followed(api: Api, count: int, started: threading.Event, path: str = "") -> list[Any]:
    """Return the first ``count`` events of the stream."""
    found, event = list[Any](), dict[str, Any]()
    with (
        api.client() as client,
        client.http.stream("GET", f"/v1/audiences/changes{path}") as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            started.set()
            name, _, value = line.partition(": ")
            if name in {"id", "event"}:
                event[name] = value
            elif name == "data":
                found.append(event | orjson.loads(value))
                event = {}
                if len(found) == count:
                    break
    return found


def test_who_enters_and_leaves_is_told_as_it_happens(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audience_watch, "READ_EVERY_S", 0.0)
    found, started = list[Any](), threading.Event()
    with api.client() as client:
        for name in ("looked", "only-looked", "batch"):
            body = {"rule": RULES[name], "consent": []}
            answer = client.http.put(f"/v1/audiences/{name}", json=body)
            assert answer.status_code == 201
        _until_followed(api, client)
        thread = threading.Thread(
            target=lambda: found.extend(followed(api, 2, started, "?names=only-looked"))
        )
        thread.start()
        assert started.wait(10)
        for kind in ("view_item", "view_item", "view_item", "purchase"):
            body = {"type": kind, "user_id": "u", "items": [ITEM], "order_id": "o"}
            client.post_event(body, return_profile=True)
        thread.join(15)
    assert [(each["event"], each["audience"]) for each in found] == [
        ("entered", "only-looked"), ("left", "only-looked"),
    ]  # fmt: skip
    assert [each["version"] for each in found] == [2, 4]
    again = followed(api, 1, started, f"?names=only-looked&after={found[0]['id']}")
    assert again == found[1:]


def _until_followed(api: Api, client: Client) -> None:
    """Post events of fresh users until the updater has read the definitions."""
    with redis.Redis.from_url(api.url) as store:
        end_s = time.monotonic() + 30
        for number in itertools.takewhile(lambda _: time.monotonic() < end_s, itertools.count()):
            for _ in range(2):
                body = {"type": "view_item", "user_id": f"try-{number}", "items": [ITEM]}
                client.post_event(body, return_profile=True)
            if store.xlen(CHANGES):
                return
    raise AssertionError("the audience is not followed")


def test_a_definition_of_an_earlier_version_names_the_lifecycle_of_today() -> None:
    rule = {"all": [LOOKED, {"trait": {"name": "lifecycle_stage", "in": ["prospect", "new"]}}]}
    body = {"definition": {"rule": rule, "consent": []}, "created_ms": 1, "updated_ms": 2}
    found = definitions.decode_all({b"old": orjson.dumps(body), b"_version": b"3"})
    asked = language.to_document(found["old"].definition)["rule"]["all"][1]["trait"]
    assert (asked["name"], asked["in"]) == ("lifecycle.stage", ["visitor", "new"])


def test_an_unknown_place_in_the_stream_is_refused(api: Api) -> None:
    with api.client() as client:
        answer = client.http.get("/v1/audiences/changes?after=yesterday")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/query/after"
