"""Feature tables equal a naive oracle at every snapshot, and never see the future."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from feature_repo.features import snapshots
from feature_repo.features.catalogue import BATCH_VIEWS, VIEWS, WINDOWS_DAYS
from tests.feature_repo import oracle, shop_log

UNTIL = shop_log.START + timedelta(days=240)
LAST = UNTIL.date().toordinal() - datetime(1970, 1, 1, tzinfo=UTC).date().toordinal()
few = settings(max_examples=12, suppress_health_check=list(HealthCheck))


def rows(home: Path, view: str) -> dict[tuple[str, int], dict[str, Any]]:
    """Return a view's rows by key and snapshot day; of equal ones, the one created last."""
    key = "item_id" if view == "item" else "user"
    table = pq.read_table(home / "features" / view).sort_by("created").to_pylist()
    found = {}
    for row in table:
        day = int(row.pop("event_timestamp").timestamp()) // 86_400
        row.pop("created")
        found[row.pop(key), day] = row
    return found


def build(folder: str, log: list[Any], until: datetime = UNTIL) -> Path:
    home = shop_log.write(Path(folder), log)
    snapshots.build(home, until=until)
    return home


def latest(found: dict[tuple[str, int], dict[str, Any]], key: str, day: int) -> Any:
    days = [d for k, d in found if k == key and d <= day]
    return found[key, max(days)] if days else None


def check(row: dict[str, Any], expected: dict[str, Any]) -> None:
    assert row.keys() == expected.keys()
    for name, value in expected.items():
        if name in {"interest_categories", "interest_brands"}:  # equal weights: either order
            weights = name.replace("ies", "y").replace("brands", "brand") + "_weights"
            got = dict(zip(row[name], row[weights], strict=True))
            assert got == pytest.approx(dict(zip(value, expected[weights], strict=True)), abs=1e-8)
            assert row[weights] == sorted(row[weights], reverse=True)
        elif isinstance(value, float):
            # money is kept in thousandths of each event
            assert row[name] == pytest.approx(value, abs=0.02 if value > 1 else 1e-6), name
        elif isinstance(value, list):
            assert row[name] == pytest.approx(value, abs=1e-8), name
        else:
            assert row[name] == value, name


@given(log=shop_log.events())
@few
def test_behaviour_is_exact_on_every_day(log: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = build(folder, log)
        for window in WINDOWS_DAYS:
            found = rows(home, f"behaviour_{window}d")
            for user in shop_log.USERS:
                mine = [e for e in log if e.user == user]
                first = min(map(oracle.day_of, mine), default=LAST)
                assert latest(found, user, first) is None
                for day in range(first + 1, LAST + 1):
                    check(latest(found, user, day), oracle.behaviour(mine, day, window))


@given(log=shop_log.events())
@few
def test_profile_and_items_are_exact_on_every_monday(log: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = build(folder, log)
        profiles, items = rows(home, "profile"), rows(home, "item")
        mondays = [d for d in range(LAST - 250, LAST + 1) if d % 7 == 4]
        for day in mondays:
            before = [e for e in log if oracle.day_of(e) < day]
            users = {e.user for e in before}
            assert {u for u, d in profiles if d == day} == users
            for user in users:
                check(profiles[user, day], oracle.profile(log, user, day))
            for name in {i.item_id for e in before if e.type in oracle.TOUCHES for i in e.items}:
                expected = oracle.item(log, name, day)
                row = latest(items, name, day)
                # Lines of one event may state several prices; any of them is "the newest".
                expected.pop("price"), row.pop("price")
                check(row, expected)
                row["price"] = None


@given(log=shop_log.events())
@few
def test_a_future_event_changes_no_row(log: list[Any]) -> None:
    cut = shop_log.START + timedelta(days=60)
    known = [e for e in log if e.time_ms < cut.timestamp() * 1000]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        # The decay reference differs with `until`, so build both as of the cut.
        before, after = build(one, known, cut), build(two, log, cut)
        whole = shop_log.write(Path(two) / "whole", log)
        snapshots.build(whole, until=UNTIL)
        last = cut.date().toordinal() - datetime(1970, 1, 1, tzinfo=UTC).date().toordinal()
        for view in BATCH_VIEWS:
            same = rows(after, view)
            assert same.keys() == rows(before, view).keys()
            later = {k: v for k, v in rows(whole, view).items() if k[1] <= last}
            assert later.keys() == rows(before, view).keys()
            for key, row in rows(before, view).items():
                check(later[key], row)
                check(same[key], row)


@given(log=shop_log.events())
@few
def test_adding_later_rows_equals_building_anew(log: list[Any]) -> None:
    since = shop_log.START + timedelta(days=61)
    late = [
        e
        for e in log
        if since.timestamp() * 1000 > e.time_ms > (since.timestamp() - 2 * 86400) * 1000
    ]
    early = [e for e in log if e.time_ms < since.timestamp() * 1000 and e not in late]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        home = build(one, early, since)
        shop_log.write(home, [e for e in log if e not in early], "more")
        snapshots.build(home, until=UNTIL, since=since)
        anew = build(two, log)
        for view in BATCH_VIEWS:
            added, expected = rows(home, view), rows(anew, view)
            assert added.keys() == expected.keys(), view
            for key, row in expected.items():
                if view == "item":
                    row.pop("price"), added[key].pop("price")
                check(added[key], row)


def test_an_empty_archive_gives_readable_empty_tables(tmp_path: Path) -> None:
    counts = snapshots.build(tmp_path, until=UNTIL)
    assert set(counts.values()) == {0}
    for view, features in VIEWS.items():
        table = pq.read_table(tmp_path / "features" / view)
        assert table.column_names[3:] == [f.name for f in features]


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    snapshots.build(tmp_path, until=UNTIL, progress=lambda *step: told.append(step))
    assert [step[1] for step in told] == list(range(7))
    assert {step[2] for step in told} == {7}
