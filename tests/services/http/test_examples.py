"""Examples of the API's description are what the running gateway answers."""

import re
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from gateway_thread import Api

from services.audiences.schemas import TRAITS
from services.http.profile_schemas import PROFILE


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
