"""The recommendation bench measures what it says, on a shop of a few hundred items."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
import small_model
from gateway_thread import Api

from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.online.live_row import row_key
from services.catalogue import catalogue
from services.lab.bench import explain, recommend
from services.lab.bench.load import Load, body_of
from services.lab.bench.peers import pairs_of
from services.lab.bench.shop import catalogue_of, feature_fields, shop_offers, write_model
from services.models.user_features import UserFeatureReader
from training.network.model_dir import load

SIZE = 300


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(shop_offers(SIZE), tmp_path_factory.mktemp("shop") / "model")


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api], model: Path) -> Api:
    api = make_api(model=model)
    store = redis.Redis.from_url(api.url)
    catalogue.load(store, catalogue_of(shop_offers(SIZE)))
    load_ = Load(shop_offers(SIZE), users=3, seed="test")
    with api.client() as client:
        receipt = client.post_batch(load_.batch(0, 200))["receipt"]
        client.wait_applied(receipt)
    pseudonyms = Pseudonyms.load(api.settings.home, api.settings.partitions)
    for n in range(3):
        store.hset(row_key(pseudonyms.of_user(f"shopper-{n}")), mapping=feature_fields())
    store.close()
    return api


def test_the_shop_is_one_that_a_gateway_serves(api: Api, model: Path) -> None:
    assert len(load(model).vocabulary.items) == SIZE
    with api.client() as client:
        answer = client.recommendations("shopper-0", n=5)
        assert (answer["reason"], answer["degraded"], len(answer["items"])) == ("model", False, 5)
        assert client.item("item-000007")["title"] == "Thing item-000007"


def test_the_features_of_the_shop_are_read_as_feast_would(api: Api, redis_url: str) -> None:
    features = UserFeatureReader()
    features.open()
    store = redis.Redis.from_url(redis_url)
    pseudonyms = Pseudonyms.load(api.settings.home, api.settings.partitions)
    key = row_key(pseudonyms.of_user("shopper-1"))
    decoded = features.decode("ranking_v1", store.hmget(key, features.fields("ranking_v1")))
    store.close()
    assert decoded is not None
    assert set(decoded.values()) - {None} == {3, 1.5}
    assert len(decoded) > 40


def test_single_requests_are_timed_by_stage(api: Api) -> None:
    with api.client() as client:
        taken = recommend._single(client, ["shopper-0", "shopper-1"], 10)
    assert {name: len(values) for name, values in taken.items()} == dict.fromkeys(
        ("trivial", "recommend", "read", "candidates", "score", "rules", "diversify", "explain"),
        10,
    )
    for n in range(10):
        stages = sum(v[n] for name, v in taken.items() if name not in ("trivial", "recommend"))
        assert 0 < stages < taken["recommend"][n]


def test_clients_at_full_speed_are_counted(api: Api) -> None:
    with api.client() as client:
        rate = recommend._rps(client, ["shopper-0", "shopper-1"], 2, 0.5)
        with pytest.raises(Exception, match="404"):
            recommend._rps(client, ["a/b"], 1, 0.5)  # a refusal is not counted as an answer
    assert rate > 0


def test_a_run_of_requests_is_compared_at_its_ends(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommend, "DRIFT_PART", 10)
    with api.client() as client:
        found = recommend._drift(client, ["shopper-0"], 30)
    assert found["requests"] == 30
    assert found["ratio"] == pytest.approx(found["last_ms"] / found["first_ms"], rel=0.01)


def test_the_peers_know_every_item_and_shopper() -> None:
    offered = shop_offers(40)
    bodies = [body_of(Load(offered, users=3, seed="test").batch(0, 100))]
    pairs = pairs_of(bodies, [offer.item_id for offer in offered])
    assert {item for _, item in pairs} == {offer.item_id for offer in offered}
    assert {user for user, _ in pairs} == {f"shopper-{n}" for n in range(3)}


def test_the_floor_answers_the_same_question(api: Api, model: Path) -> None:
    store = redis.Redis.from_url(api.url)
    pseudonyms = Pseudonyms.load(api.settings.home, api.settings.partitions)
    seen = list[Any]()
    dumps = orjson.dumps

    class Spy:
        dumps = staticmethod(lambda value: seen.append(value) or dumps(value))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recommend, "orjson", Spy)
        taken, search = recommend.floor_ms(store, pseudonyms, ["shopper-2"], model, 5)
    store.close()
    assert (len(taken), search["recall_at_100"]) == (5, 1.0)
    with api.client() as client:
        answered = {i["item_id"] for i in client.recommendations("shopper-2", n=10)["items"]}
    assert len({entry["item_id"] for entry in seen[-1]} & answered) >= 7  # no features, no clock


def test_explanations_are_measured_on_a_given_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "USERS", 4)
    monkeypatch.setattr(explain, "RANDOM_USERS", 2)
    model = small_model.write(tmp_path / "model")
    found = explain.measure_explain(lambda *_: None, model=model, data=None)
    assert (found["shoppers"], found["items"], found["memories"]) == (4, 40, True)
    assert found["fall_without_top_5"] > found["fall_without_random_5"]
    low, high = found["twice_as_far_95"]
    assert low <= high
    assert -1 <= found["likeness_to_random_weights"] <= 1
