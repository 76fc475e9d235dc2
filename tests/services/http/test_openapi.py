"""The API is as it says: its description whole, and the running gateway true to it."""

import html
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import schemathesis
from gateway_thread import ADMIN_KEY, Api
from hypothesis import HealthCheck, Phase, assume, given, settings
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from services.client import Client
from services.gateway.application import create_app
from services.http.problems import TYPES
from services.settings import Settings

CHECKS = [
    schemathesis.checks.not_a_server_error, status_code_conformance, content_type_conformance,
    response_headers_conformance, response_schema_conformance,
]  # fmt: skip
MOST_URL_BYTES = 60_000
"""The HTTP server does not read longer ones; HAProxy not half as long ones."""
UNREAD_HEAD = "Invalid HTTP request received."
"""What the HTTP server says by itself of a head that it cannot read, before the gateway sees it."""
AUTHORIZED = {"authorization": f"Bearer {ADMIN_KEY}"}


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    app = create_app(Settings(redis_url="redis://127.0.0.1:1"), "redis://127.0.0.1:1", None)
    found: dict[str, Any] = orjson.loads(orjson.dumps(app.openapi()))
    return found


def media(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where a body or an answer is described, and its description."""
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            bodies = operation.get("requestBody", {}).get("content", {})
            for kind, one in bodies.items():
                yield f"{method} {path} body {kind}", one
            for status, answer in operation["responses"].items():
                for kind, one in answer.get("content", {}).items():
                    yield f"{method} {path} {status} {kind}", one


def test_every_body_and_answer_has_an_example_that_fits(described: dict[str, Any]) -> None:
    base = Registry().with_resource("urn:api", DRAFT202012.create_resource(described))
    count = 0
    for where, one in media(described):
        examples = [each["value"] for each in one.get("examples", {}).values()]
        examples += [one["example"]] if "example" in one else []
        assert examples, where
        for example in examples:
            schema = orjson.loads(
                orjson.dumps(one.get("schema", {})).replace(b'"#/', b'"urn:api#/')
            )
            errors = list(Draft202012Validator(schema, registry=base).iter_errors(example))
            assert not errors, (where, errors[0].message)
            count += 1
    assert count > 50


def test_every_answer_says_its_headers_and_every_operation_its_problems(
    described: dict[str, Any],
) -> None:
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert "application/problem+json" in operation["responses"]["default"]["content"]
            for answer in operation["responses"].values():
                assert {"x-request-id", "server-timing"} <= set(answer["headers"]), (method, path)


def test_answers_about_a_user_say_what_every_entry_is(described: dict[str, Any]) -> None:
    schemas, seen = described["components"]["schemas"], set[str]()

    def visit(value: Any, place: str) -> None:
        if isinstance(value, dict):
            assert value.get("additionalProperties") is not True, place
            assert value.get("items") != {}, place
            for name, each in value.items():
                visit(each, f"{place}.{name}")
            name = str(value.get("$ref", "")).rpartition("/")[2]
            if name and name not in seen:
                seen.add(name)
                visit(schemas[name], name)
        elif isinstance(value, list):
            for each in value:
                visit(each, place)

    for name in ("Profile", "Summary", "Recommendations", "Explanation"):
        visit(schemas[name], name)
    assert {"Lifecycle", "ProfileAffinities", "InterestScore", "RecommendationReason"} <= seen
    assert schemas["Lifecycle"]["properties"]["stage"]["enum"][0] == "visitor"


def test_no_reference_leads_nowhere(described: dict[str, Any]) -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for name, each in value.items():
                if name == "$ref":
                    yield each
                else:
                    yield from references(each)
        elif isinstance(value, list):
            for each in value:
                yield from references(each)

    found = set(references(described))
    assert "#/components/schemas/Event" in found
    for reference in found:
        at: Any = described
        for name in reference.removeprefix("#/").split("/"):
            at = at[name]


@pytest.mark.parametrize("name", TYPES)
def test_every_problem_type_has_a_page(api: Api, name: str) -> None:
    with api.client() as client:
        response = client.http.get(f"/problems/{name}")
    assert response.status_code == 200
    assert html.escape(TYPES[name].title) in response.text


# --- the running gateway, asked whatever its description allows and much that it does not


@pytest.fixture(scope="module")
def schema(make_api: Any) -> Any:
    """Description of a gateway that knows a few users and items."""
    api = make_api()
    with api.client() as client:
        fill(client)
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{api.port}/openapi.json")


def fill(client: Client) -> None:
    client.audiences.put("0", {"rule": {"event": {"type": "view_item"}}, "consent": []})
    window = {"from": "2020-01-01", "until": "2099-01-01"}
    client.campaigns.put(
        "0", {"audience": "0", "offer": {"id": "0"}, "channel": "email", "window": window}
    )
    client.put_items([{"item_id": name, "category": "x/y", "price": 1} for name in "0AB"])
    events = [
        {"type": kind, "user_id": user, "id": f"{user}-{kind}", "items": [{"item_id": "A"}],
         "order_id": "o", "consent": {"email": True}}
        for user in ("0", "u") for kind in ("view_item", "purchase")
    ]  # fmt: skip
    client.wait_applied(client.post_batch(events)["receipt"])


STREAMS = {"GET /v1/audiences/changes"}
"""Answers that last as long as the caller listens; `test_audience_changes` has them."""


def operations() -> list[str]:
    app = create_app(Settings(redis_url="redis://127.0.0.1:1"), "redis://127.0.0.1:1", None)
    return [
        f"{method.upper()} {path}"
        for path, found in app.openapi()["paths"].items() for method in found
        if f"{method.upper()} {path}" not in STREAMS
    ]  # fmt: skip


def ask(schema: Any, name: str, requests: int, **more: Any) -> None:
    """Send requests to one operation, half of them as described, and check every answer."""
    method, _, path = name.partition(" ")
    operation = schema[path][method]
    cases = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if operation.body or list(operation.iter_parameters()):
        cases |= operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    answered = 0

    @given(case=cases)
    @settings(
        max_examples=requests, phases=[Phase.generate], database=None,
        suppress_health_check=list(HealthCheck), **more,
    )  # fmt: skip
    def run(case: Any) -> None:
        nonlocal answered
        response = case.call(headers=AUTHORIZED)
        assume(len(response.request.url) < MOST_URL_BYTES)
        assume(response.text != UNREAD_HEAD)
        case.validate_response(response, checks=CHECKS)
        answered += 1

    run()
    assert answered


@pytest.mark.parametrize("name", operations())
def test_the_gateway_answers_as_it_says(schema: Any, name: str) -> None:
    ask(schema, name, 25, derandomize=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", operations())
def test_the_gateway_answers_a_hundred_thousand_requests_as_it_says(schema: Any, name: str) -> None:
    # Four have nothing to vary: the others share the hundred thousand.
    ask(schema, name, 100_000 // (len(operations()) - 4) + 1)
