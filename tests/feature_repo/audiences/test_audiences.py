"""Audiences: both back ends find the same members, and these are what the language says."""

import contextlib
import tempfile
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from feature_repo.audiences import language, live, plan, ready, references
from feature_repo.audiences.compiler import compile_definition
from feature_repo.audiences.index import Index
from feature_repo.audiences.rules import Definition
from feature_repo.errors import InvalidRuleError
from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.profile_views import engagement_score
from tests.feature_repo import audience_shops as shops
from tests.feature_repo.audience_oracle import Shop

few = settings(
    max_examples=25, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a shrink would make 1,000 indexes
)  # fmt: skip
NOW = shops.START + timedelta(days=shops.DAYS + 1)


def found(
    index: Index, definition: Definition, known: Mapping[str, Definition], now: datetime
) -> set[str]:
    """Return the members by SQL, having counted them as well."""
    now_ms = int(now.timestamp() * 1000)
    query = compile_definition(definition, known, now_ms=now_ms, past=index.is_past(now_ms))
    page = {"after": "", "limit": 1000}
    members = [row[0] for row in index.rows(query.members(), {**query.parameters, **page})]
    assert members == sorted(set(members))
    assert index.rows(query.count(), query.parameters) == [(len(members),)]
    return set(members)


def judge(
    log: list[EventRecord], rows: list[Any], known: Mapping[str, Definition], now: datetime
) -> Shop:
    """Return the oracle as of ``now``."""
    now_ms = int(now.timestamp() * 1000)
    features = shops.latest(rows, now)
    users = {e.user for e in log}
    scores = {
        user: engagement_score.score(found) for user, found in features.items() if user in users
    }
    seen = [e for e in log if e.time_ms <= now_ms]
    return Shop(seen, features, {"interest": scores}, known, now_ms)


def drawn(bodies: list[dict[str, Any]], other: dict[str, Any]) -> tuple[list[Definition], Any]:
    """Return what can be read (some rest on being overdue alone), and ``other`` by name."""
    made = []
    for body in [other, *bodies]:
        with contextlib.suppress(InvalidRuleError):
            made.append(language.read(body))
    assert len(made) > len(bodies) // 2
    assume("other" not in references.references(made[0]))
    return made[1:], {"other": made[0]}


@given(
    log=shops.logs(), rows=shops.feature_rows(), other=shops.definitions(),
    bodies=st.lists(shops.definitions(), min_size=12, max_size=12),
    back_days=st.integers(1, shops.DAYS),
)  # fmt: skip
@few
def test_both_back_ends_find_the_members_that_the_oracle_finds(
    log: list[EventRecord], rows: list[Any], other: Any, bodies: list[Any], back_days: int
) -> None:
    definitions, known = drawn(bodies, other)
    with tempfile.TemporaryDirectory() as folder:
        shops.write(Path(folder), log, rows)
        with Index(Path(folder)) as index:
            for now in (NOW, NOW - timedelta(days=back_days)):
                oracle = judge(log, rows, known, now)
                for definition in definitions:
                    members = oracle.members(definition)
                    shown = language.to_document(definition)
                    assert found(index, definition, known, now) == members, shown
                    if plan.plan(definition, known)["mode"] == "realtime":
                        assert by_profile(oracle, definition) == members, shown


def by_profile(shop: Shop, definition: Definition) -> set[str]:
    """Return the members by the evaluator of live profiles."""
    now_s = shop.now_ms // 1000
    return {
        user
        for user, profile in shop.profiles.items()
        if live.is_member(definition, shop.known, live.User(user, profile, now_s))
    }


BUYER, LOOKER = shops.USERS[0], shops.USERS[1]


def event(kind: str, user: str, day: float, **more: Any) -> EventRecord:
    time_ms = shops.START_MS + int(day * shops.DAY_MS)
    return EventRecord(
        id=f"{kind}-{user[-1]}-{day}", type=kind, user=user, time_ms=time_ms,
        received_ms=time_ms, **more,
    )  # fmt: skip


def members(home: Path, log: list[EventRecord], body: dict[str, Any]) -> set[str]:
    shops.write(home, log, [])
    with Index(home) as index:
        return found(index, language.read({"consent": [], **body}), {}, NOW)


def test_all_conditions_on_lines_hold_on_one_line(tmp_path: Path) -> None:
    lines = [ItemRecord("A", brand="Ox", price=1.0), ItemRecord("B", brand="Yak", price=9.0)]
    rule = {"type": "view_item", "where": {"brand": "Ox", "price": {"gt": 5}}}
    log = [event("view_item", BUYER, 1, items=lines)]
    assert members(tmp_path / "a", log, {"rule": {"event": rule}}) == set()
    rule["where"] = {"brand": "Yak", "price": {"gt": 5}}
    assert members(tmp_path / "b", log, {"rule": {"event": rule}}) == {BUYER}


@pytest.mark.parametrize("category", ["Food", ["Food", "Nowhere"]])
def test_a_category_holds_those_below_it_and_no_neighbour(tmp_path: Path, category: Any) -> None:
    log = [
        event("view_item", BUYER, 1, items=[ItemRecord("A", category="Food/Tea")]),
        event("view_item", LOOKER, 1, items=[ItemRecord("B", category="Food-like/Tea")]),
    ]
    rule = {"event": {"type": "view_item", "where": {"category": category}}}
    assert members(tmp_path, log, {"rule": rule}) == {BUYER}


def test_few_or_no_events_are_counted_too(tmp_path: Path) -> None:
    log = [event("view_item", BUYER, 1), event("view_item", BUYER, 2), event("login", LOOKER, 1)]
    rule = {"event": {"type": "view_item", "count": {"lt": 2}}}
    assert members(tmp_path, log, {"rule": rule}) == {LOOKER}


def test_consent_is_asked_of_everyone_whatever_the_rule(tmp_path: Path) -> None:
    log = [
        event("login", BUYER, 1, consent={"email": True}),
        event("login", LOOKER, 1, consent={"email": True}),
        event("login", LOOKER, 2, consent={"email": False}),
        event("login", shops.USERS[2], 2),
    ]
    body = {"rule": {"any": [{"event": {"type": "login"}}, {"entities": [LOOKER]}]}}
    assert members(tmp_path / "a", log, {**body, "consent": ["email"]}) == {BUYER}
    assert len(members(tmp_path / "b", log, body)) == 3


def test_exclusions_keep_out_who_got_too_many_messages(tmp_path: Path) -> None:
    log = [event("message_sent", BUYER, 95 + n) for n in range(3)]
    log += [event("message_sent", LOOKER, day) for day in (10, 20, 99)]
    fatigue = {"event": {"type": "message_sent", "count": {"gte": 3}, "within": "7d"}}
    body = {"rule": {"event": {"type": "message_sent"}}, "exclude": [fatigue]}
    assert members(tmp_path, log, body) == {LOOKER}


def test_history_as_of_a_date_knows_nothing_later(tmp_path: Path) -> None:
    log = [event("purchase", BUYER, 10, order_id="o"), event("purchase", LOOKER, 60, order_id="p")]
    shops.write(tmp_path, log, [])
    buyers = language.read({"rule": {"event": {"type": "purchase"}}, "consent": []})
    with Index(tmp_path) as index:
        for day, expected in ((5, set()), (30, {BUYER}), (60, {BUYER, LOOKER})):
            as_of = shops.START + timedelta(days=day)
            assert found(index, buyers, {}, as_of) == expected


def told_again(number: int, day: float, price: float) -> EventRecord:
    line = ItemRecord("A", quantity=2.0, price=price, category="Food/Tea")
    made = event("purchase", BUYER, day, order_id="o", items=[line])
    return msgspec.structs.replace(made, id=f"e{number}")


@pytest.mark.parametrize("where", [{}, {"category": "Food"}, {"item_id": "A"}])
def test_an_order_told_again_counts_once_and_as_it_was_known_then(
    tmp_path: Path, where: dict[str, str]
) -> None:
    shops.write(tmp_path, [told_again(1, 10, 5.0), told_again(2, 5, 15.0)], [])  # one is late
    with Index(tmp_path) as index:
        for day, sums in (
            (7, {"value": 30, "amount": 30, "quantity": 2}),
            (50, {"value": 30, "amount": 10, "quantity": 2}),
        ):
            for of, total in sums.items():
                asked = {"type": "purchase", "sum": {"of": of, "eq": total}, "where": where}
                definition = language.read({"rule": {"event": asked}, "consent": []})
                as_of = shops.START + timedelta(days=day)
                assert found(index, definition, {}, as_of) == {BUYER}, (day, of)


def test_an_empty_archive_has_no_members(tmp_path: Path) -> None:
    assert members(tmp_path, [], {"rule": {"not": {"event": {"type": "purchase"}}}}) == set()


def test_price_level_compares_an_item_with_those_of_its_category(tmp_path: Path) -> None:
    def bought(user: str, item: str, price: float, category: str) -> EventRecord:
        line = ItemRecord(item, price=price, category=category)
        return event("purchase", user, price, items=[line], order_id=item)

    log = [
        bought(BUYER, "a", 1.0, "Food/Tea/Green"), bought(LOOKER, "b", 3.0, "Food/Tea"),
        bought(shops.USERS[2], "c", 90.0, "Home/Lamp"),
    ]  # fmt: skip
    rule = {"score": {"name": "price_level", "gte": 0.9}}
    assert members(tmp_path, log, {"rule": rule}) == {LOOKER}


def test_ready_audiences_are_rules_like_any_other(tmp_path: Path) -> None:
    rows = [("profile", BUYER, shops.START, {
        "rfm_recency_quintile": 5, "rfm_frequency_quintile": 5, "interest_categories": ["A b/C"],
    })]  # fmt: skip
    shops.write(tmp_path, [event("login", BUYER, 1), event("login", LOOKER, 1)], rows)
    with Index(tmp_path) as index:
        known = ready.ready(index.top_categories(5))
        sizes = {name: len(found(index, each, known, NOW)) for name, each in known.items()}
    assert sizes["ready-rfm-champions"] == sizes["ready-recency-5"] == 1
    assert sizes["ready-interest-a-b-c"] == 1
    assert sizes["ready-lifecycle-visitor"] == 2
    assert sum(n for name, n in sizes.items() if name.startswith("ready-rfm-")) == 1
    assert all(each.consent == [] for each in known.values())
