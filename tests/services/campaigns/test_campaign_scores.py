"""Ranking by the model's propensities, by stored uplift and by hash: thresholds and decisions."""

import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from gateway_thread import Api
from small_model import ITEMS, write

from feature_repo.archive.event_archive import Archive, LogPosition, write_part
from feature_repo.audiences.index import PROPENSITIES
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import Event, to_record
from services.campaigns.assignment import hash_share, random_score
from services.client import ApiError, Client

USERS = tuple(f"u{n:02d}" for n in range(20))


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api], tmp_path_factory: pytest.TempPathFactory) -> Api:
    path = write(tmp_path_factory.mktemp("models") / "one")
    api = make_api(model=path)
    pseudonyms = Pseudonyms.load(api.settings.home, api.settings.partitions)
    events = [
        {"id": f"{user}-{k}", "type": "purchase", "user_id": user, "order_id": f"o{k}",
         "items": [{"item_id": ITEMS[(3 * n + k) % 40], "price": 2}], "consent": {"email": True}}
        for n, user in enumerate(USERS) for k in range(1 + n % 4)
    ]  # fmt: skip
    now_ms = int(time.time() * 1000)
    records = [to_record(Event.model_validate(event), pseudonyms, now_ms) for event in events]
    Archive(api.settings.home / "archive" / "events").append(
        "import", [(LogPosition.imported(now_ms), record) for record in records]
    )
    with api.client(attempts=20) as client:
        client.audiences.put("all", {"rule": {"event": {"type": "purchase"}}, "consent": []})
        client.wait_applied(client.post_batch(events)["receipt"])
    rows = [
        (pseudonyms.of_user(user), name, value, now_ms)
        for n, user in enumerate(USERS)
        for name, value in (("uplift:tea", n / 100 - 0.05), ("purchase_7d", 0.5))
        if name != "uplift:tea" or n < 15
    ]
    columns = [list(column) for column in zip(*rows, strict=True)]
    write_part(
        api.settings.home / "audiences" / "chances.parquet", pa.table(columns, schema=PROPENSITIES)
    )
    return api


def put(client: Client, name: str, **given: Any) -> None:
    client.campaigns.put(name, {
        "audience": "all", "offer": {"id": "tea"}, "channel": "email",
        "window": {"from": "2020-01-01", "until": "2099-01-01"}, "control": {"holdout": 0},
    } | given)  # fmt: skip


def test_uplift_chooses_the_highest_stored_scores(client: Client, api: Api) -> None:
    pseudonyms = Pseudonyms.load(api.settings.home, api.settings.partitions)
    put(client, "uplift", rank_by="uplift", top=20)
    with pytest.raises(ApiError, match="was not ranked") as caught:
        client.campaigns.decide("uplift", USERS[0])
    assert caught.value.status == 409
    found = client.campaigns.rank("uplift", limit=4)
    assert (found["members"], found["scored"], found["chosen"]) == (20, 15, 3)
    assert [each["user"] for each in found["users"]] == [
        pseudonyms.of_user(USERS[n]) for n in (14, 13, 12, 11)
    ]
    assert found["threshold"] == pytest.approx(0.07)
    answers = {user: client.campaigns.decide("uplift", user) for user in USERS}
    assert [u for u, a in answers.items() if a["arm"] == "treated"] == [*USERS[12:15]]
    assert answers[USERS[14]]["score"] == pytest.approx(0.09)
    assert (answers[USERS[19]]["score"], answers[USERS[19]]["reasons"]) == (None, ["not_chosen"])
    put(client, "none", rank_by="uplift", offer={"id": "coffee"})
    with pytest.raises(ApiError, match="uplift:coffee") as caught:
        client.campaigns.decide("none", USERS[0])
    assert caught.value.status == 422


def test_a_budget_narrows_what_is_chosen(client: Client) -> None:
    put(client, "narrow", rank_by="uplift", budget={"messages": 2})
    assert client.campaigns.rank("narrow")["chosen"] == 2
    put(client, "narrow", rank_by="uplift", budget={"messages": 0})
    found = client.campaigns.rank("narrow")
    assert (found["chosen"], found["threshold"]) == (0, None)
    assert client.campaigns.decide("narrow", USERS[14])["reasons"] == ["not_chosen"]


def test_propensity_is_that_of_the_live_profile(client: Client) -> None:
    put(client, "likely", rank_by="propensity")
    for user in USERS[:3]:
        propensity = client.profile(user)["propensities"]["purchase_7d"]["p"]
        decided = client.campaigns.decide("likely", user)
        assert decided["score"] == pytest.approx(propensity, abs=1e-3)
        assert decided["score"] != 0.5


def test_random_needs_no_ranking_and_the_coin_overrules_the_rank(client: Client, api: Api) -> None:
    pseudonyms = Pseudonyms.load(api.settings.home, api.settings.partitions)
    put(client, "some", top=40)
    for user in USERS:
        score = random_score("some", pseudonyms.of_user(user))
        found = client.campaigns.decide("some", user)
        assert (found["arm"] == "treated") == (score >= 0.6)
        assert (found["score"], found["propensity"]) == (score, float(score >= 0.6))
    put(client, "tossed", top=40, explore=0.5)
    for user in USERS:
        pseudonym = pseudonyms.of_user(user)
        found = client.campaigns.decide("tossed", user)
        high = found["score"] >= 0.6
        assert found["propensity"] == 0.25 + 0.5 * high
        assert found["explored"] == (hash_share("tossed:explore", pseudonym) < 0.5)
        coin = hash_share("tossed:coin", pseudonym) < 0.5
        assert (found["arm"] == "treated") == (coin if found["explored"] else high)


def test_the_threshold_goes_with_the_definition_it_was_ranked_by(client: Client) -> None:
    put(client, "moved", rank_by="uplift", top=20)
    client.campaigns.rank("moved")
    assert client.campaigns.get("moved")["ranked_at"] is not None
    put(client, "moved", rank_by="uplift", top=30)
    assert client.campaigns.get("moved")["ranked_at"] is None
