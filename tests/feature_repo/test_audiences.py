"""Audiences: both back ends find the same members, and these are what the language says."""

import tempfile
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from feature_repo import score
from feature_repo.audiences import language, live, plan
from feature_repo.audiences.compiler import compile_definition
from feature_repo.audiences.index import Index
from feature_repo.audiences.rules import Definition
from feature_repo.errors import InvalidRuleError
from feature_repo.events import EventRecord
from tests.feature_repo import audience_shops as shops
from tests.feature_repo.audience_oracle import Shop

few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
NOW = shops.START + timedelta(days=shops.DAYS + 1)


def found(
    index: Index, definition: Definition, known: Mapping[str, Definition], now: datetime
) -> set[str]:
    """Return the members by SQL, having counted them as well."""
    now_ms = int(now.timestamp() * 1000)
    query = compile_definition(definition, known, now_ms=now_ms, past=now_ms < index.newest_ms)
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
    scores = {user: score.score(found) for user, found in features.items() if user in users}
    seen = [e for e in log if e.time_ms <= now_ms]
    return Shop(seen, features, {"interest": scores}, known, now_ms)


def drawn(bodies: list[dict[str, Any]], other: dict[str, Any]) -> tuple[list[Definition], Any]:
    """Return the definitions that rest on more than being overdue, and ``other`` by name."""
    made = []
    for body in [other, *bodies]:
        try:
            made.append(language.read(body))
        except InvalidRuleError as error:
            assert "overdue" in str(error)
    assume(made and "other" not in language.references(made[0]))
    return made[1:], {"other": made[0]}


@given(
    log=shops.logs(), rows=shops.feature_rows(), other=shops.definitions(),
    bodies=st.lists(shops.definitions(), min_size=6, max_size=6),
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
                    assert found(index, definition, known, now) == members
                    if plan.plan(definition, known).mode == "realtime":
                        assert by_profile(oracle, definition) == members


def by_profile(shop: Shop, definition: Definition) -> set[str]:
    """Return the members by the evaluator of live profiles."""
    now_s = shop.now_ms // 1000
    return {
        user
        for user, profile in shop.profiles.items()
        if live.is_member(definition, shop.known, live.User(user, profile, now_s))
    }
