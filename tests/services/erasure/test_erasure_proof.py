"""The proof: after an erasure no byte of the state folder and of the store names the people.

Fifty people with unmistakable ids in every field, ten of them erased while events still come; then
everything is searched, packed or not, and a planted control is found.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from erasure_search import search
from gateway_thread import Api
from stalls import PATIENCE_S

from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.feast_stores import store as feast_store
from feature_repo.online.live_row import row_key
from feature_repo.online.previous_states import previous_key
from services.client import Client
from services.hosting.embedded import EmbeddedStore
from services.settings import Settings
from services.update import updater

PEOPLE = [f"zebra{n:02d}quartz" for n in range(50)]
GONE, STAY, BUSY = PEOPLE[:10], PEOPLE[10:40], PEOPLE[40:]


def events(name: str, day: int) -> list[dict[str, Any]]:
    ghost = {"anonymous_id": f"{name}-ghost"}
    said = {
        "session_id": f"{name}-session", "url": f"https://shop.example/{name}-url",
        "query": f"{name}-query", "properties": {"note": f"{name}-note"},
    }  # fmt: skip
    items = [{"item_id": "A", "price": 2.0, "quantity": 1}]
    order = {"order_id": f"{name}-order-{day}", "value": 2.0, "currency": "EUR"}
    return [
        {"type": "view_item", "items": items, "id": f"{name}-0-{day}", **ghost},
        {"type": "view_item", "user_id": name, "items": items, "id": f"{name}-1-{day}",
         **ghost, **said},
        {"type": "purchase", "user_id": name, "items": items, "id": f"{name}-2-{day}", **order},
    ]  # fmt: skip


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(updater, "SETTLE_MS", 0)
    with EmbeddedStore(tmp_path / "store") as store:
        settings = Settings(
            home=tmp_path, redis_url=store.url, partitions=4, archive_every_s=0.1,
            store_bound_s=PATIENCE_S, wrong_keys_per_min=0,
        )  # fmt: skip
        settings.export(store.url)
        feast_store.apply()
        api = Api(settings, store.url)
        api.start()
        api.start_updater()
        try:
            yield api
        finally:
            api.stop()


def post(client: Client, names: list[str], day: int) -> str | None:
    taken = client.post_batch([event for name in names for event in events(name, day)])
    return taken["receipt"]


def stored(store: Any) -> dict[bytes, bytes]:
    """Return every key with all that it holds, as text."""
    read = {
        b"hash": store.hgetall, b"set": store.smembers, b"string": store.get,
        b"stream": store.xrange, b"zset": lambda key: store.zrange(key, 0, -1),
    }  # fmt: skip
    return {key: repr(read[store.type(key)](key)).encode() for key in store.scan_iter()}


def test_no_byte_names_who_was_erased(api: Api, tmp_path: Path) -> None:
    named = Pseudonyms.load(tmp_path, 4)
    pseudonyms = {
        each for name in GONE for each in (named.of_user(name), named.of_anonymous(f"{name}-ghost"))
    }
    needles = [*GONE, *pseudonyms]
    with api.client() as client, redis.Redis.from_url(api.url) as store:
        for day in range(3):
            receipt = post(client, PEOPLE, day)
        client.wait_applied(receipt)
        for name in PEOPLE:  # as a change of models leaves them
            store.hset(previous_key(named.of_user(name)), "learned", named.of_user(name))
        client.put_consents(GONE[0], {"email": True}, source=f"{GONE[0]}-source")
        client.audiences.put("some", {"rule": {"user_ids": PEOPLE[8:12]}, "consent": []})
        before = {name: store.hgetall(row_key(named.of_user(name))) for name in STAY}
        assert all(before.values())
        assert search(tmp_path / "store", GONE)  # the search sees what there is
        begun = client.privacy.erase_all(GONE)
        day = 3
        while client.privacy.erasure(begun["erasure_id"])["status"] != "done":
            client.wait_applied(post(client, BUSY, day))
            assert client.post_batch(events(GONE[0], day))["rejected"] == 3
            day += 1
        receipt = client.privacy.erasure(begun["erasure_id"])
        assert (receipt["users"], receipt["linked"]) == (10, 10)
        assert {name: store.hgetall(row_key(named.of_user(name))) for name in STAY} == before
        assert all(store.exists(previous_key(named.of_user(name))) for name in STAY)
        places = {each["store"]: each["removed"] for each in receipt["stores"]}
        assert places["previous_states"] == len(GONE)
        left = {
            key for key, text in stored(store).items()
            if not key.endswith(b"}erased") and any(each.encode() in key + text for each in needles)
        }  # fmt: skip
        assert left == set()
    api.stop()
    found = [line for line in search(tmp_path, needles) if not line.startswith("erasures/")]
    kept = set(pseudonyms)
    raw = [line for line in found if line.rpartition(": ")[2] not in kept]
    assert raw == []
    assert {line.partition(":")[0].partition("/")[0] for line in found} <= {"store"}
    (tmp_path / "control").write_text(f"x{GONE[3]}x")
    assert [line for line in search(tmp_path, GONE) if line.startswith("control")]
