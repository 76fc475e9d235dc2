"""No request, the worst that is allowed included, holds the event loop up for 20 ms.

One input of every operation in `make test`, every input in `make test-slow`.

Measured is CPU time of the loop's thread, callback by callback, not the clock: what runs in other
threads and on other people's machines does not count.
"""

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, product
from typing import Any, NamedTuple

import orjson
import pytest
from gateway_thread import Api
from loop_watch import LoopWatch

from feature_repo.events.schema import MAX_BATCH_BYTES, MAX_EVENT_BYTES
from services.client import Client
from services.http.body import MAX_GZIP_MEMBERS

BOUND_S = 0.020
TRIES = 3
"""The least of so many counts: a slow moment of the machine may fall into one of them."""

LINKED = 20
"""Anonymous ids of the user whom most requests are about."""
JSON = {"content-type": "application/json"}
NDJSON = {"content-type": "application/x-ndjson"}
YAML = {"content-type": "application/yaml"}
GZIP = {**JSON, "content-encoding": "gzip"}

Given = tuple[dict[str, str], bytes]
"""Headers and body."""


class Took(NamedTuple):
    """CPU time of the longest callback of a request, seconds, and which it was."""

    took_s: float
    sent: str
    where: str


def dumped(value: Any, headers: dict[str, str] = JSON) -> Given:
    return headers, orjson.dumps(value)


def name(n: int, size: int = 128) -> str:
    return f"item-{n}-".ljust(size, "x")


def lines(count: int) -> list[dict[str, Any]]:
    return [{"item_id": str(n)} for n in range(count)]


def full(kind: str = "purchase", items: int = 200, **more: Any) -> dict[str, Any]:
    return {"type": kind, "user_id": "full", "order_id": "o", "items": lines(items), **more}


def properties() -> dict[str, Any]:
    return {
        str(a): {str(b): {str(c): [0] * 4 for c in range(5)} for b in range(9)} for a in range(9)
    }


def hostile(piece: str, **more: Any) -> dict[str, Any]:
    """Return an event full of what nearly is an address or a card's number."""
    text = piece * (2_048 // len(piece))
    told = {"a": piece * (8_000 // len(piece))}
    return full(items=1, url=text, query=text, properties=told, **more)


def batch(seed: int, **more: Any) -> list[dict[str, Any]]:
    """A thousand events of nearly two hundred items each, in 5 MB."""
    return [full("view_item", 199, id=f"{seed}-{n}", user_id=f"u{n}", **more) for n in range(1_000)]


def linking(seed: int) -> list[dict[str, Any]]:
    """The same of users beside an anonymous id each: half are nobody's yet, half another user's."""
    whose = (f"mine-{n % LINKED}" if n % 2 else f"fresh-{seed}-{n}" for n in range(1_000))
    return [each | {"anonymous_id": one} for each, one in zip(batch(seed), whose, strict=True)]


def moved(seed: int) -> list[dict[str, Any]]:
    """The same of one anonymous id that is a user's."""
    return [each | {"user_id": None, "anonymous_id": "mine-0"} for each in batch(seed)]


def bomb(size: int) -> Given:
    parts = [gzip.compress(b" " * (size // MAX_GZIP_MEMBERS)) for _ in range(MAX_GZIP_MEMBERS)]
    return GZIP, b"".join(parts)


def junk(size: int) -> Given:
    return JSON, b'{"a":[' + b"[],{}," * ((size - 20) // 6) + b"0]}"


def wrong(size: int) -> Given:
    return dumped({f"k{n}": n for n in range(size // 14)})


def item(n: int) -> dict[str, Any]:
    return {
        "item_id": f"new-{n}", "title": " ".join(f"word{n}w{k}" for k in range(20)),
        "category": f"c{n % 50}/d{n % 500}", "brand": f"b{n % 200}", "price": n % 90 + 1.0,
        "properties": {"vector": [0.125] * 1_000},
    }  # fmt: skip


def rule(leaves: int) -> dict[str, Any]:
    leaf = {"event": {"type": "purchase", "where": {"category": [f"c{k}" for k in range(90)]}}}
    return {"any": [{"any": [leaf] * 50} for _ in range(leaves // 50)]}


DEFINITION = {"rule": rule(50), "consent": []}
EVERYBODY = {"rule": {"event": {"type": "view_item"}}, "consent": []}
RULES = {
    "diversity": 1, "cap": {"brand": 500, "category": 500}, "explore": {"share": 1, "pool": 1_000},
    "category": {"out": [f"c{n}/d{n}/x" for n in range(1_000)]}, "new_items": 500,
    "brand": {"out": [f"x{n}" for n in range(1_000)]}, "exclude": [name(n) for n in range(1_000)],
    "boost": [{"category": f"c{n}", "factor": 2} for n in range(100)],
}  # fmt: skip
USERS = {"rule": {"user_ids": [name(n) for n in range(10_000)]}, "consent": []}
CAMPAIGN = {
    "audience": "big", "offer": {"id": "o"}, "channel": "email", "rank_by": "random",
    "window": {"from": "2020-01-01", "until": "2099-01-01"},
}  # fmt: skip
PATHS = {"erasure_id": "e", "user_id": "full", "item_id": "new-1", "name": "big", "plot": "arms",
         "key_id": "0123456789ab"}  # fmt: skip

BODIES: dict[str, Callable[[], list[Given]]] = {
    "POST /v1/keys": lambda: [
        dumped({"name": "n" * 128, "scope": "write", "origins": ["https://shop.example"] * 20}),
        junk(16_384),
    ],
    "POST /v1/erasures": lambda: [
        dumped({"user_ids": [name(n) for n in range(5_000)]}), junk(3_000_000),
    ],
    "POST /v1/keys/{key_id}/rotate": lambda: [dumped({"overlap_s": 60}), junk(16_384)],
    "POST /v1/models/{name}/promote": lambda: [dumped({"alias": "shadow"}), junk(4_096)],
    "POST /v1/events": lambda: [
        dumped(full(items=200)), dumped(full(items=1, properties=properties())),
        wrong(MAX_EVENT_BYTES), bomb(MAX_EVENT_BYTES), junk(MAX_EVENT_BYTES),
        *(dumped(hostile(piece)) for piece in ("4111 ", "a@b.", "0/1 ")),
    ],
    "POST /v1/events/batch": lambda: [
        dumped(batch(0)), dumped(batch(1, currency="USD")),
        (NDJSON, b"\n".join(map(orjson.dumps, batch(2)))),
        (GZIP, gzip.compress(orjson.dumps(batch(3)))),
        (NDJSON, b"\n".join(map(orjson.dumps, linking(4)))), dumped(moved(5)),
        dumped([full(items=1, id=f"p-{n}", properties=properties()) for n in range(780)]),
        dumped([hostile(p, id=f"h{n}{p}") for p in ("4111 ", "a@b.") for n in range(100)]),
        dumped([{}] * 1_000), (NDJSON, b"{\n" * 1_000), junk(MAX_BATCH_BYTES),
        bomb(MAX_BATCH_BYTES), dumped([{f"k{n}": n for n in range(400)}] * 900),
        (JSON, b"[" + b"[]," * 1_600_000 + b"0]"), (NDJSON, b"\n" * MAX_BATCH_BYTES),
    ],
    "POST /v1/items/batch": lambda: [
        dumped([item(n) for n in range(600)]), dumped([{}] * 1_000), junk(MAX_BATCH_BYTES),
        dumped([{f"k{n}": n for n in range(400)}] * 900), bomb(MAX_BATCH_BYTES),
    ],
    "PATCH /v1/items": lambda: [
        dumped([{"item_id": f"new-{n}", "price": 2.0} for n in range(1_000)]),
        dumped([{}] * 1_000), junk(MAX_BATCH_BYTES),
    ],
    "PATCH /v1/items/{item_id}": lambda: [dumped({"price": 2.0}), wrong(MAX_EVENT_BYTES)],
    "PUT /v1/items/{item_id}": lambda: [
        dumped(item(1)), wrong(MAX_EVENT_BYTES), junk(MAX_EVENT_BYTES),
    ],
    "POST /v1/recommendations": lambda: [
        dumped({"user_id": "full", "n": 500, "explain": True, "rules": RULES}),
        dumped({"events": [{"items": lines(200)}] * 200, "n": 500, "explain": True}),
        dumped({"user_id": "full", "events": [{"items": lines(200)}] * 20, "n": 500}),
        dumped({"n": 500, "exclude": [name(n) for n in range(1_000)]}),
        dumped({"n": 500, "rules": {"diversity": 1, "cap": {"brand": 1}, "explore": {"share": 1}}}),
        dumped({"n": 500, "rules": {"explore": {"share": 1, "pool": 1_000, "by": "thompson"}}}),
        junk(1_000_000), wrong(1_000_000), bomb(1_000_000),
    ],
    "POST /v1/rank": lambda: [
        dumped({"user_id": "full", "items": [name(n) for n in range(1_000)], "explain": True}),
        dumped({"user_id": "full", "items": [f"new-{n}" for n in range(1_000)], "explain": True}),
        junk(1_000_000),
    ],
    "PUT /v1/users/{user_id}/consents": lambda: [
        dumped({"consents": {f"p{n}": True for n in range(32)}}), wrong(MAX_EVENT_BYTES),
    ],
    "POST /v1/audiences": lambda: [dumped({**DEFINITION, "name": "posted"}), junk(2_000_000)],
    "PUT /v1/audiences/{name}": lambda: [
        dumped(DEFINITION), dumped(USERS), (YAML, b"rule: {any: [" + b"a," * 9_000 + b"]}"),
    ],
    "POST /v1/audiences/preview": lambda: [
        dumped(USERS), dumped(DEFINITION), (YAML, b"{" + b"a," * 30_000),
    ],
    "POST /v1/campaigns": lambda: [dumped({**CAMPAIGN, "name": "posted"}), junk(2_000_000)],
    "PUT /v1/campaigns/{name}": lambda: [dumped(CAMPAIGN), wrong(MAX_EVENT_BYTES)],
    "POST /v1/campaigns/{name}/decide": lambda: [
        dumped({"user_id": "full"}), dumped({"user_id": "u1", "decision_id": "d"}),
        wrong(MAX_EVENT_BYTES),
    ],
}  # fmt: skip
QUERIES: dict[str, list[str]] = {
    "GET /v1/users/{user_id}/events": ["?limit=100000", "?limit=1000&type=view_item"],
    "GET /v1/users/{user_id}/recommendations": [
        "?n=500&diversity=1&explore=1&new_items=500&exclude=purchased,seen",
        "?n=500&explain=true&exclude=" + ",".join(f"item-{n}" for n in range(4_000)),
    ],
    "GET /v1/users/{user_id}/explanations": ["?target=item:new-1&events=300"],
    "GET /v1/users/{user_id}/profile": ["?view=full", "?view=summary", "?view=seed"],
    "GET /v1/audiences/{name}/members": ["?limit=10000"],
    "GET /v1/audiences/overlap": ["?names=big,other"],
    "GET /v1/audiences/changes": ["?after=0-0"],
    "GET /v1/items/{item_id}/similar": ["?n=500"],
    "POST /v1/campaigns/{name}/rank": ["?limit=1000"],
    "GET /v1/campaigns": ["?limit=1000"],
    "GET /v1/analytics/trends": ["?most=50&level=2&buckets=520", "?kind=view_item&grain=month"],
    "GET /v1/analytics/retention": ["?periods=104&grain=week"],
    "GET /v1/analytics/funnel": ["?steps=view_item,add_to_cart,purchase,login&within=4w&days=3660"],
    "GET /v1/audit": ["?limit=1000"],
    "GET /v1/erasures": ["?limit=1000"],
    "GET /v1/receipts": ["?after=r" + "1." * 4_000],
}


def operations(client: Client) -> list[str]:
    """All of the OpenAPI, what brings items first and what takes something away last."""
    paths = client.http.get("/openapi.json").json()["paths"]
    found = [f"{method.upper()} {path}" for path, some in paths.items() for method in some]
    found.sort(key=lambda each: each.startswith("DELETE") - (each == "POST /v1/items/batch"))
    return [*found, "GET /openapi.json"]


@contextmanager
def watched(
    make_api: Callable[..., Api], items: int, events: int
) -> Iterator[tuple[Client, LoopWatch]]:
    """A gateway that knows a catalogue, a linked user who touched all of it, and two audiences."""
    api = make_api()
    watch = LoopWatch(api.loop_thread)
    with api.client() as client:
        for start in range(0, items, 200):
            client.put_items([item(n) for n in range(start, min(items, start + 200))])
        for start in range(0, events, 50):
            some = [
                full(("purchase", "view_item")[n % 2]) | {
                    "id": f"full-{n}", "order_id": f"o{n}", "consent": {f"p{n % 32}": True},
                    "anonymous_id": f"mine-{n % LINKED}",
                    "items": [{"item_id": f"new-{(n * 20 + k) % 2_000}"} for k in range(20)],
                }
                for n in range(start, start + 50)
            ]  # fmt: skip
            receipt = client.post_batch(some)["receipt"]
        client.wait_applied(receipt)
        for audience in ("big", "other"):
            client.audiences.put(audience, EVERYBODY)
        client.campaigns.put("big", CAMPAIGN)
        with watch.watching():
            yield client, watch


def ask(client: Client, operation: str, query: str, given: Given | None) -> int:
    method, _, path = operation.partition(" ")
    paths = PATHS | {"name": "put"} if operation == "PUT /v1/audiences/{name}" else PATHS
    headers, content = given or ({}, None)
    if operation.endswith("/changes"):
        with client.http.stream(method, path + query, headers=headers) as streamed:
            return int(streamed.status_code)
    found = client.http.request(
        method, path.format(**paths) + query, content=content, headers=headers, timeout=60
    )
    return int(found.status_code)


def inputs(operation: str, *, one: bool) -> Iterator[tuple[str, Given | None]]:
    """Queries and bodies of an operation; of ``one`` only the first."""
    made = BODIES.get(operation)
    found = product(QUERIES.get(operation, [""]), made() if made else [None])
    return islice(found, 1) if one else found


def took(client: Client, watch: LoopWatch, operation: str, query: str, given: Given | None) -> Took:
    """Return the CPU time of the longest callback; the least of some tries, if it is too long."""
    tries = list[Took]()
    while not tries or (tries[-1].took_s >= BOUND_S and len(tries) < TRIES):
        watch.begin()
        status = ask(client, operation, query, given)
        sent = f"{operation}{query[:60]} {b'' if given is None else given[1][:60]!r}"
        assert status not in {500, 504}, f"{sent}: {status}"
        tries.append(Took(watch.most_s, f"{sent}, {status}", watch.where))
    return min(tries)


@pytest.mark.parametrize(
    ("items", "events", "one"),
    [(0, 50, True), pytest.param(2_000, 1_000, False, marks=pytest.mark.slow)],
    ids=["one input each", "every input"],
)
def test_no_request_holds_the_loop_up(
    make_api: Callable[..., Api], items: int, events: int, one: bool
) -> None:
    with watched(make_api, items, events) as (client, watch):
        found = [
            took(client, watch, operation, query, given)
            for operation in operations(client)
            for query, given in inputs(operation, one=one)
        ]
    found.sort(reverse=True)
    told = [f"{each.sent}: {each.took_s * 1000:.1f} ms in {each.where}" for each in found]
    print(*told[:20], sep="\n")
    held = [text for text, each in zip(told, found, strict=True) if each.took_s >= BOUND_S]
    assert not held, "the event loop was held up by " + "; ".join(held)
