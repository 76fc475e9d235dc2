"""Keys of scope analyst: two questions never single anybody out, whichever way they differ."""

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import redis
from gateway_thread import Api

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import EventRecord, ItemRecord
from services.audiences import coarse
from services.audiences.definitions import KEY
from services.client import Client
from services.http import api_keys

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000 // DAY_MS * DAY_MS
USERS = 130
VIEWED: dict[str, Any] = {"event": {"type": "view_item"}}
X: dict[str, Any] = {"event": {"type": "purchase"}}
"""One person."""


def spent(least: int) -> dict[str, Any]:
    """Return the rule of those with at least so many events: user n has n + 1."""
    return {"trait": {"name": "event_count", "gte": least}}


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Api:
    api = make_api()
    pseudonyms = Pseudonyms.load(api.settings.home, api.settings.partitions)
    entries = []
    for number in range(USERS):
        for n in range(number + 1):
            item = "only" if (number, n) == (USERS - 1, 0) else "A"
            time_ms = START_MS + (number + n) * 60_000
            record = EventRecord(
                id=f"{number}-{n}", type="view_item" if item == "A" else "purchase",
                user=pseudonyms.of_user(f"shopper-{number}"), time_ms=time_ms, received_ms=time_ms,
                order_id=f"o{number}", items=[ItemRecord(item, price=2.0)],
            )  # fmt: skip
            entries.append((LogPosition.imported(time_ms), record))
    entries.sort(key=lambda each: each[1].time_ms)
    Archive(api.settings.home / "archive" / "events").append("import", entries)
    with redis.Redis.from_url(api.url) as store:
        api_keys.register(store, "analyst-key", name="a", scope="analyst")
    return api


@pytest.fixture(autouse=True)
def forget(api: Api) -> None:
    with redis.Redis.from_url(api.url) as store:
        store.delete(KEY)
        for key in store.scan_iter("portrait:questions*"):
            store.delete(key)


@pytest.fixture
def analyst(api: Api) -> Iterator[Client]:
    with api.client("analyst-key") as client:
        yield client


@pytest.fixture
def server(api: Api) -> Iterator[Client]:
    with api.client() as client:
        yield client


def call(client: Client, method: str, path: str, body: Any = None) -> Any:
    content = None if body is None else orjson.dumps(body)
    headers = {} if body is None else {"content-type": "application/json"}
    return client.http.request(method, f"/v1/{path}", content=content, headers=headers)


def ask(client: Client, rule: Any, as_of: str = "") -> Any:
    answer = call(client, "POST", f"audiences/preview{as_of}", {"rule": rule, "consent": []})
    assert answer.status_code == 200, answer.text
    return answer.json()["count"]


def test_counts_are_rounded_and_small_ones_hidden(analyst: Client, server: Client) -> None:
    for least in (1, 30, 58, 85, 111):
        exact = ask(server, spent(least))
        assert exact == USERS + 1 - least
        told = ask(analyst, spent(least))
        rest = USERS - exact
        assert told == (None if exact < 20 or 0 < rest < 20 else 5 * round(exact / 5))


def test_what_all_but_a_few_are_in_is_hidden(analyst: Client, server: Client) -> None:
    assert ask(server, spent(13)) == USERS - 12
    assert ask(analyst, spent(13)) is None


def test_what_few_are_in_is_hidden(analyst: Client) -> None:
    assert [ask(analyst, rule) for rule in (X, spent(112), spent(129))] == [None] * 3


@pytest.mark.parametrize("least", range(40, 53))
@pytest.mark.parametrize("first", [True, False])
def test_one_person_more_changes_no_answer(analyst: Client, least: int, first: bool) -> None:
    group = spent(least)
    pair = [group, {"all": [group, {"not": X}]}]
    one, two = (ask(analyst, rule) for rule in (pair if first else pair[::-1]))
    assert one == two


def test_the_edge_of_what_is_hidden_tells_nothing(analyst: Client, server: Client) -> None:
    group = spent(USERS - 19)
    without = {"all": [group, {"not": X}]}
    assert (ask(server, group), ask(server, without)) == (20, 19)
    assert ask(analyst, group) == ask(analyst, without) == 20


def test_moments_of_a_day_are_one(analyst: Client, server: Client) -> None:
    moments = [f"?as_of=2023-11-1{day}T0{hour}:00:00Z" for day in (4, 5) for hour in (1, 2)]
    assert len({ask(server, VIEWED, moment) for moment in moments}) > 1
    assert ask(analyst, VIEWED, moments[0]) == ask(analyst, VIEWED, moments[1])
    assert ask(analyst, VIEWED, moments[2]) == ask(analyst, VIEWED, moments[3])
    found = [
        call(analyst, "GET", f"analytics/funnel{each}&steps=view_item,purchase&days=30").json()
        for each in moments[2:]
    ]
    assert found[0] == found[1]


def test_days_apart_and_days_to_come_are_no_way_around(analyst: Client) -> None:
    group, without = spent(43), {"all": [spent(43), {"not": X}]}
    days = ("?as_of=2031-01-02", "?as_of=2031-01-03", "")
    assert len({ask(analyst, rule, day) for rule in (group, without) for day in days}) == 1
    told = {ask(analyst, rule, f"?as_of=2023-11-{n}") for n, rule in ((17, group), (18, without))}
    assert len(told) == 1


def test_a_funnel_is_within_whole_days_and_rests_on_no_exact_number(
    analyst: Client, server: Client
) -> None:
    path = "analytics/funnel?steps=view_item,purchase&days=30&within="
    assert call(analyst, "GET", f"{path}904m").status_code == 403
    assert call(server, "GET", f"{path}904m").status_code == 200
    found = call(analyst, "GET", f"{path}7d").json()
    assert found["data"] == {"events": 9000, "newest_event": None}
    habits = "analytics/habits?type=view_item&as_of=2023-11-18"
    exact, told = (call(one, "GET", habits).json() for one in (server, analyst))
    events = [[cell["events"] for cell in each["cells"] if cell["users"]] for each in (exact, told)]
    assert events[0]
    assert any(n % coarse.STEP for n in events[0])
    assert events[1] == [coarse.STEP * round(n / coarse.STEP) for n in events[0]]


def test_a_campaign_of_few_tells_an_analyst_nothing(analyst: Client, server: Client) -> None:
    assert call(server, "PUT", "audiences/x", {"rule": X, "consent": []}).status_code == 201
    campaign = {
        "audience": "x", "offer": {"id": "tea-5"}, "channel": "email",
        "window": {"from": "2030-01-01", "until": "2031-01-01"},
    }  # fmt: skip
    answer = call(analyst, "PUT", "campaigns/of-one", campaign)
    assert answer.status_code == 201, answer.text
    found = call(analyst, "GET", "campaigns/of-one").json()
    assert (found["decided"], found["spent"]["messages"]) == (None, None)
    found = call(server, "GET", "campaigns/of-one").json()
    assert (found["decided"], found["spent"]["messages"]) == (0, 0)


def test_nobody_is_named(analyst: Client, server: Client, api: Api) -> None:
    pseudonym = Pseudonyms.load(api.settings.home, api.settings.partitions).of_user("shopper-1")
    for leaf in ({"user_ids": ["shopper-1"]}, {"entities": [pseudonym]}):
        rule = {"all": [VIEWED, {"not": leaf}]}
        for method, path in (("POST", "preview"), ("PUT", "mine")):
            answer = call(analyst, method, f"audiences/{path}", {"rule": rule, "consent": []})
            assert answer.status_code == 403
            assert answer.json()["errors"][0]["pointer"] == "/rule/all/1/not"
    body = {"rule": {"user_ids": ["shopper-1"]}, "consent": []}
    assert call(server, "PUT", "audiences/one", body).status_code == 201
    inner = {"rule": {"audience": "one"}, "consent": []}
    assert call(server, "PUT", "audiences/two", inner).status_code == 201
    assert call(server, "PUT", "audiences/all", {"rule": VIEWED, "consent": []}).status_code == 201
    for path in ("one", "two", "one/preview", "two/preview", "overlap?names=all,two"):
        assert call(analyst, "GET", f"audiences/{path}").status_code == 403
    for path in ("one/preview", "two/preview", "overlap?names=all,two"):
        assert call(server, "GET", f"audiences/{path}").status_code == 200


def test_an_overlap_is_as_coarse(analyst: Client, server: Client) -> None:
    for name, rule in (("most", spent(40)), ("but", {"all": [spent(40), {"not": X}]}),
                       ("half", spent(65))):  # fmt: skip
        body: dict[str, Any] = {"rule": rule, "consent": []}
        assert call(server, "PUT", f"audiences/{name}", body).status_code == 201
    found = call(analyst, "GET", "audiences/overlap?names=most,but,half").json()
    assert found["counts"]["most"] == found["counts"]["but"] == 90
    shown = {(pair["a"], pair["b"]): pair["both"] for pair in found["pairs"]}
    assert shown == {("most", "but"): 90, ("most", "half"): 65, ("but", "half"): 65}


def test_what_an_audience_was_called_does_not_matter(analyst: Client, server: Client) -> None:
    for rule, told in ((spent(40), 90), (spent(43), 90), (spent(70), 60)):
        call(server, "PUT", "audiences/named", {"rule": rule, "consent": []})
        assert ask(analyst, {"audience": "named"}) == told


def test_a_question_of_another_version_is_near_to_none(analyst: Client, api: Api) -> None:
    with redis.Redis.from_url(api.url) as store:
        store.rpush(coarse._BOOK, b'{"":{"rule":{"trait":{"name":"gone","gte":1}},"consent":[]}}')
    assert ask(analyst, spent(40)) == 90
    assert ask(analyst, spent(129)) is None


def test_near_questions_have_a_budget(analyst: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coarse, "NEAR_A_DAY", 3)
    for least in (40, 41, 42, 43, 70):
        ask(analyst, spent(least))
    body = {"rule": spent(44), "consent": []}
    answer = call(analyst, "POST", "audiences/preview", body)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 86_400
    assert ask(analyst, spent(40)) == 90  # asked again it is no other question
