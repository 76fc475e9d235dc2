"""Every operation of the API for a user who denies a purpose: what it answers, next to a stranger.

A new route without a row in `OPERATIONS` fails. The table is of one history and one denial each;
the property draws histories, subsets of the purposes, and the way by which they are denied.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import small_model
from gateway_thread import Api
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feature_repo import importers
from feature_repo.user_profile.purposes import PURPOSES
from services.client import Client
from services.gateway import access
from services.rebuild.run import find_users, rebuild

PERSONAL = "answers what a stranger gets where personalization is denied"
AGGREGATE = "counts nobody who denies analytics"
TAKES_EVENTS = "keeps nothing of an event where profiling is denied"
CONTACT = "reaches nobody over a channel that is denied"
ONE_PERSON = "shows what is kept of one person, to the shop's server"
NOBODY = "tells nothing of a person"
OPERATIONS = {
    "POST /v1/events": TAKES_EVENTS,
    "POST /v1/events/batch": TAKES_EVENTS,
    "GET /v1/users/{user_id}/recommendations": PERSONAL,
    "POST /v1/recommendations": PERSONAL,
    "POST /v1/rank": PERSONAL,
    "GET /v1/users/{user_id}/explanations": PERSONAL,
    "GET /v1/users/{user_id}/profile": ONE_PERSON,
    "GET /v1/users/{user_id}/events": ONE_PERSON,
    "GET /v1/users/{user_id}/consents": ONE_PERSON,
    "PUT /v1/users/{user_id}/consents": ONE_PERSON,
    "GET /v1/users/{user_id}/export": ONE_PERSON,
    "GET /v1/audit": ONE_PERSON,
    "POST /v1/audiences/preview": AGGREGATE,
    "GET /v1/audiences/overlap": AGGREGATE,
    "GET /v1/audiences/{name}/preview": AGGREGATE,
    "GET /v1/audiences/changes": CONTACT,
    "GET /v1/audiences/{name}/members": CONTACT,
    "GET /v1/audiences/{name}/export": CONTACT,
    "POST /v1/campaigns/{name}/decide": CONTACT,
    "POST /v1/campaigns/{name}/rank": CONTACT,
    "GET /v1/campaigns/{name}/report": AGGREGATE,
    "GET /v1/campaigns/{name}/report/{plot}.svg": AGGREGATE,
    "GET /v1/analytics/trends": AGGREGATE,
    "GET /v1/analytics/drift": AGGREGATE,
    "GET /v1/analytics/retention": AGGREGATE,
    "GET /v1/analytics/funnel": AGGREGATE,
    "GET /v1/analytics/rfm": AGGREGATE,
    "GET /v1/analytics/habits": AGGREGATE,
    "GET /v1/analytics/affinities": AGGREGATE,
} | dict.fromkeys(
    [
        "PUT /v1/items/{item_id}", "GET /v1/items/{item_id}", "PATCH /v1/items/{item_id}",
        "DELETE /v1/items/{item_id}", "PATCH /v1/items", "POST /v1/items/batch",
        "GET /v1/items/{item_id}/similar", "GET /v1/audiences", "POST /v1/audiences",
        "GET /v1/audiences/schema", "GET /v1/audiences/traits", "PUT /v1/audiences/{name}",
        "GET /v1/audiences/{name}", "DELETE /v1/audiences/{name}", "GET /v1/campaigns",
        "POST /v1/campaigns", "GET /v1/campaigns/schema", "PUT /v1/campaigns/{name}",
        "GET /v1/campaigns/{name}", "DELETE /v1/campaigns/{name}", "GET /health/live",
        "GET /health/ready", "GET /metrics", "GET /v1/receipts", "GET /v1/models", "POST /v1/keys",
        "GET /v1/models/{name}", "POST /v1/models/{name}/promote", "POST /v1/models/rollback",
        "DELETE /v1/models/{name}",
        "GET /v1/keys", "DELETE /v1/keys/{key_id}", "POST /v1/keys/{key_id}/rotate",
        "DELETE /v1/users/{user_id}", "POST /v1/erasures", "GET /v1/erasures",
        "GET /v1/erasures/{erasure_id}", "GET /v1/audit", "GET /v1/schemas/export",
    ],
    NOBODY,
)  # fmt: skip
"""What each operation owes to a consent."""

ITEMS = small_model.ITEMS
SESSION = [{"type": "view_item", "items": [{"item_id": ITEMS[3]}]}]
_BY_GET = "GET /v1/users/{user_id}/recommendations"
ASKED: list[tuple[str, str, dict[str, Any] | None]] = [
    (_BY_GET, "", None),
    (_BY_GET, "?n=40&explain=true", None),
    (_BY_GET, "?exclude=purchased", None),
    (_BY_GET, "?exclude=seen&repeat=false&diversity=0.5", None),
    (_BY_GET, "?placement=strip", None),
    ("POST /v1/recommendations", "", {"user_id": "{user_id}", "explain": True}),
    ("POST /v1/recommendations", "", {"user_id": "{user_id}", "events": SESSION}),
    ("POST /v1/rank", "", {"user_id": "{user_id}", "items": ITEMS[:20], "explain": True}),
    ("POST /v1/rank", "", {"user_id": "{user_id}", "items": ITEMS[:9], "query": "Thing"}),
    ("GET /v1/users/{user_id}/explanations", f"?target=item:{ITEMS[1]}", None),
]
"""Operation, query and body of personal requests."""
_names = itertools.count()


def test_every_operation_of_the_application_has_a_row() -> None:
    assert {" ".join(row.split(" ")[:2]) for row in access.operations()} == OPERATIONS.keys()
    personal = {name for name, owed in OPERATIONS.items() if owed == PERSONAL}
    assert {operation for operation, _, _ in ASKED} == personal


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api], tmp_path_factory: pytest.TempPathFactory) -> Api:
    model = small_model.write(tmp_path_factory.mktemp("models") / "one")
    made = make_api(model=model, replay_clock=True)  # every answer is of the same moment
    with made.client() as client:
        client.put_items(
            [{"item_id": i, "title": f"Thing {i}", "category": small_model.category(i)}
             for i in ITEMS]
        )  # fmt: skip
        client.post_event(event("purchase", "first", ITEMS[0]), return_profile=True)
    return made


def event(kind: str, user: str, item: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "user_id": user, "items": [{"item_id": item}], "order_id": item,
            "time": small_model.NOW_MS, **more}  # fmt: skip


def ask(
    client: Client, user: str, operation: str, query: str, body: dict[str, Any] | None
) -> dict[str, Any]:
    """Return an answer without what is of this request alone."""
    method, path = operation.split(" ")
    given = None if body is None else body | {"user_id": user}
    response = client.http.request(method, path.format(user_id=user) + query, json=given)
    own = ("recommendation_id", "user_id", "request_id", "instance")
    said = {name: value for name, value in response.json().items() if name not in own}
    return {"status": response.status_code, **said}


def ask_as_stranger(client: Client, *asked: Any) -> dict[str, Any]:
    return ask(client, f"stranger-{next(_names)}", *asked)


def make_shopper(client: Client, denied: list[str]) -> str:
    """Make a user who bought, looked, and refused an item, and then denied purposes."""
    user = f"shopper-{next(_names)}"
    for kind, item in (("purchase", 1), ("view_item", 3), ("not_interested", 5)):
        client.post_event(event(kind, user, ITEMS[item]), return_profile=True)
    if denied:
        receipt = client.put_consents(user, dict.fromkeys(denied, False))["receipt"]
        client.wait_applied(receipt)
    return user


@pytest.fixture(scope="module")
def shoppers(api: Api) -> dict[str, str]:
    """Return a user by the purpose that they deny, and one who denies all but personalization."""
    with api.client() as client:
        found = {purpose: make_shopper(client, [purpose]) for purpose in PURPOSES}
        rest = [purpose for purpose in PURPOSES if purpose != "personalization"]
        return found | {"none": make_shopper(client, []), "rest": make_shopper(client, rest)}


@pytest.mark.parametrize("denied", [*PURPOSES, "rest"])
@pytest.mark.parametrize(("operation", "query", "body"), ASKED)
def test_personal_operations_answer_a_stranger_exactly_where_personalization_is_denied(
    api: Api, shoppers: dict[str, str], denied: str, operation: str, query: str,
    body: dict[str, Any] | None,
) -> None:  # fmt: skip
    with api.client() as client:
        alone = {name: each for name, each in (body or {}).items() if name != "events"}
        # Popularity may be renewed in between: what a stranger gets before or after is as good.
        strangers = [ask_as_stranger(client, operation, query, alone or None)]
        answered = ask(client, shoppers[denied], operation, query, body)
        strangers.append(ask_as_stranger(client, operation, query, alone or None))
        if denied == "personalization":
            assert answered in strangers
            assert answered["status"] == 404 or answered["personalized"] is False
        else:
            same = ask(client, shoppers["none"], operation, query, body)
            assert answered["status"] == same["status"] == 200
            assert answered.get("personalized", True) is True
            one, other = (
                [(item["item_id"], item["score"]) for item in each.get("items", [])]
                for each in (answered, same)
            )
            assert one == other


def test_a_grant_after_a_denial_brings_the_answers_back(api: Api, shoppers: dict[str, str]) -> None:
    with api.client() as client:
        user = make_shopper(client, ["personalization"])
        client.wait_applied(client.put_consents(user, {"personalization": True})["receipt"])
        # In one second a denial holds, whatever came later: the replay clock stands still.
        assert ask(client, user, *ASKED[0])["personalized"] is False
        later = event("consent_updated", user, ITEMS[0], consent={"personalization": True})
        client.post_event(later | {"time": small_model.NOW_MS + 2000}, return_profile=True)
        assert ask(client, user, *ASKED[0])["personalized"] is True


def test_an_anonymous_id_is_answered_by_what_its_user_denies(api: Api) -> None:
    with api.client() as client:
        user = make_shopper(client, ["personalization"])
        cookie = f"cookie-{user}"
        client.post_event(event("view_item", user, ITEMS[7], anonymous_id=cookie),
                          return_profile=True)  # fmt: skip
        for asked in ASKED[:2]:
            before, answered = ask_as_stranger(client, *asked), ask(client, cookie, *asked)
            assert answered in (before, ask_as_stranger(client, *asked))


TYPES = ("view_item", "add_to_cart", "purchase", "not_interested", "wishlist_add")
ROUTES = ("event", "PUT", "GPC", "import")
GPC = frozenset({"ads", "personalization"})
HISTORIES = st.lists(st.tuples(st.sampled_from(TYPES), st.integers(0, 39)), min_size=1, max_size=12)
DENIALS = st.sets(st.sampled_from(PURPOSES))
IMPORTED = (
    ("personalization",), (), ("ads", "analytics"), tuple(PURPOSES), ("profiling",),
    ("personalization", "marketing_email"),
)  # fmt: skip
"""What users deny whose history, and denial, come out of a file; beside each a twin without."""


def tell(user: str, history: list[tuple[str, int]]) -> list[dict[str, Any]]:
    return [
        event(kind, user, ITEMS[item], id=f"{user}-{n}", order_id=f"{user}-{n}")
        for n, (kind, item) in enumerate(history)
    ]


@pytest.fixture(scope="module")
def imported(api: Api, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Import a user for each of `IMPORTED`, and a twin who denies nothing."""
    lines = list[dict[str, Any]]()
    for number, denied in enumerate(IMPORTED):
        history = [(TYPES[n % 4], 3 * number + n) for n in range(4 + number)]
        for user in (f"imported-{number}", f"imported-{number}-twin"):
            lines += tell(user, history)
        said = {"type": "login", "user_id": f"imported-{number}", "time": small_model.NOW_MS,
                "id": f"said-{number}"}  # fmt: skip
        lines += [said | {"consent": dict.fromkeys(denied, False)}] if denied else []
        lines.append(said | {"user_id": f"imported-{number}-twin", "id": f"twin-{number}"})
    file: Path = tmp_path_factory.mktemp("import") / "events.ndjson"
    file.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    report = importers.run("file", home=api.settings.home, path=file)
    assert report.accepted == len(lines), report
    users = [f"imported-{n}{twin}" for n in range(len(IMPORTED)) for twin in ("", "-twin")]
    rebuild(api.settings, users=find_users(api.settings, users), progress=lambda *_: None)
    return len(IMPORTED)


def deny(client: Client, user: str, denied: set[str], route: str) -> None:
    """Deny purposes; by GPC only those that it means."""
    if route == "PUT" and denied:
        client.wait_applied(client.put_consents(user, dict.fromkeys(denied, False))["receipt"])
    elif route == "event" and denied:
        said = {"type": "consent_updated", "user_id": user, "time": small_model.NOW_MS}
        client.post_event(said | {"consent": dict.fromkeys(denied, False)}, return_profile=True)
    elif route == "GPC":
        said = {"type": "login", "user_id": user, "time": small_model.NOW_MS}
        answer = client.http.post("/v1/events", json=said, headers={"sec-gpc": "1"})
        client.wait_applied(answer.json()["receipt"])


def check_next_to_a_stranger(client: Client, user: str, twin: str, denied: set[str]) -> None:
    """Hold personal operations to a stranger's answer, or to that of one who denies nothing."""
    for asked in ASKED:
        if "personalization" in denied:
            alone = {name: each for name, each in (asked[2] or {}).items() if name != "events"}
            as_stranger = (*asked[:2], alone or None)
            strangers = [ask_as_stranger(client, *as_stranger)]
            answered = ask(client, user, *asked)
            if answered not in strangers:  # popularity may have been renewed in between
                strangers.append(ask_as_stranger(client, *as_stranger))
            assert answered in strangers, asked
            assert answered["status"] == 404 or answered["personalized"] is False
        else:
            one, other = ask(client, user, *asked), ask(client, twin, *asked)
            for said in ("status", "personalized", "reason"):
                assert one.get(said) == other.get(said), asked
            told = [
                {each["item_id"]: each["score"] for each in answer.get("items", [])}
                for answer in (one, other)
            ]
            assert told[0] == told[1], asked


@settings(max_examples=15, deadline=None)
@given(HISTORIES, DENIALS, st.sampled_from(ROUTES), st.integers(0, len(IMPORTED) - 1))
@example([("purchase", 1)], set(PURPOSES), "event", 0)
@example([("view_item", 2)], {"personalization"}, "PUT", 0)
@example([("view_item", 2), ("purchase", 3)], set(), "GPC", 0)
@example([("view_item", 2)], set(), "import", 0)
@example([("view_item", 2)], set(), "import", 3)
def test_whoever_denies_personalization_is_a_stranger_whatever_came_before(
    api: Api, imported: int, history: list[tuple[str, int]], denied: set[str], route: str,
    number: int,
) -> None:  # fmt: skip
    with api.client() as client:
        if route == "import":
            user = f"imported-{number}"
            check_next_to_a_stranger(client, user, f"{user}-twin", set(IMPORTED[number]))
            return
        user = f"drawn-{next(_names)}"
        for name in (user, f"{user}-twin"):
            client.wait_applied(client.post_batch(tell(name, history))["receipt"])
        if route == "GPC":
            denied = set(GPC)
        deny(client, user, denied, route)
        check_next_to_a_stranger(client, user, f"{user}-twin", denied)
