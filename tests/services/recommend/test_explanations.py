"""Explanations over HTTP: real events, exact numbers, plain words."""

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import small_model
from gateway_thread import Api
from small_model import ITEMS, category

from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.user_profile import explicit
from services.catalogue.catalogue import Catalogue, Entry
from services.client import Client
from services.recommend.event_text import sentence
from services.recommend.recommendation_request import RecommendationRequest
from services.recommend.recommender import Recommender
from services.recommend.score import of_item
from services.recommend.user_context import UserContext
from training.network.model_dir import Model, load
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition

_users = itertools.count()
DEEDS = [
    ("purchase", ["i01", "i08"]), ("view_item", ["i03"]), ("view_item_list", ["i05"]),
    ("add_to_cart", ["i03"]), ("purchase", ["i03", "i20"]), ("view_item", ["i30"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model.write(tmp_path_factory.mktemp("models") / "one")


@pytest.fixture(scope="module")
def model(model_path: Path) -> Model:
    return load(model_path)


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api], model_path: Path) -> Api:
    api = make_api(model=model_path)
    stock(api)
    return api


def stock(api: Api) -> None:
    with api.client() as client:
        client.put_items(
            [{"item_id": i, "title": f"Thing {i}", "category": category(i), "price": 2.0}
             for i in ITEMS]
        )  # fmt: skip


def act(client: Client) -> str:
    user = f"explained-{next(_users)}"
    for number, (kind, items) in enumerate(DEEDS):
        event = {
            "id": f"{user}-{number}", "type": kind, "user_id": user, "order_id": str(number),
            "time": time.time() - 3600 * (60 - number), "items": [{"item_id": i} for i in items],
        }  # fmt: skip
        client.post_event(event, return_profile=True)
    return user


def explain(client: Client, user: str, target: str, **params: Any) -> dict[str, Any]:
    response = client.http.get(
        f"/v1/users/{user}/explanations", params={"target": target, **params}
    )
    answer: dict[str, Any] = orjson.loads(response.content)
    assert response.status_code == 200, answer
    return answer


def history_of(client: Client, user: str) -> list[EventRecord]:
    records = []
    for event in reversed(client.events(user)["events"]):
        at = datetime.fromisoformat(event["time"])
        time_ms = round(at.timestamp() * 1000)
        lines = [ItemRecord(**i) for i in event["items"]]
        records.append(
            EventRecord(id=event["id"], type=event["type"], user="{p000}u", time_ms=time_ms,
                        received_ms=time_ms, items=lines)
        )  # fmt: skip
    return records


def test_contributions_are_what_leaving_each_event_out_changes(
    client: Client, model: Model
) -> None:
    user = act(client)
    answer = explain(client, user, "item:i03")
    assert (answer["method"], answer["model"]) == ("leave_one_event_out", model.version)
    assert answer["exact"] is True
    assert answer["events"] == {"looked_at": 5, "of": 6}
    scorer, transition = Scorer(model), LearnedTransition(model)
    history, row = history_of(client, user), ITEMS.index("i03")

    def score(events: list[EventRecord]) -> float:
        return float(scorer.scores(transition.replay([events])[0], time.time_ns() // 10**6)[row])

    assert answer["score"] == pytest.approx(score(history), abs=1e-3)
    given = {each["event_id"]: each["contribution"] for each in answer["contributions"]}
    for event in history:
        naive = score(history) - score([one for one in history if one.id != event.id])
        assert given.get(event.id, 0.0) == pytest.approx(naive, abs=1e-3)
    sizes = [abs(each["contribution"]) for each in answer["contributions"]]
    assert sizes == sorted(sizes, reverse=True)
    assert {each["item_id"] for each in answer["memories"]} <= {"i01", "i08", "i03", "i20", "i30"}
    assert answer["memories"]
    ranked = client.rank(user, ["i03"])["items"][0]
    assert ranked["score"] == pytest.approx(answer["score"], abs=1e-3)


def test_sentences_are_of_events_that_happened(client: Client) -> None:
    user = act(client)
    answer = explain(client, user, "item:i20", events=2)
    assert answer["events"]["looked_at"] == 2
    stored = {event["id"]: event for event in client.events(user)["events"]}
    for each in answer["contributions"]:
        event = stored[each["event_id"]]
        assert (each["type"], each["time"]) == (event["type"], event["time"])
        day = datetime.fromisoformat(event["time"]).astimezone(UTC)
        assert each["sentence"].endswith(f" on {day.day} {day:%b}")
        if event["type"] == "purchase":
            assert each["sentence"].startswith("bought Thing i20 and Thing i03 on ")


def test_recommendations_explain_themselves(client: Client) -> None:
    user = act(client)
    response = client.http.get(f"/v1/users/{user}/recommendations?n=8&explain=true")
    items = orjson.loads(response.content)["items"]
    assert len(items) == 8
    known = {event["id"] for event in client.events(user)["events"]}
    for entry in items:
        assert len(entry["contributions"]) == 3
        assert {each["event_id"] for each in entry["contributions"]} <= known
        alone = explain(client, user, f"item:{entry['item_id']}")["contributions"]
        for one, other in zip(entry["contributions"], alone, strict=False):
            assert one["contribution"] == pytest.approx(other["contribution"], abs=1e-3)
    plain = orjson.loads(client.http.get(f"/v1/users/{user}/recommendations?n=8").content)
    assert "contributions" not in plain["items"][0]
    stranger = client.http.get("/v1/users/nobody/recommendations?explain=true")
    assert orjson.loads(stranger.content)["items"][0]["contributions"] == []


@pytest.mark.parametrize(
    ("user", "target", "status"),
    [
        ("nobody", "item:i01", 404), (None, "item:unheard-of", 404), (None, "i01", 422),
        (None, "item:", 422), (None, "item:" + "x" * 129, 422), (None, "item:i01&events=0", 422),
    ],
)  # fmt: skip
def test_what_cannot_be_explained_is_said(
    client: Client, user: str | None, target: str, status: int
) -> None:
    name = user or act(client)
    response = client.http.get(f"/v1/users/{name}/explanations?target={target}")
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


def test_without_a_model_the_profile_is_folded_again(make_api: Callable[..., Api]) -> None:
    api = make_api()
    stock(api)
    with api.client() as client:
        user = act(client)
        answer = explain(client, user, "item:i03")
        assert (answer["method"], answer["model"]) == ("leave_one_event_out_of_profile", None)
        given = {each["event_id"]: each["contribution"] for each in answer["contributions"]}
        assert given[f"{user}-4"] > given[f"{user}-3"] > 0  # bought counts over put into the cart
        assert f"{user}-2" not in given  # an impression is no sign of interest
        assert given.get(f"{user}-0", 0.0) <= 0  # another shelf's purchase draws interest away
        ranked = client.rank(user, ["i03"])["items"][0]
        assert ranked["score"] == pytest.approx(answer["score"], abs=0.05)


def test_the_score_of_one_item_is_that_of_all() -> None:
    catalogue = Catalogue(client=None)
    for n, item in enumerate(ITEMS):
        brand = f"b{n % 3}" if n % 4 else None
        path = "D0" if n % 7 == 0 else category(item)
        catalogue.entries[item] = Entry(item, category=path if n % 5 else None, brand=brand)
    history = [
        EventRecord(
            id=str(n), type=kind, user="u", time_ms=n * 10**8, received_ms=0, order_id=str(n),
            items=[ItemRecord(i, category=category(i), brand="b1") for i in items],
        )
        for n, (kind, items) in enumerate(DEEDS)
    ]  # fmt: skip
    recommender = Recommender(catalogue)
    recommender.set_popular([(item, 40.0 - n) for n, item in enumerate(ITEMS[:20])])
    shopper = UserContext(explicit.fold(history), 10**6)
    ranked = recommender.rank(shopper, RecommendationRequest(40), 10**9).items
    assert len(ranked) == 40
    for entry in ranked:
        (facts,) = recommender.facts([entry["item_id"]])
        assert of_item(facts, shopper) == pytest.approx(entry["score"], abs=1e-6)


def test_a_sentence_names_the_item_asked_about_first_and_the_year_if_it_is_another() -> None:
    event = EventRecord(
        id="1", type="add_to_cart", user="u", time_ms=1_508_572_800_000, received_ms=0,
        items=[ItemRecord(name) for name in "abcde"],
    )  # fmt: skip
    now_ms = 1_600_000_000_000
    told = sentence(event, str.upper, now_ms, about=["d"])
    assert told == "put D, A, B and 2 more items into the cart on 21 Oct 2017"
    custom = EventRecord(id="1", type="try_on", user="u", time_ms=now_ms, received_ms=0,
                         items=[ItemRecord("a")])  # fmt: skip
    assert sentence(custom, str.upper, now_ms) == "did “try on” with A on 13 Sep"
