"""Who denies analytics is in no figure and no training set: as if they had never been there."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from feature_repo.analytics.cube import Cube
from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.audiences import language
from feature_repo.audiences.compiler import compile_definition
from feature_repo.audiences.index import Index
from feature_repo.events.schema import EventRecord
from feature_repo.user_profile.purposes import DEFAULTS, SETTING
from tests.feature_repo import analytics_shop as shop
from tests.feature_repo.analytics.test_analytics import LATER_MS, PAST_MS, every
from training.history import dataset
from training.history.prepare import read_histories

OWNER = "{p002}v" + "0" * 25
RULES = [
    {"event": {"type": "purchase", "count": {"gte": 3}}},
    {"trait": {"name": "event_count", "gte": 2}},
]


def denial(number: int, user: str, *, linked: str | None = None) -> EventRecord:
    return EventRecord(
        id=f"d{number}", type="consent_updated", user=user, time_ms=shop.START_MS,
        received_ms=shop.START_MS, linked=linked, consent={"analytics": False},
    )  # fmt: skip


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, set[str]]:
    """Return a shop where some deny analytics, the same without them, and who they are.

    One of them is an anonymous id whose user, who is known by nothing else, denies it.
    """
    events = shop.table()
    gone = sorted(set(events.user))[-120:]
    whole, less = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("less")
    shop.write(whole, events)
    shop.write(less, events[~events.user.isin(gone)])
    said = [denial(n, user) for n, user in enumerate(gone[1:])]
    said.append(denial(len(said), OWNER, linked=gone[0]))
    Archive(whole / "archive" / "events").append(
        "denials", [(LogPosition(LATER_MS + n, 0), each) for n, each in enumerate(said)]
    )
    return whole, less, {*gone, OWNER}


@pytest.fixture(scope="module")
def indexes(homes: tuple[Path, Path, set[str]]) -> Iterator[tuple[Index, Index]]:
    with Index(homes[0]) as whole, Index(homes[1]) as less:
        yield whole, less


def test_analyses_are_those_of_a_shop_without_them(indexes: tuple[Index, Index]) -> None:
    cubes = [Cube(index) for index in indexes]
    for now_ms in (PAST_MS, LATER_MS):
        whole, less = (every(cube, now_ms) for cube in cubes)
        assert whole == less
        assert any(answer["suppressed"] == 0 for answer in whole)


@pytest.mark.parametrize("now_ms", [PAST_MS, LATER_MS])
@pytest.mark.parametrize("rule", RULES)
def test_audiences_count_as_without_them_and_have_them_as_members(
    indexes: tuple[Index, Index], rule: dict[str, object], now_ms: int
) -> None:
    counts, sizes = list[int](), list[int]()
    for index in indexes:
        definition = language.read({"rule": rule, "consent": []})
        query = compile_definition(definition, {}, now_ms=now_ms, past=index.is_past(now_ms))
        counts.append(index.rows(query.count(), query.parameters)[0][0])
        given = {**query.parameters, "after": "", "limit": 10_000}
        sizes.append(len(index.rows(query.members(), given)))
    assert counts[0] == counts[1] == sizes[1] < sizes[0]
    assert indexes[0].num_counted == indexes[1].num_counted == indexes[1].num_users


def test_training_sets_are_those_of_a_shop_without_them(
    homes: tuple[Path, Path, set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, less, gone = homes
    until = datetime.fromtimestamp(LATER_MS / 1000, UTC)
    columns = ["user", "event_timestamp", "purchase_28d"]
    one, other = (dataset.positions(home, until=until)[columns] for home in (whole, less))
    assert one.equals(other)
    assert len(one)
    mine = {user for user, _ in read_histories(whole)}
    assert mine == {user for user, _ in read_histories(less)}
    monkeypatch.setenv(SETTING, '{"analytics": false}')
    assert read_histories(whole) == []
    monkeypatch.undo()
    with Index(whole, {**DEFAULTS, "analytics": False}) as index:
        assert index.num_counted == 0
    assert not mine & gone
