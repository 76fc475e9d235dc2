"""A promotion under a running service: rows are encoded anew, a rollback answers as before."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import orjson
import pytest
import redis
import small_model
from gateway_thread import Api
from waiting import wait_until

from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.online.live_rows import read_live
from feature_repo.online.previous_states import previous_key
from services.client import Client
from services.models.loaded import version_of
from services.update import updater

USERS = [f"u{n}" for n in range(12)]


@pytest.fixture
def make(make_api: Callable[..., Api]) -> Iterator[Callable[..., Api]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updater, "SETTLE_MS", 0)
        yield lambda **given: make_api(archive_every_s=0.1, **given)


def prepare(api: Api, client: Client) -> dict[str, str]:
    """Two models, the first in production, and users whose rows it made; versions by name."""
    versions = {}
    for seed, name in enumerate(("one", "two")):
        path = small_model.write(api.settings.home / "models" / name, seed)
        versions[name] = str(version_of(path))
    client.models.promote("one")
    client.put_items([{"item_id": item} for item in small_model.ITEMS])
    wait_until(lambda: client.models.all()["in_use"] == versions["one"], "the first model", 60)
    for number, user in enumerate(USERS):
        post(client, user, number)
    wait_until(lambda: models(api) == {versions["one"]}, "rows of the first model", 60)
    return versions


def post(client: Client, user: str, number: int) -> None:
    item = small_model.ITEMS[number % len(small_model.ITEMS)]
    event = {"type": "purchase", "user_id": user, "order_id": f"{user}-{number}",
             "time": small_model.NOW_MS + number * 1000, "items": [{"item_id": item}]}  # fmt: skip
    client.post_event(event, return_profile=True)


def rows(api: Api) -> dict[str, Any]:
    named = Pseudonyms.load(api.settings.home, api.settings.partitions)
    with closing(redis.Redis.from_url(api.url)) as store:
        found = read_live(store, [named.of_user(user) for user in USERS])
    return dict(zip(USERS, found, strict=True))


def models(api: Api) -> set[str]:
    return {row.model if row else "" for row in rows(api).values()}


def answers(client: Client) -> dict[str, dict[str, Any]]:
    found = {}
    for user in USERS:
        body = orjson.loads(client.http.get(f"/v1/users/{user}/recommendations?n=5").content)
        del body["recommendation_id"]
        found[user] = body
    return found


def test_a_promotion_encodes_all_rows_anew_and_a_rollback_answers_as_before(
    make: Callable[..., Api],
) -> None:
    api = make(replay_clock=True)
    with api.client() as client:
        versions = prepare(api, client)
        before, rows_before = answers(client), rows(api)
        assert {each["model"] for each in before.values()} == {versions["one"]}
        client.models.promote("two")
        wait_until(lambda: models(api) == {versions["two"]}, "rows of the second model", 60)
        wait_until(lambda: client.models.all()["encoding"]["left"] == 0, "its count")
        during = answers(client)
        assert {each["model"] for each in during.values()} == {versions["two"]}
        assert not any(each["degraded"] for each in during.values())
        assert f'portrait_model_rows{{model="{versions["two"]}"}} 12' in client.metrics()
        assert client.models.all()["encoding"]["by_model"] == {versions["two"]: 12}
        post(client, USERS[0], len(USERS) - 1)  # its state of before fits no more; the clock stays
        api.stop_updater()  # nobody moves rows: the gateway alone goes back
        client.models.roll_back("two")
        wait_until(lambda: client.models.all()["in_use"] == versions["one"], "going back", 20)
        after = answers(client)
        assert models(api) == {versions["two"]}
        for user in USERS[1:]:
            assert after[user] == before[user]
        assert after[USERS[0]]["model"] == versions["two"]  # the model that made the row
        api.start_updater()
        wait_until(lambda: models(api) == {versions["one"]}, "rows of the first model again", 60)
        assert {user: rows(api)[user] for user in USERS[1:]} == {
            user: rows_before[user] for user in USERS[1:]
        }
        assert {user: answers(client)[user] for user in USERS[1:]} == {
            user: before[user] for user in USERS[1:]
        }


def test_encoding_is_bounded_in_rate_goes_on_after_a_kill_and_takes_the_active_first(
    make: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.update import reencoding

    monkeypatch.setattr(reencoding, "GROUP_USERS", 3)
    api = make(replay_clock=True, reencode_per_s=1)
    with api.client() as client:
        versions = prepare(api, client)
        client.models.promote("two")

        def done() -> list[str]:
            return [u for u, row in rows(api).items() if row.model == versions["two"]]

        wait_until(lambda: len(done()) >= 3, "the first group", 60)
        first = done()
        assert set(first) <= set(USERS[-6:])  # the latest events are theirs
        assert len(first) < len(USERS)
        api.stop_updater()
        left = set(USERS) - set(done())
        assert left
        api.settings = api.settings.model_copy(update={"reencode_per_s": 1000})
        api.start_updater()
        wait_until(lambda: models(api) == {versions["two"]}, "the rest", 60)


def test_states_of_before_are_kept_for_some_days_and_erased_with_their_user(
    make: Callable[..., Api],
) -> None:
    api = make(replay_clock=True, model_rollback_days=3)
    with api.client() as client, closing(redis.Redis.from_url(api.url)) as store:
        versions = prepare(api, client)
        client.models.promote("two")
        wait_until(lambda: models(api) == {versions["two"]}, "rows of the second model", 60)
        named = Pseudonyms.load(api.settings.home, api.settings.partitions)
        keys = {user: previous_key(named.of_user(user)) for user in USERS}
        assert all(0 < store.ttl(key) <= 3 * 86_400 for key in keys.values())
        erasure = client.privacy.erase(USERS[0])["erasure_id"]
        receipt = client.privacy.wait_erased(erasure)
        assert {e["store"]: e["removed"] for e in receipt["stores"]}["previous_states"] == 1
        assert not store.exists(keys[USERS[0]])
        assert store.exists(*list(keys.values())[1:]) == len(USERS) - 1
