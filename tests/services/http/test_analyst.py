"""What a key of scope analyst reaches: aggregates, and no answer that holds one person's data."""

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import redis
from gateway_thread import Api

from services.gateway import access
from services.gateway.application import create_app
from services.http import api_keys
from services.settings import Settings
from tests.feature_repo import analytics_shop as shop

PERSON = b"u00000000000000"
"""In every pseudonym of the made-up shop, and nowhere else."""
PERSONAL = {
    "user_id", "user_ids", "anonymous_id", "members", "profile", "session_id",
    "order_id", "decision_id", "recommendation_id", "consents",
}  # fmt: skip
"""Names of fields in answers about one person."""
RULE: dict[str, Any] = {"rule": {"event": {"type": "purchase"}}, "consent": []}
CAMPAIGN: dict[str, Any] = {
    "audience": "buyers", "offer": {"id": "o"}, "channel": "email",
    "window": {"from": "2024-01-01", "until": "2030-03-01"},
}  # fmt: skip
BODIES: dict[str, Any] = {
    "POST /v1/audiences/preview": RULE,
    "POST /v1/audiences": {**RULE, "name": "more"},
    "PUT /v1/audiences/{name}": RULE,
    "POST /v1/campaigns": {**CAMPAIGN, "name": "more"},
    "PUT /v1/campaigns/{name}": CAMPAIGN,
}
QUERIES = {"GET /v1/audiences/overlap": "?names=buyers,more"}


def calls() -> list[str]:
    """Return method and path of what an analyst may call, what makes things first."""
    found = [row.rpartition(" ") for row in access.operations()]
    may = [call for call, _, needed in found if needed in api_keys.CONTAINS["analyst"]]
    return sorted(may, key=lambda call: ("GET" in call, "campaigns" in call, "POST" in call))


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Api:
    api = make_api()
    shop.write(api.settings.home, shop.table(), features=True)
    with redis.Redis.from_url(api.url) as store:
        for scope in api_keys.SCOPES:
            api_keys.register(store, f"{scope}-key", name=scope, scope=scope)
    return api


def test_no_call_of_an_analyst_answers_with_a_pseudonym(api: Api) -> None:
    with api.client("analyst-key") as client:
        for call in calls():
            method, path = call.split(" ")
            of = "buyers" if "audiences" in path else "spring"
            path = path.replace("{name}", of).replace("{plot}", "arms") + QUERIES.get(call, "")
            body = orjson.dumps(BODIES[call]) if call in BODIES else None
            headers = {"content-type": "application/json"}
            found = client.http.request(method, path, content=body, headers=headers)
            assert found.status_code in {200, 201}, (call, found.text)
            assert PERSON not in found.content, call
    with api.client("server-key") as client:
        assert PERSON in client.http.get("/v1/audiences/buyers/members").content


def names_of(value: Any, schemas: dict[str, Any], seen: set[str]) -> Iterator[str]:
    """Yield the names of the fields that a described answer may have."""
    if isinstance(value, dict):
        yield from value.get("properties", {})
        name = str(value.get("$ref", "")).rpartition("/")[2]
        if name and name not in seen:
            seen.add(name)
            yield from names_of(schemas[name], schemas, seen)
        for each in value.values():
            yield from names_of(each, schemas, seen)
    elif isinstance(value, list):
        for each in value:
            yield from names_of(each, schemas, seen)


def test_no_route_of_an_analyst_names_a_user_or_describes_one_person() -> None:
    app = create_app(Settings(redis_url="redis://127.0.0.1:1"), "redis://127.0.0.1:1", None)
    described = orjson.loads(orjson.dumps(app.openapi()))
    personal, analysts = set[str](), calls()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            call = f"{method.upper()} {path}"
            fine = {s: a for s, a in operation["responses"].items() if s.startswith("2")}
            named = set(names_of(fine, described["components"]["schemas"], set())) & PERSONAL
            if "{user_id}" in path or named:
                personal.add(call)
    assert {"GET /v1/audiences/{name}/members", "POST /v1/campaigns/{name}/decide"} <= personal
    assert not personal & set(analysts)
    assert len(analysts) > 20


def test_an_analyst_sends_no_events_and_deletes_nothing(api: Api) -> None:
    with api.client("analyst-key") as client:
        event = {"type": "login", "user_id": "u"}
        assert client.http.post("/v1/events", json=event).status_code == 403
        assert client.http.delete("/v1/campaigns/spring").status_code == 403
        assert client.http.get("/v1/audiences/changes").status_code == 403
        assert client.http.post("/v1/campaigns/spring/rank").status_code == 403
