"""Models over HTTP: listed, promoted, taken back, removed; who may, and what the audit keeps."""

from collections.abc import Callable
from typing import Any

import pytest
import small_model
from gateway_thread import Api
from waiting import wait_until

from services.client import ApiError, Client
from services.erasure import ledger
from services.erasure.ledger import StoredErasure
from services.models.cards import keep_evaluation
from services.models.loaded import version_of


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Api:
    made = make_api()
    for seed, name in enumerate(("one", "two", "three")):
        small_model.write(made.settings.home / "models" / name, seed)
    return made


def refuse(status: int, act: Callable[[], Any]) -> dict[str, Any]:
    with pytest.raises(ApiError) as refused:
        act()
    assert refused.value.status == status
    return refused.value.problem


def test_a_promotion_and_a_rollback_reach_the_gateway_within_five_seconds(
    client: Client, api: Api
) -> None:
    versions = {n: version_of(api.settings.home / "models" / n) for n in ("one", "two")}
    assert client.models.all()["production"] is None
    for name, before in (("one", None), ("two", "one")):
        moved = client.models.promote(name)
        assert (moved["production"], moved["previous"]) == (name, before)
        wait_until(lambda n=name: client.models.all()["in_use"] == versions[n], name, 5)
    listed = client.models.all()
    assert {each["name"]: each["aliases"] for each in listed["models"]} == {
        "one": [], "two": ["production"], "three": [],
    }  # fmt: skip
    assert listed["previous"] == "one"
    moved = client.models.roll_back("two")
    assert (moved["production"], moved["previous"]) == ("one", "two")
    wait_until(lambda: client.models.all()["in_use"] == versions["one"], "the first again", 5)
    assert "two" in refuse(409, lambda: client.models.roll_back("two"))["detail"]
    assert client.models.promote("three", "shadow")["shadow"] == "three"
    assert client.models.promote("three", "candidate")["candidate"] == "three"
    entries = client.audit(limit=1000)["entries"]
    wait_until(
        lambda: {
            ("POST /v1/models/{name}/promote", "one"), ("POST /v1/models/rollback", "one"),
        } <= {(e["operation"], e["target"]) for e in client.audit(limit=1000)["entries"]},
        f"the audit of {len(entries)}",
    )  # fmt: skip


def test_a_refused_change_changes_nothing(client: Client, api: Api) -> None:
    before = client.models.all()
    refuse(404, lambda: client.models.promote("nobody"))
    refuse(404, lambda: client.models.card("nobody"))
    refuse(404, lambda: client.models.remove("nobody"))
    refuse(422, lambda: client.models.promote("one", "best"))  # type: ignore[arg-type]
    refuse(422, lambda: client.models.promote("_x", "shadow"))
    found = client.http.post("/v1/models/one/promote", json={"alias": "shadow", "more": 1})
    assert found.status_code == 422
    small_model.write(api.settings.home / "models" / "torn", seed=9)
    weights = api.settings.home / "models" / "torn" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    problem = refuse(409, lambda: client.models.promote("torn", force=True))
    assert [each["pointer"] for each in problem["errors"]] == ["/gate/fits"]
    assert "damaged" in problem["errors"][0]["detail"]
    assert "production" in refuse(409, lambda: client.models.remove("one"))["detail"]
    client.models.remove("torn")
    assert client.models.all() == before


def test_only_admins_change_what_servers_read(api: Api, client: Client) -> None:
    for scope, may in (("server", True), ("analyst", False), ("write", False)):
        key = client.keys.create(f"models-{scope}", scope)["key"]
        with api.client(key) as other:
            for path in ("/v1/models", "/v1/models/one"):
                assert other.http.get(path).status_code == (200 if may else 403)
            refuse(403, lambda o=other: o.models.promote("two"))
            refuse(403, lambda o=other: o.models.roll_back("one"))
            refuse(403, lambda o=other: o.models.remove("two"))


def test_a_card_says_what_is_known(client: Client, api: Api) -> None:
    home = api.settings.home
    card = client.models.card("two")
    assert card["version"] == version_of(home / "models" / "two")
    assert card["files"].keys() == {
        "weights.safetensors", "vocabulary.json", "memory.safetensors"
    }  # fmt: skip
    assert card["erasures_since"] == {"erasures": 0, "users": 0, "last_at": None}
    assert card["metrics"]["test"] is None
    for number, done_ms in enumerate((1, 2**42)):  # one before the model was made, one after
        name = f"er-{number:013d}-00000000"
        ledger.write(home, StoredErasure(name, 1, True, ["x"] * 3, stage="done", done_ms=done_ms))
    row = {"ndcg@10": 0.25, "recall@10": 0.2, "hr@10": 0.6, "mrr": 0.4}
    keep_evaluation(home, card["version"], {
        "test": {"since": "A", "until": "B", "baskets": 7},
        "next_basket": {"model": row | {"ci": {name: [0.1, 0.3] for name in row}}},
        "difference": {"model": {"ndcg@10": {"mean": 0.01, "ci": [-0.02, 0.04]}}},
    })  # fmt: skip
    card = client.models.card("two")
    assert (card["erasures_since"]["erasures"], card["erasures_since"]["users"]) == (1, 3)
    text = client.http.get("/v1/models/two?format=markdown")
    assert text.headers["content-type"] == "text/markdown; charset=utf-8"
    for words in ("# Model two", card["sha256"], "1 of 3 ids", "0.2500 [0.1000, 0.3000]",
                  "+0.0100 [-0.0200, +0.0400]"):  # fmt: skip
        assert words in text.text
