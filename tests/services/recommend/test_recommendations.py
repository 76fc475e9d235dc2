"""Recommendations over HTTP with a model, a real store and a running updater."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
import small_model
from gateway_thread import Api
from small_model import ITEMS, category
from waiting import wait_until

from feature_repo.errors import InvalidSettingError
from feature_repo.online.live_row import FIELDS, parse_live, row_key
from services.app import build
from services.client import Client
from services.hosting.embedded import free_port
from services.hosting.serve import check
from services.settings import Settings
from training.network.model_dir import Model, load
from training.scoring.scorer import Scorer

_users = itertools.count()
RULES = """
placements:
  strip:
    cap: {category: 1, depth: 2}
    explore: {share: 0.5, pool: 10}
  cheap:
    price: {max: 2}
"""


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model.write(tmp_path_factory.mktemp("models") / "one")


@pytest.fixture(scope="module")
def model(model_path: Path) -> Model:
    return load(model_path)


@pytest.fixture(scope="module")
def api(
    make_api: Callable[..., Api], model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Api:
    rules = tmp_path_factory.mktemp("rules") / "rules.yaml"
    rules.write_text(RULES)
    api = make_api(model=model_path, rules=rules)
    with api.client() as client:
        client.put_items(
            [{"item_id": i, "title": f"Thing {i}", "category": category(i), "brand": "b" + i[-1],
              "price": 1.0 + n % 3} for n, i in enumerate(ITEMS)]
        )  # fmt: skip
    return api


@pytest.fixture
def user(client: Client) -> str:
    """A user who bought i01 and i08 and looked at i03."""
    name = f"shopper-{next(_users)}"
    for kind, item in (("purchase", "i01"), ("purchase", "i08"), ("view_item", "i03")):
        event: dict[str, Any] = {"type": kind, "user_id": name, "items": [{"item_id": item}]}
        client.post_event(event | {"order_id": item}, return_profile=True)
    return name


def ids(answer: dict[str, Any]) -> list[str]:
    return [entry["item_id"] for entry in answer["items"]]


def post(client: Client, **body: Any) -> dict[str, Any]:
    response = client.http.post("/v1/recommendations", json=body)
    answer: dict[str, Any] = orjson.loads(response.content)
    assert response.status_code == 200, answer
    return answer


def get(client: Client, user: str, **params: Any) -> dict[str, Any]:
    response = client.http.get(f"/v1/users/{user}/recommendations", params=params)
    answer: dict[str, Any] = orjson.loads(response.content)
    assert response.status_code == 200, answer
    return answer


def test_without_rules_the_answer_is_the_models_ranking(
    api: Api, client: Client, user: str, model: Model
) -> None:
    answer = get(client, user, n=40)
    assert (answer["model"], answer["reason"]) == (model.version, "model")
    assert (answer["degraded"], answer["relaxed"]) == (False, [])
    store = redis.Redis.from_url(api.url)
    from feature_repo.events.pseudonyms import Pseudonyms

    pseudonyms = Pseudonyms.load(api.settings.home, api.settings.partitions)
    row = parse_live(store.hmget(row_key(pseudonyms.of_user(user)), FIELDS))
    store.close()
    assert row is not None
    # The moment of the request is known to the hour and the gap's bucket; no other clock is read.
    scores = Scorer(model).scores(row.learned, time.time_ns() // 1_000_000)
    order = sorted(range(len(ITEMS)), key=lambda n: (-scores[n], n))
    assert ids(answer) == [ITEMS[n] for n in order]
    timed = client.http.get(f"/v1/users/{user}/recommendations").headers["server-timing"]
    assert [part.split(";")[0] for part in timed.split(", ")] == [
        "read", "candidates", "score", "rules", "diversify", "explain", "app",
    ]  # fmt: skip


def test_a_known_user_with_a_session_on_top(client: Client, user: str, model: Model) -> None:
    plain = post(client, user_id=user, n=40)
    assert ids(plain) == ids(get(client, user, n=40))
    session = [{"type": "purchase", "items": [{"item_id": "i20"}]}]
    moved = post(client, user_id=user, events=session, n=40)
    assert ids(moved) != ids(plain)
    assert moved["model"] == model.version
    kept = post(client, user_id=user, events=session, n=40, exclude=["purchased"])
    assert not {"i20", "i01", "i08"} & set(ids(kept))
    assert client.profile(user)["version"] == 3  # nothing was stored


def test_an_anonymous_session_and_one_event_are_enough(client: Client, model: Model) -> None:
    nobody = post(client, n=5)
    assert (nobody["reason"], nobody["personalized"], nobody["model"]) == (
        "cold_start",
        False,
        None,
    )
    one = post(client, events=[{"items": [{"item_id": "i05"}]}], n=40)
    other = post(client, events=[{"items": [{"item_id": "i30"}]}], n=40)
    assert one["model"] == other["model"] == model.version
    assert ids(one) != ids(other)


def test_rules_of_a_request(client: Client, user: str) -> None:
    rules = {
        "category": {"in": ["D1"]}, "price": {"max": 2}, "exclude": ["i04"],
        "brand": {"out": ["b7"]},
    }  # fmt: skip
    found = set(ids(post(client, user_id=user, n=40, rules=rules)))
    assert found == {
        i for n, i in enumerate(ITEMS)
        if n % 3 == 1 and 1.0 + n % 3 <= 2 and i != "i04" and i[-1] != "7"
    }  # fmt: skip
    by_query = get(client, user, n=40, category="D1", max_price=2, exclude="i04")
    assert set(ids(by_query)) >= found
    assert ids(get(client, user, n=3, brand="b3", repeat=False)) != []
    assert {i[-1] for i in ids(get(client, user, n=9, brand="b3"))} == {"3"}
    assert "i01" not in ids(get(client, user, n=40, repeat="false"))
    empty = get(client, user, n=3, category="nowhere")
    assert (empty["relaxed"], len(empty["items"])) == (["category.in"], 3)


@pytest.mark.parametrize("name", ["category", "brand", "placement"])
def test_an_empty_name_is_422_and_says_where(client: Client, name: str) -> None:
    answer = client.http.get(f"/v1/users/u/recommendations?{name}=")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"/query/{name}"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"rules": {"price": {"min": 3, "max": 2}}}, "/body/rules/price"),
        ({"rules": {"cap": {"brand": 0}}}, "/body/rules/cap/brand"),
        ({"rules": {"surprise": 1}}, "/body/rules/surprise"),
        ({"events": [{"items": [{}]}]}, "/body/events/0/items/0/item_id"),
    ],
)
def test_wrong_rules_are_422_and_say_where(
    client: Client, body: dict[str, Any], pointer: str
) -> None:
    response = client.http.post("/v1/recommendations", json=body)
    assert response.status_code == 422
    assert orjson.loads(response.content)["errors"][0]["pointer"] == pointer


def test_wrong_query_parameters_are_422(client: Client, user: str) -> None:
    path = f"/v1/users/{user}/recommendations"
    for query in ("diversity=2", "min_price=3&max_price=2", "min_price=nan", "n=0", "explore=x"):
        response = client.http.get(f"{path}?{query}")
        assert (response.status_code, query) == (422, query)


def lost_impressions(client: Client) -> float:
    start = 'portrait_impressions_total{outcome="lost"} '
    found = [line for line in client.metrics().splitlines() if line.startswith(start)]
    assert len(found) == 1
    return float(found[0].removeprefix(start))


def test_a_placement_has_its_rules_and_its_impressions(client: Client, user: str) -> None:
    lost = lost_impressions(client)
    answer = get(client, user, n=6, placement="strip")
    assert len({category(item) for item in ids(answer)}) == len(answer["items"]) == 6
    assert all(0 < entry["propensity"] <= 1 for entry in answer["items"])
    wait_until(lambda: len(client.events(user, type="view_item_list")["events"]) == 1, "its event")
    event = client.events(user, type="view_item_list")["events"][0]
    assert event["recommendation_id"] == answer["recommendation_id"]
    assert event["placement"] == answer["placement"] == "strip"
    assert [(i["item_id"], i["position"]) for i in event["items"]] == [
        (entry["item_id"], entry["rank"]) for entry in answer["items"]
    ]
    assert event["properties"]["propensities"] == [e["propensity"] for e in answer["items"]]
    get(client, user)  # without a placement nothing is logged
    get(client, user, placement="cheap")
    wait_until(lambda: len(client.events(user, type="view_item_list")["events"]) == 2, "the second")
    assert lost_impressions(client) == lost
    # What was shown is no sign of interest: the ranking stays.
    assert client.profile(user)["event_count"] >= 3


def test_an_impression_leaves_an_unknown_user_unknown(client: Client) -> None:
    name = f"stranger-{next(_users)}"
    assert get(client, name, placement="home")["reason"] == "cold_start"
    wait_until(lambda: bool(seen(client, name)), "the impression")
    after = get(client, name)
    assert (after["reason"], after["personalized"]) == ("cold_start", False)


def seen(client: Client, user: str) -> list[Any]:
    response = client.http.get(f"/v1/users/{user}/events?type=view_item_list")
    return list(orjson.loads(response.content).get("events", []))


def test_edits_of_the_catalogue_are_in_the_next_answer(client: Client, user: str) -> None:
    def answer(**rules: Any) -> list[str]:
        return ids(post(client, user_id=user, n=100, rules=rules))

    item = {"item_id": f"fresh-{user}", "category": "D0/S0", "price": 5.0}
    name = item["item_id"]
    assert name not in answer()
    client.put_item(item)
    assert name in answer()
    entry = next(
        e for e in post(client, user_id=user, n=100, explain=True)["items"]
        if e["item_id"] == name
    )  # fmt: skip
    assert entry["sources"] == ["new"]
    assert name not in answer(price={"max": 4.5})
    client.put_item(item | {"price": 4.0})
    assert name in answer(price={"max": 4.5})
    client.put_item(item | {"in_stock": False})
    assert name not in answer()
    assert name in answer(in_stock=False)
    client.put_item(item | {"category": "D2/S2"})
    assert name in answer(category={"in": ["D2"]})
    assert name not in answer(category={"in": ["D0"]})
    assert name in ids(post(client, user_id=user, n=5, rules={"new_items": 5}))
    assert client.http.delete(f"/v1/items/{name}").status_code == 204
    assert name not in answer()
    assert client.http.delete("/v1/items/i39").status_code == 204  # the model knows it still
    try:
        assert "i39" not in answer()
        assert "i39" not in [i["item_id"] for i in client.similar("i01", n=40)["items"]]
    finally:
        client.put_item({"item_id": "i39", "category": category("i39"), "price": 1.0})
    assert "i39" in answer()


def test_similar_items_of_a_model_with_memories(client: Client, model: Model) -> None:
    found = client.similar("i02", n=39)
    assert found["method"] == "embedding+co_occurrence"
    assert found["model"] == model.version
    assert "i02" not in [i["item_id"] for i in found["items"]]
    assert len(found["items"]) == 39


def test_items_are_ranked_as_the_model_scores_them(client: Client, user: str) -> None:
    ranked = client.rank(user, [*reversed(ITEMS[:10]), "unheard-of"])["items"]
    full = [i for i in ids(get(client, user, n=40)) if i in ITEMS[:10]]
    assert [i["item_id"] for i in ranked] == [*full, "unheard-of"]


def test_another_gateway_sees_an_edit_and_a_row_of_another_model_degrades(
    api: Api, client: Client, user: str, tmp_path: Path
) -> None:
    other_model = small_model.write(tmp_path / "two", seed=1)
    settings = api.settings.model_copy(update={"model": other_model})
    other = Api(settings, api.url)
    other.start()
    try:
        with other.client() as far:
            answer = get(far, user, n=5)
            assert (answer["degraded"], answer["reason"]) == (True, "model_unavailable")
            assert len(answer["items"]) == 5
            assert answer["personalized"]
            client.put_item({"item_id": "beyond", "category": "D0/S0", "brand": "far"})
            wait_until(lambda: ids(get(far, user, brand="far")) == ["beyond"], "the new item")
            far.http.delete("/v1/items/beyond")
            wait_until(lambda: get(client, user, brand="far")["relaxed"] != [], "its end")
    finally:
        other.stop()


def test_wrong_rules_end_a_start(tmp_path: Path) -> None:
    wrong = tmp_path / "rules.yaml"
    wrong.write_text("placements: {home: {diversity: 7}}")
    settings = Settings(
        home=tmp_path, redis_url="redis://127.0.0.1:1/0", port=free_port(), rules=wrong
    )
    told = "/placements/home/diversity"
    with pytest.raises(InvalidSettingError, match=told):
        check(settings)
    with pytest.raises(InvalidSettingError, match=told):
        build({"redis_url": settings.redis_url, "home": tmp_path, "rules": wrong})


def test_every_answer_is_logged_where_the_setting_says_so(make_api: Callable[..., Api]) -> None:
    api = make_api(impressions=True)  # the last test of this file: it ends the other service
    with api.client() as client:
        client.put_items([{"item_id": "A"}])
        get(client, "somebody", n=1)
        wait_until(lambda: len(seen(client, "somebody")) == 1, "the impression")
        assert "placement" not in seen(client, "somebody")[0]
