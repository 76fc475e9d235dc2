"""Erasure over HTTP: refused from the 202 on, gone when it is done, and begun anew if asked."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import unquote

import pytest
import redis
from api_calls import view
from gateway_thread import Api

from feature_repo.erasure import tombstones
from feature_repo.events.pseudonyms import Pseudonyms
from services.client import Client
from services.client.calls import ApiError
from services.erasure import graves
from services.event_log.keys import owners_key
from services.update import updater


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Iterator[Api]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updater, "SETTLE_MS", 0)
        yield make_api(archive_every_s=0.1)


@pytest.fixture(scope="module")
def pseudonyms(api: Api) -> Pseudonyms:
    return Pseudonyms.load(api.settings.home, api.settings.partitions)


def refused(call: Callable[[], Any]) -> bool:
    with pytest.raises(ApiError) as error:
        call()
    assert error.value.problem["type"] == "/problems/erased", error.value
    return error.value.status == 410


def test_who_is_erased_is_gone_from_the_202_on(
    client: Client, api: Api, user: str, pseudonyms: Pseudonyms
) -> None:
    ghost = f"{user}-ghost"
    alone = {"type": "login", "anonymous_id": ghost, "id": f"{user}:1"}
    client.post_event(alone, return_profile=True)
    client.post_event(view(user, anonymous_id=ghost, id=f"{user}:2"), return_profile=True)
    begun = client.privacy.erase(user)
    assert begun["status"] == "pending"
    reads: list[Callable[[str], Any]] = [
        client.profile, client.events, client.export, client.recommendations,
        lambda name: client.profile(name, view="seed"), lambda name: client.rank(name, ["A"]),
        lambda name: client.explanation(name, "A"), client.consents,
        lambda name: client.put_consents(name, {"email": True}),
    ]  # fmt: skip
    assert all(refused(partial(read, name)) for read in reads for name in (user, ghost))
    assert refused(lambda: client.post_event(view(user)))
    assert refused(lambda: client.post_event({"type": "login", "anonymous_id": ghost}))
    receipt = client.privacy.wait_erased(begun["erasure_id"])
    assert (receipt["users"], receipt["linked"]) == (1, 1)
    found = {one["store"]: one for one in receipt["stores"]}
    assert found["rows"]["removed"] == 2
    assert found["seen_events"]["removed"] == 2
    assert refused(lambda: client.profile(ghost))
    assert refused(lambda: client.post_event(view(user)))
    gone = {pseudonyms.of_user(user), pseudonyms.of_anonymous(ghost)}
    assert gone <= tombstones.read(api.settings.home)
    with redis.Redis.from_url(api.url) as store:
        assert not store.hgetall(owners_key(int(pseudonyms.of_anonymous(ghost)[2:5])))


def test_an_id_may_begin_anew(client: Client, user: str) -> None:
    client.post_event(view(user, "old", id=f"{user}-1"), return_profile=True)
    begun = client.privacy.erase_all([user], suppress=False)
    assert refused(lambda: client.post_event(view(user)))
    client.privacy.wait_erased(begun["erasure_id"])
    answered = client.post_event(view(user, "new"), return_profile=True)
    shown = answered["profile"]
    assert shown["identity"]["events_by_type"] == {"view_item": 1}
    events = client.events(user)["events"]
    assert [each["item_id"] for event in events for each in event["items"]] == ["new"]


def test_erasures_are_listed(client: Client, user: str) -> None:
    ids = [client.privacy.erase(f"{user}-{n}")["erasure_id"] for n in range(3)]
    page = client.privacy.erasures(limit=2)
    assert [one["erasure_id"] for one in page["erasures"]] == ids[:0:-1]
    later = client.privacy.erasures(limit=1, cursor=page["next_cursor"])
    assert [one["erasure_id"] for one in later["erasures"]] == ids[:1]
    assert client.privacy.wait_erased(ids[2])["status"] == "done"
    with pytest.raises(ApiError) as error:
        client.privacy.erasure("er-none")
    assert error.value.status == 404


def test_an_anonymous_visitor_is_erased_by_their_id(client: Client, user: str) -> None:
    event = {"type": "view_item", "anonymous_id": user, "items": [{"item_id": "B"}]}
    client.post_event(event, return_profile=True)
    client.privacy.erase(user)
    assert refused(lambda: client.profile(user))
    assert refused(lambda: client.post_event(event))


def test_an_id_is_a_users_and_a_visitors_and_both_are_erased(client: Client, user: str) -> None:
    event = {"type": "view_item", "anonymous_id": user, "items": [{"item_id": "B"}]}
    client.post_event(event, return_profile=True)
    client.post_event(view(user), return_profile=True)
    receipt = client.privacy.wait_erased(client.privacy.erase(user)["erasure_id"])
    assert (receipt["users"], receipt["linked"]) == (1, 0)
    assert {one["store"]: one["removed"] for one in receipt["stores"]}["rows"] == 2
    assert refused(lambda: client.post_event(event, return_profile=True))
    assert refused(lambda: client.post_event(view(user)))


def test_who_was_nobody_when_they_were_erased_does_not_come_as_a_visitor(
    client: Client, user: str
) -> None:
    event = {"type": "view_item", "anonymous_id": user, "items": [{"item_id": "B"}]}
    client.privacy.wait_erased(client.privacy.erase(user)["erasure_id"])
    assert refused(lambda: client.post_event(event))


def test_a_visitor_who_stayed_when_the_user_was_erased_goes_with_the_next_erasure(
    client: Client, api: Api, user: str, pseudonyms: Pseudonyms
) -> None:
    event = {"type": "view_item", "anonymous_id": user, "items": [{"item_id": "B"}]}
    client.privacy.wait_erased(client.privacy.erase(user)["erasure_id"])
    with redis.Redis.from_url(api.url) as store:  # as earlier versions left it
        graves.lift(store, [pseudonyms.of_anonymous(user)])
    client.post_event(event, return_profile=True)
    client.privacy.wait_erased(client.privacy.erase(user)["erasure_id"])
    assert refused(lambda: client.post_event(event))


def test_somebodys_anonymous_id_is_erased_with_them_only(client: Client, user: str) -> None:
    client.post_event(view(user, anonymous_id=f"{user}-ghost"), return_profile=True)
    with pytest.raises(ApiError) as error:
        client.privacy.erase(f"{user}-ghost")
    assert error.value.status == 409
    assert client.profile(user)


@pytest.mark.parametrize("nobody", ["null", "%2E%2E", "%20", "%20padded"])
def test_who_is_nobody_is_not_erased(client: Client, nobody: str) -> None:
    before = client.privacy.erasures()
    for method, path, body in (
        ("DELETE", f"/v1/users/{nobody}", None),
        ("POST", "/v1/erasures", {"user_ids": ["somebody", unquote(nobody)]}),
    ):
        response = client.http.request(method, path, json=body)
        assert response.status_code == 422, response.text
        pointer = "/path/user_id" if body is None else "/body/user_ids/1"
        assert response.json()["errors"][0]["pointer"] == pointer
    assert client.privacy.erasures() == before
