"""The client: every endpoint, in types, and what it tries again."""

import itertools
from collections.abc import Callable
from typing import Any

import httpx2
import msgspec
import orjson
import pytest
import redis
import small_model
from gateway_thread import Api

from services.client import LONGEST_WAIT_S, ApiError, Client, TransientApiError
from services.erasure import ledger as erasures
from services.erasure.ledger import StoredErasure
from services.erasure.schemas import ERASURE_ID
from services.gateway.application import create_app
from services.http import api_keys
from services.models import registry
from services.models.loaded import version_of
from services.models.registry import Alias, Aliases
from services.settings import Settings

DEFINITION = {"rule": {"event": {"type": "login"}}, "consent": []}
CAMPAIGN = {
    "audience": "ready-lifecycle-new", "offer": {"id": "tea"}, "channel": "email",
    "window": {"from": "2020-01-01", "until": "2099-01-01"},
}  # fmt: skip
KEY_ID = api_keys.id_of(api_keys.digest("a key"))
STREAMS = {"GET /v1/audiences/changes"}
"""Read with an EventSource, not with this client."""
CALLS: list[tuple[str, Callable[[Client], Any]]] = [
    ("POST /v1/events", lambda c: c.post_event({"type": "login", "user_id": "a b"})),
    ("POST /v1/events/batch", lambda c: c.post_batch([{"type": "login", "user_id": "a b"}])),
    ("GET /v1/users/{user_id}/profile", lambda c: c.profile("a b")),
    ("GET /v1/users/{user_id}/events", lambda c: c.events("a b")),
    ("GET /v1/users/{user_id}/consents", lambda c: c.consents("a b")),
    ("PUT /v1/users/{user_id}/consents", lambda c: c.put_consents("a b", {"email": True})),
    ("GET /v1/users/{user_id}/export", lambda c: c.export("a b")),
    ("GET /v1/users/{user_id}/export", lambda c: list(c.stream_export("a b"))),
    ("GET /v1/schemas/export", lambda c: c.privacy.export_schema()),
    ("GET /v1/users/{user_id}/recommendations", lambda c: c.recommendations("a b")),
    ("POST /v1/recommendations", lambda c: c.recommend_session([{"items": [{"item_id": "?"}]}])),
    ("POST /v1/rank", lambda c: c.rank("a b", ["?", "B"])),
    ("PUT /v1/items/{item_id}", lambda c: c.put_item({"item_id": "?", "category": "x/y"})),
    ("POST /v1/items/batch", lambda c: c.put_items([{"item_id": "B", "category": "x/y"}])),
    ("PATCH /v1/items/{item_id}", lambda c: c.patch_item("?", {"price": 2})),
    ("PATCH /v1/items", lambda c: c.patch_items([{"item_id": "?", "in_stock": True}])),
    ("GET /v1/items/{item_id}", lambda c: c.item("?")),
    ("GET /v1/items/{item_id}/similar", lambda c: c.similar("?")),
    ("PUT /v1/audiences/{name}", lambda c: c.audiences.put("some", DEFINITION)),
    ("GET /v1/audiences/{name}", lambda c: c.audiences.get("some")),
    ("GET /v1/audiences", lambda c: c.audiences.all()),
    ("GET /v1/audiences/schema", lambda c: c.audiences.schema()),
    ("GET /v1/audiences/traits", lambda c: c.audiences.traits()),
    ("POST /v1/audiences/preview", lambda c: c.audiences.preview(DEFINITION)),
    ("GET /v1/audiences/{name}/preview", lambda c: c.audiences.count("some")),
    ("GET /v1/audiences/{name}/members", lambda c: c.audiences.members("some")),
    ("GET /v1/audiences/{name}/export", lambda c: c.audiences.export("some")),
    (
        "GET /v1/audiences/overlap",
        lambda c: c.audiences.overlap(["some", "ready-lifecycle-lapsed"]),
    ),
    ("DELETE /v1/audiences/{name}", lambda c: c.audiences.delete("some")),
    ("POST /v1/audiences", lambda c: c.audiences.create("another", DEFINITION)),
    ("PUT /v1/campaigns/{name}", lambda c: c.campaigns.put("some", CAMPAIGN)),
    ("GET /v1/campaigns/{name}", lambda c: c.campaigns.get("some")),
    ("GET /v1/campaigns", lambda c: c.campaigns.page()),
    ("GET /v1/campaigns/schema", lambda c: c.campaigns.schema()),
    ("POST /v1/campaigns/{name}/decide", lambda c: c.campaigns.decide("some", "a b")),
    ("POST /v1/campaigns/{name}/rank", lambda c: c.campaigns.rank("some")),
    ("GET /v1/campaigns/{name}/report", lambda c: c.campaigns.report("some")),
    ("GET /v1/campaigns/{name}/report/{plot}.svg", lambda c: c.campaigns.plot("some", "arms")),
    ("DELETE /v1/campaigns/{name}", lambda c: c.campaigns.delete("some")),
    ("POST /v1/campaigns", lambda c: c.campaigns.create("another", CAMPAIGN)),
    ("GET /v1/analytics/trends", lambda c: c.analytics.trends()),
    ("GET /v1/analytics/drift", lambda c: c.analytics.drift()),
    ("GET /v1/analytics/retention", lambda c: c.analytics.retention()),
    ("GET /v1/analytics/funnel", lambda c: c.analytics.funnel(["login", "purchase"])),
    ("GET /v1/analytics/rfm", lambda c: c.analytics.rfm()),
    ("GET /v1/analytics/habits", lambda c: c.analytics.habits()),
    ("GET /v1/analytics/affinities", lambda c: c.analytics.affinities()),
    ("GET /v1/audit", lambda c: c.audit()),
    ("POST /v1/keys", lambda c: c.keys.create("shop", "write")),
    ("GET /v1/keys", lambda c: c.keys.all()),
    ("POST /v1/keys/{key_id}/rotate", lambda c: c.keys.rotate(KEY_ID)),
    ("DELETE /v1/keys/{key_id}", lambda c: c.keys.revoke(KEY_ID)),
    ("GET /v1/users/{user_id}/explanations", lambda c: c.explanation("a b", "B")),
    ("DELETE /v1/items/{item_id}", lambda c: c.delete_item("?")),
    ("GET /health/live", lambda c: c.live()),
    ("GET /health/ready", lambda c: c.readiness()),
    ("GET /metrics", lambda c: c.metrics()),
    ("GET /v1/receipts", lambda c: c.wait_applied("p001-0-0")),
    ("GET /v1/models", lambda c: c.models.all()),
    ("GET /v1/models/{name}", lambda c: c.models.card("some")),
    ("POST /v1/models/{name}/promote", lambda c: c.models.promote("some")),
    ("POST /v1/models/rollback", lambda c: c.models.roll_back("some")),
    ("DELETE /v1/models/{name}", lambda c: c.models.remove("some")),
    ("DELETE /v1/users/{user_id}", lambda c: c.privacy.erase("a b")),
    ("POST /v1/erasures", lambda c: c.privacy.erase_all(["a b", "c"], suppress=False)),
    ("GET /v1/erasures", lambda c: c.privacy.erasures()),
    ("GET /v1/erasures/{erasure_id}", lambda c: c.privacy.erasure(ERASURE_ID)),
]


def test_every_endpoint_has_a_method(client: Client, api: Api) -> None:
    with redis.Redis.from_url(api.url) as store:
        api_keys.register(store, "a key", name="some", scope="write")
    erasures.write(api.settings.home, StoredErasure(ERASURE_ID, 1, True, []))
    for seed, name in enumerate(("before", "some")):
        small_model.write(api.settings.home / "models" / name, seed)
    before = Alias("before", str(version_of(api.settings.home / "models" / "before")), 1)
    with redis.Redis.from_url(api.url) as store:  # none is in service until one is promoted
        kept = {"generation": 1, "aliases": msgspec.json.encode(Aliases(past=(before,)))}
        store.hset(registry.KEY, mapping=kept)
    client.wait_applied(client.post_event({"type": "login", "user_id": "a b"})["receipt"])
    sent: list[httpx2.Request] = []
    client.http.event_hooks = {"request": [sent.append]}
    for name, call in CALLS:
        call(client)
        method, _, template = name.partition(" ")
        path = template.replace("{user_id}", "a%20b").replace("{item_id}", "%3F")
        path = path.replace("{name}", "some").replace("{plot}", "arms").replace("{key_id}", KEY_ID)
        path = path.replace("{erasure_id}", ERASURE_ID)
        assert (sent[-1].method, sent[-1].url.raw_path.partition(b"?")[0].decode()) == (
            method,
            path,
        )
    assert len(sent) == len(CALLS)
    app = create_app(Settings(redis_url="redis://127.0.0.1:1"), "redis://127.0.0.1:1", None)
    served = {
        f"{method.upper()} {path}" for path, found in app.openapi()["paths"].items()
        for method in found
    }  # fmt: skip
    assert served - STREAMS == {name for name, _ in CALLS}


def test_a_deleted_item_is_told_from_one_that_never_was(client: Client) -> None:
    client.put_item({"item_id": "once"})
    assert client.delete_item("once") is True
    assert client.delete_item("once") is False


def test_a_refused_batch_is_counted_and_what_is_no_batch_raises(client: Client) -> None:
    assert client.post_batch([{"type": "purchase", "id": "x"}])["rejected"] == 1
    with pytest.raises(ApiError, match="empty"):
        client.post_batch([])


# --- what is tried again


def answering(*answers: Any, attempts: int = 6) -> tuple[Client, list[httpx2.Request]]:
    """Return a client whose service gives these answers one after another."""
    seen: list[httpx2.Request] = []
    left = iter(answers)

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    made = Client("http://service", "key", attempts=attempts)
    made.http = httpx2.Client(base_url="http://service", transport=httpx2.MockTransport(handle))
    return made, seen


def problem(status: int, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, json={"detail": "later"}, headers=named)


TAKEN = httpx2.Response(202, json={"id": "e", "status": "accepted", "receipt": "p001-1-0"})


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waited.append)
    return waited


def test_an_event_is_repeated_with_the_id_it_had(pauses: list[float]) -> None:
    client, seen = answering(httpx2.ConnectError("gone"), problem(503), problem(429), TAKEN)
    assert client.post_event({"type": "login", "user_id": "u"})["status"] == "accepted"
    ids = {orjson.loads(request.content)["id"] for request in seen}
    assert (len(seen), len(ids), len(pauses)) == (4, 1, 3)


def test_retry_after_is_waited_for_within_reason(pauses: list[float]) -> None:
    client, _ = answering(problem(429, retry_after="7"), problem(503, retry_after="9999"), TAKEN)
    client.post_event({"type": "login", "user_id": "u"})
    assert 7 <= pauses[0] < 9.1
    assert LONGEST_WAIT_S <= pauses[1] < LONGEST_WAIT_S + 2.1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 422, 500])
def test_what_does_not_pass_is_not_repeated(pauses: list[float], status: int) -> None:
    client, seen = answering(problem(status))
    with pytest.raises(ApiError, match="later") as caught:
        client.post_event({"type": "login", "user_id": "u"})
    assert not isinstance(caught.value, TransientApiError)
    assert (caught.value.status, len(seen)) == (status, 1)


def test_after_the_last_try_the_problem_is_raised(pauses: list[float]) -> None:
    client, seen = answering(*itertools.repeat(problem(503), 3), attempts=3)
    with pytest.raises(TransientApiError):
        client.item("A")
    assert len(seen) == 3
