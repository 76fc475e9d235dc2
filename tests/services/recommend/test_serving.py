"""Models come and go under a running gateway: rows keep the model that made them."""

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
import small_model
from gateway_thread import Api
from waiting import wait_until

from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.online.live_row import FIELDS, parse_live, row_key
from feature_repo.online.live_rows import load_live
from services.client import ApiError
from services.models import registry
from services.models.loaded import begin, version_of
from services.recommend import serving


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "LOOK_EVERY_S", 0.1)


def answer(client: Any, user: str) -> dict[str, Any]:
    response = client.http.get(f"/v1/users/{user}/recommendations?n=5")
    assert response.status_code == 200
    body: dict[str, Any] = orjson.loads(response.content)
    return body


@pytest.mark.usefixtures("quickly")
def test_a_new_model_is_taken_up_without_an_answer_that_is_empty_or_poorer(
    make_api: Callable[..., Api],
) -> None:
    api = make_api(replay_clock=True)  # the scores change with every second
    models = api.settings.home / "models"
    one = str(version_of(small_model.write(models / "one", seed=0)))
    with api.client() as client:
        client.models.promote("one")
        wait_until(lambda: client.models.all()["in_use"] == one, "the first model")
    api.stop_updater()
    api.start_updater()  # it takes up the model that new users begin with
    with api.client() as client:
        client.put_items([{"item_id": i} for i in small_model.ITEMS])
        wait_until(lambda: answer(client, "nobody")["degraded"] is False, "an answer")
        event = {"type": "purchase", "user_id": "u", "order_id": "1", "time": small_model.NOW_MS,
                 "items": [{"item_id": "i01"}]}  # fmt: skip
        client.post_event(event, return_profile=True)
        wait_until(lambda: answer(client, "u")["model"] == one, "the first model")
        before = answer(client, "u")["items"]
        seen, stop = list[dict[str, Any]](), threading.Event()

        def ask() -> None:
            with api.client() as other:
                while not stop.is_set():
                    seen.append(answer(other, "u"))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            two = str(version_of(small_model.write(models / "two", seed=1)))
            client.models.promote("two")
            served = "/v1/models"
            wait_until(
                lambda: orjson.loads(client.http.get(served).content)["in_use"] == two,
                "the second model",
            )
            for _ in range(20):
                answer(client, "u")
        finally:
            stop.set()
            asking.join(timeout=10)
        assert len(seen) > 20
        assert {a["model"] for a in seen} == {one}  # the row was made by the first
        assert not any(a["degraded"] for a in seen)
        assert answer(client, "u")["items"] == before
        session = {"events": [{"items": [{"item_id": "i02"}]}]}
        fresh = client.http.post("/v1/recommendations", json=session)
        assert orjson.loads(fresh.content)["model"] == two


@pytest.mark.usefixtures("quickly")
def test_a_row_of_a_model_that_is_gone_degrades_until_it_is_back(
    make_api: Callable[..., Api], tmp_path: Path
) -> None:
    api = make_api()
    home = api.settings.home
    gone = small_model.write(tmp_path / "gone", seed=2)
    small_model.write(home / "models" / "here", seed=3)
    store = redis.Redis.from_url(api.url)
    with api.client() as client:
        client.models.promote("here")
        wait_until(lambda: client.http.get("/v1/models").json()["in_use"] is not None, "a model")
        event = {"type": "view_item", "user_id": "u", "items": [{"item_id": "i01"}]}
        client.post_event(event, return_profile=True)
        pretend(store, api, "")  # made without a model: a session alone is not the whole history
        session = {"user_id": "u", "events": [{"items": [{"item_id": "i02"}]}]}
        cold = orjson.loads(client.http.post("/v1/recommendations", json=session).content)
        assert (cold["model"], cold["reason"]) == (None, "explicit_profile")
        pretend(store, api, str(version_of(gone)))
        poorer = answer(client, "u")
        assert (poorer["degraded"], poorer["reason"]) == (True, "model_unavailable")
        assert poorer["personalized"]
        assert len(poorer["items"]) == 5
        gone.rename(home / "models" / "back")
        wait_until(lambda: answer(client, "u")["reason"] != "model_unavailable", "the model")
    store.close()


def pretend(store: "redis.Redis", api: Api, version: str) -> None:
    """Make the row of user u say that a model of this version made it."""
    pseudonyms = Pseudonyms.load(api.settings.home, api.settings.partitions)
    user = pseudonyms.of_user("u")
    row = parse_live(store.hmget(row_key(user), FIELDS))
    assert row is not None
    load_live(store, {user: replace(row, learned=b"", model=version)})


@pytest.mark.usefixtures("quickly")
def test_a_model_with_features_of_another_version_is_refused_and_said(
    make_api: Callable[..., Api],
) -> None:
    api = make_api()
    models = api.settings.home / "models"
    used = str(version_of(small_model.write(models / "used", seed=5)))
    with api.client() as client:
        client.models.promote("used")
        client.put_items([{"item_id": i} for i in small_model.ITEMS])
        wait_until(lambda: client.http.get("/v1/models").json()["in_use"] == used, "a model")
        assert client.http.get("/health/ready").json()["model_refused"] is False
        need_dreams(small_model.write(models / "newer", seed=6))
        for force in (False, True):
            with pytest.raises(ApiError, match=r"409.*num_dreams_7d.*portrait train"):
                client.models.promote("newer", force=force)
        assert client.models.all()["production"] == "used"
        assert client.models.all()["in_use"] == used
        need_dreams(models / "used")  # as an upgrade of the code would
        with closing(redis.Redis.from_url(api.url)) as store:
            assert begin(api.settings, store).model == ""  # the updater goes on without it
    other = Api(api.settings, api.url)
    other.start()
    try:
        with other.client() as client:
            assert client.http.get("/health/ready").json()["model_refused"] is True
            found = client.models.all()
            assert found["in_use"] is None
            refused = {each["name"]: each["refused"] for each in found["models"]}
            assert "num_dreams_7d" in (refused["used"] or "")
            client.models.promote(small_model.write(models / "again", seed=7).name)
            wait_until(lambda: not client.readiness()["model_refused"], "another model")
    finally:
        other.stop()


def need_dreams(path: Path) -> None:
    """Make a model read a feature that no version makes."""
    manifest = orjson.loads((path / "manifest.json").read_bytes())
    manifest["user_features"] = {
        "service": "ranking_v1", "names": ["num_dreams_7d"], "mean": [0.0], "deviation": [1.0],
    }  # fmt: skip
    (path / "manifest.json").write_bytes(orjson.dumps(manifest))


def test_a_model_that_cannot_be_read_is_said(make_api: Callable[..., Api], tmp_path: Path) -> None:
    api = make_api()
    broken = small_model.write(api.settings.home / "models" / "broken", seed=4)
    (broken / "weights.safetensors").write_bytes(b"no weights")
    other = Api(api.settings, api.url)
    other.start()
    try:
        with other.client() as client:
            client.put_items([{"item_id": "i01"}])
            poorer = answer(client, "somebody")
            assert (poorer["degraded"], poorer["reason"]) == (True, "model_unavailable")
            assert [i["item_id"] for i in poorer["items"]] == ["i01"]
    finally:
        other.stop()


@pytest.mark.usefixtures("quickly")
def test_what_fails_at_a_look_does_not_end_the_looking(
    make_api: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, read = list[int](), registry.read_async

    async def fail(client: Any) -> Any:
        looks.append(1)
        raise RuntimeError("made up")

    api = make_api()
    monkeypatch.setattr(registry, "read_async", fail)
    wait_until(lambda: len(looks) > 1, "two looks")
    one = str(version_of(small_model.write(api.settings.home / "models" / "one", seed=0)))
    monkeypatch.setattr(registry, "read_async", read)
    with api.client() as client:
        client.models.promote("one")
        wait_until(lambda: client.models.all()["in_use"] == one, "the first model", 60)
