"""Examples of the API's description are what the running gateway answers."""

import re
from collections.abc import Callable
from typing import Any

import msgspec
import orjson
import pytest
import redis
import small_model
from gateway_thread import ADMIN_KEY, Api

from services.audiences.schemas import DEFINITION, TRAITS
from services.campaigns.schemas import CAMPAIGN
from services.http.openapi import (
    CONSENTS_EXAMPLE,
    DECIDE_EXAMPLE,
    EVENT_EXAMPLE,
    ITEM_EXAMPLE,
    RANK_EXAMPLE,
    SESSION_EXAMPLE,
)
from services.http.profile_schemas import PROFILE
from services.models import registry
from services.models.loaded import version_of
from services.models.registry import Alias, Aliases


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()


def examples(responses: dict[int | str, Any]) -> dict[str, Any]:
    """Return the examples of a route's answer by name; of one alone, by the empty name."""
    media = responses[200]["content"]["application/json"]
    found = {name: each["value"] for name, each in media.get("examples", {}).items()}
    found |= {"": media["example"]} if "example" in media else {}
    return orjson.loads(orjson.dumps(found))  # type: ignore[no-any-return]


def steady(value: Any) -> Any:
    """Return an answer without what depends on the hour: times, days of the week, histograms."""
    if isinstance(value, dict):
        shown = {name: steady(each) for name, each in value.items()}
        if "hour_histogram" in shown:
            shown["peak"] |= {"hour": 0}
            for name in ("hour_histogram", "weekday_histogram"):
                shown[name] = sorted(shown[name])
        return shown
    if isinstance(value, list):
        return [steady(each) for each in value]
    if isinstance(value, str):
        value = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", value)
        return re.sub(r"\w+days?\b(?<!today)|\d\d:00", "WHEN", value)
    return value


def test_profiles_are_answered_as_their_examples_say(api: Api) -> None:
    with api.client() as client:
        view = {
            "type": "view_item", "user_id": "123", "items": [{"item_id": "A"}],
            "consent": {"ads": False}, "source": "web",
        }  # fmt: skip
        receipt = client.post_event(view)["receipt"]
        said = examples(PROFILE)
        for name in ("full", "summary"):
            answered = client.profile("123", view=name, after=receipt)
            assert steady(answered) == steady(said[name])
        bought = {
            "type": "purchase",
            "user_id": "123",
            "items": [{"item_id": "B"}],
            "order_id": "1",
        }
        receipt = client.post_event(bought)["receipt"]
        assert client.profile("123", view="seed", after=receipt) == said["seed"]


def test_traits_are_answered_as_their_example_says(api: Api) -> None:
    with api.client() as client:
        traits = client.audiences.traits()["traits"]
    assert all(trait in traits for trait in examples(TRAITS)[""]["traits"])


# --- every other example: the members that it shows, and their types


BAD = EVENT_EXAMPLE | {"id": "e-2", "items": [{"item_id": "A", "price": -1}]}
BAD_ITEM = ITEM_EXAMPLE | {"price": -1}
OTHER_ITEM = {"item_id": "B", "category": "Grocery/Coffee"}
CONSENTS = "/v1/users/{user_id}/consents"
WITHOUT_AN_END = CAMPAIGN | {"window": {"from": "2020-01-01", "until": "2099-01-01"}}
ASKED: list[tuple[str, int, dict[str, Any], Any]] = [
    ("PUT /v1/items/{item_id}", 201, {}, ITEM_EXAMPLE | {"brand": "Ox", "currency": "EUR"}),
    ("PUT /v1/items/{item_id}", 200, {}, ITEM_EXAMPLE | {"brand": "Ox", "currency": "EUR"}),
    ("POST /v1/items/batch", 200, {}, [OTHER_ITEM]),
    ("POST /v1/items/batch", 207, {}, [OTHER_ITEM, BAD_ITEM]),
    ("POST /v1/items/batch", 422, {}, [BAD_ITEM]),
    ("GET /v1/items/{item_id}", 200, {}, None),
    ("PATCH /v1/items/{item_id}", 200, {}, {"price": 3.5}),
    ("PATCH /v1/items", 200, {}, [{"item_id": "A", "price": 3.5}]),
    ("PATCH /v1/items", 207, {}, [{"item_id": "A", "price": 3.5}, {"item_id": "A", "price": -1}]),
    ("PATCH /v1/items", 422, {}, [{"item_id": "A", "price": -1}]),
    ("GET /v1/items/{item_id}/similar", 200, {}, None),
    ("POST /v1/events", 202, {}, EVENT_EXAMPLE | {"channel": "web"}),
    ("POST /v1/events/batch", 202, {}, [EVENT_EXAMPLE]),
    ("POST /v1/events/batch", 207, {}, [EVENT_EXAMPLE, BAD]),
    ("POST /v1/events/batch", 422, {}, [BAD]),
    ("PUT " + CONSENTS, 202, {}, CONSENTS_EXAMPLE),
    (
        "POST /v1/events",
        200,
        {"return": "profile"},
        EVENT_EXAMPLE | {"id": "e-3", "channel": "web"},
    ),
    ("GET " + CONSENTS, 200, {}, None),
    ("GET /v1/users/{user_id}/events", 200, {"type": "view_item"}, None),
    ("GET /v1/users/{user_id}/export", 200, {}, None),
    ("GET /v1/users/{user_id}/recommendations", 200, {"explain": "true"}, None),
    ("POST /v1/recommendations", 200, {}, SESSION_EXAMPLE | {"explain": True}),
    ("POST /v1/rank", 200, {}, RANK_EXAMPLE | {"explain": True}),
    ("GET /v1/users/{user_id}/explanations", 200, {"target": "item:A"}, None),
    ("PUT /v1/audiences/{name}", 201, {}, DEFINITION),
    ("PUT /v1/audiences/{name}", 200, {}, DEFINITION),
    ("POST /v1/audiences", 201, {}, DEFINITION | {"name": "a"}),
    ("GET /v1/audiences/{name}", 200, {}, None),
    ("GET /v1/audiences", 200, {}, None),
    ("GET /v1/audiences/traits", 200, {}, None),
    ("POST /v1/audiences/preview", 200, {}, DEFINITION),
    ("GET /v1/audiences/{name}/preview", 200, {}, None),
    ("GET /v1/audiences/{name}/members", 200, {}, None),
    ("GET /v1/audiences/overlap", 200, {"names": "a,regulars"}, None),
    ("PUT /v1/campaigns/{name}", 201, {}, WITHOUT_AN_END),
    ("PUT /v1/campaigns/{name}", 200, {}, WITHOUT_AN_END),
    ("POST /v1/campaigns", 201, {}, WITHOUT_AN_END | {"name": "summer"}),
    ("GET /v1/campaigns/{name}", 200, {}, None),
    ("GET /v1/campaigns", 200, {}, None),
    ("POST /v1/campaigns/{name}/decide", 200, {}, DECIDE_EXAMPLE),
    ("POST /v1/campaigns/{name}/rank", 200, {}, None),
    ("GET /v1/campaigns/{name}/report", 200, {}, None),
    ("GET /v1/analytics/trends", 200, {}, None),
    ("GET /v1/analytics/drift", 200, {}, None),
    ("GET /v1/analytics/retention", 200, {}, None),
    ("GET /v1/analytics/funnel", 200, {"steps": "view_item,purchase"}, None),
    ("GET /v1/analytics/rfm", 200, {}, None),
    ("GET /v1/analytics/habits", 200, {}, None),
    ("GET /v1/analytics/affinities", 200, {}, None),
    ("GET /health/live", 200, {}, None),
    ("GET /health/ready", 200, {}, None),
    ("GET /v1/models", 200, {}, None),
    ("GET /v1/models/{name}", 200, {}, None),
    ("POST /v1/models/{name}/promote", 200, {}, {"alias": "production"}),
    ("POST /v1/models/rollback", 200, {}, None),
    ("DELETE /v1/models/{name}", 200, {}, None),
    ("POST /v1/keys", 201, {}, {"name": "tracker", "scope": "write"}),
    ("GET /v1/keys", 200, {}, None),
    ("POST /v1/keys/{key_id}/rotate", 201, {}, {"overlap_s": 60}),
    ("GET /v1/audit", 200, {}, None),
    ("POST /v1/erasures", 202, {}, {"user_ids": ["999"]}),
    ("DELETE /v1/users/{user_id}", 202, {}, None),
    ("GET /v1/erasures/{erasure_id}", 200, {}, None),
    ("GET /v1/erasures", 200, {}, None),
]
"""Operation, status, query and body of one request for each example, in the order they are sent."""
ELSEWHERE = {
    ("GET /v1/users/{user_id}/profile", 200),  # above, in whole
    ("GET /health/ready", 503),  # the same members as 200, of a store that does not answer
    ("GET /v1/audiences/schema", 200),  # a JSON Schema, of which only the title is shown
    ("GET /v1/campaigns/schema", 200),
    ("GET /v1/schemas/export", 200),
}
BY_NAME = {
    "decided",
    "checks",
    "counts",
    "consents",
    "consent",
    "events_by_type",
    "shares",
    "data",
    "features",
    "by_model",
    "metrics",
    "calibration",
    "ablations",
    "files",
}
"""Members that are maps: their keys are data."""


def differences(said: Any, answered: Any, place: str = "") -> list[str]:
    """Return where an answer has other members than its example, or of another type.

    Null goes with everything. Of a list the example's first entry is compared with the entry that
    is most like it.
    """
    if said is None or answered is None:
        return []
    if isinstance(said, dict) and isinstance(answered, dict):
        members = sorted(set(said) & set(answered))
        named = place.rpartition(".")[2] in BY_NAME
        only = [
            (name, side)
            for side, names in (("example", set(said) - set(answered)),
                                ("answer", set(answered) - set(said)))
            for name in ([] if named else sorted(names))
        ]  # fmt: skip
        return [f"{place}.{name}: only in the {side}" for name, side in only] + [
            each for name in members
            for each in differences(said[name], answered[name], f"{place}.{name}")
        ]  # fmt: skip
    if isinstance(said, list) and isinstance(answered, list):
        each = [differences(said[0], other, place) for other in answered if said]
        return min(each, key=len, default=[])
    kinds = [int if type(each) is float else type(each) for each in (said, answered)]
    return [] if kinds[0] is kinds[1] else [f"{place}: {said!r} is {answered!r}"]


@pytest.fixture(scope="module")
def described(api: Api) -> dict[tuple[str, int], Any]:
    """Examples of JSON answers by operation and status."""
    with api.client() as client:
        paths = client.http.get("/openapi.json").json()["paths"]
    return {
        (f"{method.upper()} {path}", int(status)): answer["content"]["application/json"]
        for path, operations in paths.items()
        for method, operation in operations.items()
        for status, answer in operation["responses"].items()
        if "application/json" in answer.get("content", {})
    }


def test_every_example_has_the_members_of_its_answer(
    make_api: Callable[..., Api], described: dict[tuple[str, int], Any]
) -> None:
    assert {each[:2] for each in ASKED} == set(described) - ELSEWHERE
    api = make_api()
    for seed, name in enumerate(("before", "regulars")):
        small_model.write(api.settings.home / "models" / name, seed)
    before = Alias("before", str(version_of(api.settings.home / "models" / "before")), 1)
    with redis.Redis.from_url(api.url) as store:  # none is in service until one is promoted
        kept = {"generation": 1, "aliases": msgspec.json.encode(Aliases(past=(before,)))}
        store.hset(registry.KEY, mapping=kept)
    with api.client() as client:
        found, made = list[str](), {"key_id": "", "erasure_id": ""}
        for operation, status, query, body in ASKED:
            method, _, path = operation.partition(" ")
            room = path.split("/")[2]
            name = "spring" if room == "campaigns" else "regulars"
            url = path.format(user_id="123", item_id="A", name=name, **made)
            response = client.http.request(
                method, url, params=query, content=None if body is None else orjson.dumps(body),
                headers={"authorization": f"Bearer {ADMIN_KEY}",
                         "content-type": "application/json"},
            )  # fmt: skip
            if response.status_code != status:
                found.append(f"{operation} {status}: {response.status_code} {response.text}")
                continue
            if operation == "POST /v1/keys":
                made["key_id"] = response.json()["id"]
            if room == "erasures" and method == "POST":
                made["erasure_id"] = response.json()["erasure_id"]
            if method in {"POST", "PUT"} and room in {"events", "users"}:
                client.wait_applied(response.json()["receipt"])
            said = described[operation, status]["example"]
            found += [f"{operation} {status} {each}" for each in differences(said, response.json())]
    assert not found, "\n".join(found)
