"""Behaviour analysis over HTTP: a gateway on a real store, and the archive of a made-up shop."""

from collections.abc import Callable
from typing import Any

import pytest
import redis
from gateway_thread import Api

from services.client import ApiError, Client
from services.http import api_keys
from tests.feature_repo import analytics_shop as shop

ROUTES = ("trends", "drift", "retention", "funnel", "rfm", "habits", "affinities")


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Api:
    api = make_api()
    shop.write(api.settings.home, shop.table(), features=True)
    return api


def test_every_analysis_says_as_of_when_and_by_how_many(client: Client) -> None:
    for name in ROUTES:
        found = getattr(client.analytics, name)(
            **({"steps": ["view_item", "purchase"]} if name == "funnel" else {})
        )
        assert found["k"] == 20
        assert found["as_of"].startswith("2024-08-1")
        assert found["suppressed"] >= 0
        assert found["data"]["events"] > 10_000
        past = client.http.get(f"/v1/analytics/{name}?as_of=2024-05-06").json()
        assert past["as_of"] == "2024-05-06T00:00:00.000Z"


def test_answers_hold_figures(client: Client) -> None:
    series = client.analytics.trends(level=2, grain="month")["series"]
    assert [each["category"] for each in series[:3]] == [None, "Food/Jam", "Food/Bread"]
    assert series[0]["points"][3]["users"] > 100
    funnel = client.analytics.funnel(["view_item", "add_to_cart", "purchase"], within="20d")
    users = [step["users"] for step in funnel["steps"]]
    assert users == sorted(users, reverse=True)
    assert client.analytics.affinities()["pairs"][0]["lift"] > 1
    assert client.analytics.drift()["months"][0]["users"] > 20
    assert client.analytics.retention()["cohorts"][0]["users"] > 100
    assert any(cell["users"] for cell in client.analytics.rfm()["cells"])
    assert any(cell["users"] for cell in client.analytics.habits()["cells"])


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("trends?level=3", "/query/level"),
        ("trends?grain=day", "/query/grain"),
        ("trends?type=Buy", "/query/type"),
        ("trends?category=Nowhere", "/query/category"),
        ("trends?buckets=0", "/query/buckets"),
        ("drift?months=0", "/query/months"),
        ("retention?periods=999", "/query/periods"),
        ("funnel?steps=purchase", "/query/steps"),
        ("funnel?steps=view_item,Buy", "/query/steps"),
        ("funnel?within=soon", "/query/within"),
        ("funnel?days=x", "/query/days"),
        ("rfm?rows=age", "/query/rows"),
        ("rfm?columns=recency", "/query/columns"),
        ("habits?days=99999", "/query/days"),
        ("affinities?category=Nowhere", "/query/category"),
        ("affinities?most=51", "/query/most"),
        ("rfm?as_of=then", "/query/as_of"),
        ("rfm?as_of=0001-01-01", "/query/as_of"),
    ],
)
def test_a_wrong_parameter_is_pointed_at(client: Client, path: str, pointer: str) -> None:
    response = client.http.get(f"/v1/analytics/{path}")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.status_code == 422
    errors = response.json()["errors"]
    assert [each["pointer"] for each in errors] == [pointer]
    assert errors[0]["detail"]


def test_a_key_that_may_only_write_learns_nothing(api: Api) -> None:
    with redis.Redis.from_url(api.url) as store:
        api_keys.register(store, "w", name="writer", scope="write")
        api_keys.register(store, "s", name="server", scope="server")
    with api.client("w") as writer, pytest.raises(ApiError) as caught:
        writer.analytics.rfm()
    assert caught.value.status == 403
    with api.client("s") as server:
        assert server.analytics.rfm()["k"] == 20


@pytest.mark.parametrize("as_of", ["1970-01-01", "1970-03-05", "2024-01-02", "2099-12-31"])
def test_any_moment_is_answered(client: Client, as_of: str) -> None:
    found: list[Any] = [client.http.get(f"/v1/analytics/{n}?as_of={as_of}") for n in ROUTES]
    assert [each.status_code for each in found] == [200] * len(ROUTES)
