"""The bench of all endpoints asks for each of them, and measures what it asks."""

from pathlib import Path

import orjson
import pytest
from gateway_thread import Api

from feature_repo.errors import InvalidInputError
from services.client import Client
from services.lab.bench import endpoints
from services.lab.bench.api import measure_api, measure_endpoint
from services.lab.bench.endpoints import Endpoint, ShopSample
from services.lab.bench.http import Connection


def silent(done: int, total: int, what: str) -> None:
    pass


def test_every_endpoint_that_reads_is_asked_and_answers(api: Api, client: Client) -> None:
    users = [f"bench-api-{n}" for n in range(3)]
    client.put_items([{"item_id": f"bench-api-{n}"} for n in range(3)])
    events = [{"type": "view_item", "user_id": u, "items": [{"item_id": u}]} for u in users]
    client.wait_applied(client.post_batch(events)["receipt"])
    endpoints.prepare(client)
    with Connection(client) as connection:
        description = orjson.loads(connection.call("GET", "/openapi.json"))
    sample = ShopSample(users, users, users)
    found = endpoints.endpoints_of(description, sample, cold=2)
    asked = {each.name.split("?")[0].replace("{other}", "{item_id}") for each in found}
    reads = {f"GET {path}" for path, each in description["paths"].items() if "get" in each}
    assert reads - asked == {"GET /v1/audiences/changes"}
    some = [e for e in found if e.name.startswith(("GET /v1/users/", "GET /v1/items/", "POST"))]
    assert len({e.requests[0][1] for e in some if "{user_id}" in e.name}) > 1
    for each in (*some[:3], some[-1]):
        figures = measure_endpoint([client, client], each, warm=4)
        assert min(figures["cold_ms"]["p50"], figures["warm_ms"]["p99"], figures["first_ms"]) > 0
        assert figures["over_before"] > 0


def test_what_is_no_demo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no demo's state folder.*make demo"):
        measure_api(silent, data=tmp_path)


def test_a_ratio_is_the_median_of_what_was_asked_in_turns(
    monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    taken = iter([8.0, 2.0, 1.0, 4.0, *[1.0, 3.0, 1.0, 6.0] * 9])
    monkeypatch.setattr("services.lab.bench.api._time", lambda *_: next(taken))
    endpoint = Endpoint("GET /health/live", [("GET", "/health/live", None)])
    figures = measure_endpoint([client, client], endpoint, warm=2)
    assert figures["before_first_ms"] == 2.0
    assert figures["first_ms"] == 4.0
    assert figures["cold_over_before"] == 2.0
