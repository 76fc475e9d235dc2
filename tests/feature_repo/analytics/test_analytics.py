"""Analyses against small oracles in pandas, written from what the pages say, not from the code."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from feature_repo.analytics.affinities import affinities
from feature_repo.analytics.cube import Cube
from feature_repo.analytics.drift import drift
from feature_repo.analytics.funnel import funnel, parse
from feature_repo.analytics.habits import habits
from feature_repo.analytics.retention import retention
from feature_repo.analytics.rfm import rfm
from feature_repo.analytics.trends import trends
from feature_repo.audiences.index import Index
from feature_repo.errors import InvalidQuestionError
from tests.feature_repo import analytics_shop as shop

K = 20
LATER_MS = shop.START_MS + 10_000 * shop.DAY_MS
PAST_MS = shop.START_MS + 161 * shop.DAY_MS + 5 * shop.HOUR_MS


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    return shop.table()


@pytest.fixture(scope="module")
def cube(events: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cube]:
    home = tmp_path_factory.mktemp("shop")
    shop.write(home, events, features=True)
    with Index(home) as index:
        yield Cube(index)


def known(events: pd.DataFrame, now_ms: int) -> pd.DataFrame:
    seen = events[events.time_ms <= now_ms].copy()
    moment = pd.to_datetime(seen.time_ms, unit="ms", utc=True)
    seen["month"] = moment.dt.year * 12 + moment.dt.month
    seen["week"] = (moment.dt.floor("D") - pd.to_timedelta(moment.dt.weekday, unit="D")).dt.date
    seen["moment"] = moment
    return seen


def cells(found: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in an answer."""
    if isinstance(found, dict):
        yield found
        for each in found.values():
            yield from cells(each)
    elif isinstance(found, list):
        for each in found:
            yield from cells(each)


def every(cube: Cube, now_ms: int) -> list[dict[str, Any]]:
    moment = cube.moment(now_ms)
    return [
        trends(
            moment, grain="week", event_type="purchase", level=1, category=None, most=50, buckets=99
        ),
        trends(
            moment,
            grain="month",
            event_type="purchase",
            level=2,
            category=None,
            most=50,
            buckets=99,
        ),
        drift(moment, months=12, most=50),
        retention(moment, grain="month", event_type="purchase", periods=12),
        retention(moment, grain="week", event_type="view_item", periods=40),
        funnel(moment, steps=["view_item", "purchase"], within_ms=9**10, days=400),
        funnel(moment, steps=["message_sent"] * 8, within_ms=9**10, days=400),
        rfm(moment, rows="recency", columns="frequency"),
        habits(moment, event_type="purchase", days=400),
        affinities(moment, months=12, most=50),
    ]


@pytest.mark.parametrize("days", [0, 9, 60, 161, 10_000])
def test_no_figure_is_of_fewer_than_twenty_people(cube: Cube, days: int) -> None:
    for found in every(cube, shop.START_MS + days * shop.DAY_MS):
        assert found["k"] == K
        assert found["as_of"]
        for each in cells(found):
            for name in ("users", "users_at_least", "of", "users_before", "users_after"):
                assert each.get(name) is None or each[name] >= K, (name, each)
            if each.get("users", 0) is None:
                figures = {"events", "amount", "share", "mean", "mean_spend", "median_hours"}
                assert all(each.get(figure) is None for figure in figures)
        for totals in ("row_totals", "column_totals", "weekday_totals", "hour_totals"):
            assert all(n is None or n >= K for n in found.get(totals, []))


def test_suppressed_counts_what_is_hidden(cube: Cube) -> None:
    found = every(cube, LATER_MS)
    assert sum(each["suppressed"] > 0 for each in found) >= 5
    for each in (found[0], found[3], found[7], found[8]):
        hidden = [c for c in cells(each) if "users" in c and c["users"] is None and "of" not in c]
        whole = [c for c in hidden if "cells" in c]
        assert each["suppressed"] == len(hidden) - len(whole)


@pytest.mark.parametrize("now_ms", [LATER_MS, PAST_MS])
def test_trends_are_what_pandas_counts(cube: Cube, events: pd.DataFrame, now_ms: int) -> None:
    found = trends(
        cube.moment(now_ms), grain="week", event_type="purchase", level=2, category=None, most=50,
        buckets=99,
    )  # fmt: skip
    bought = known(events, now_ms).query("kind == 'purchase'")
    lines = bought.explode(["categories", "prices"])
    assert found["series"][0]["category"] is None
    assert len(found["series"]) == 1 + len(shop.CATEGORIES)
    shown = 0
    for series in found["series"]:
        own = lines if series["category"] is None else lines[lines.categories == series["category"]]
        for point in series["points"]:
            here = own[own.week.astype(str) == point["start"]]
            if point["users"] is None:
                continue
            shown += 1
            assert point["users"] == here.user.nunique()
            assert point["events"] == here.index.nunique()
            assert point["amount"] == pytest.approx(here.prices.sum())
            low, high = point["users_interval"]
            assert low <= point["users"] <= high
    assert shown > 40
    starts = [point["start"] for point in found["series"][0]["points"]]
    last = known(events, now_ms).moment.max().date()
    assert starts == sorted(starts)
    assert starts[0] == "2024-01-01"
    assert pd.Timestamp(starts[-1]).date() + pd.Timedelta(days=7) <= last + pd.Timedelta(days=1)


def test_a_trend_has_shape_only_where_nothing_is_hidden(cube: Cube) -> None:
    found = trends(
        cube.moment(LATER_MS), grain="month", event_type="purchase", level=2, category=None,
        most=50, buckets=99,
    )  # fmt: skip
    for series in found["series"]:
        whole = all(point["events"] is not None for point in series["points"])
        assert (series["change_points"] is not None) == whole
    one = trends(
        cube.moment(LATER_MS), grain="month", event_type="purchase", level=1, category="Odd/One",
        most=1, buckets=99,
    )  # fmt: skip
    assert [each["category"] for each in one["series"]] == [None, "Odd/One"]
    same = next(each for each in found["series"] if each["category"] == "Odd/One")
    assert one["series"][1]["points"] == same["points"]
    with pytest.raises(InvalidQuestionError, match="Odd/Two"):
        trends(cube.moment(LATER_MS), grain="month", event_type="purchase", level=1,
               category="Odd/Two", most=1, buckets=9)  # fmt: skip


@pytest.mark.parametrize("now_ms", [LATER_MS, PAST_MS])
@pytest.mark.parametrize("grain", ["month", "week"])
def test_retention_is_what_pandas_counts(
    cube: Cube, events: pd.DataFrame, now_ms: int, grain: str
) -> None:
    found = retention(
        cube.moment(now_ms), grain="month" if grain == "month" else "week", event_type="purchase",
        periods=30,
    )  # fmt: skip
    bought = known(events, now_ms).query("kind == 'purchase'").copy()
    bought["start"] = (
        bought.moment.dt.strftime("%Y-%m-01") if grain == "month" else bought.week.astype(str)
    )
    starts = [cohort["start"] for cohort in found["cohorts"]]
    bought = bought[bought.start <= starts[-1]]
    first = bought.groupby("user").start.min()
    assert starts == sorted(starts)
    shown = 0
    for cohort in found["cohorts"]:
        members = set(first[first == cohort["start"]].index)
        assert cohort["began_before"] == (cohort["start"] == first.min())
        assert cohort["users"] == (len(members) if len(members) >= K else None)
        for cell in cohort["cells"]:
            at = starts[starts.index(cohort["start"]) + cell["age"]]
            back = len(members & set(bought[bought.start == at].user))
            lost = len(members) - back
            if min(back, len(members)) < K or 0 < lost < K:
                assert cell["users"] is None
            else:
                shown += 1
                assert cell["users"] == back
                assert cell["share"] == pytest.approx(back / len(members), abs=1e-4)
                assert cell["interval"][0] <= cell["share"] <= cell["interval"][1]
    assert shown >= 5
    for age in found["curve"]:
        parts = [
            (c["cells"][age["age"]]["users"], c["users"])
            for c in found["cohorts"] if len(c["cells"]) > age["age"]
        ]  # fmt: skip
        parts = [(back, size) for back, size in parts if back is not None]
        assert age["cohorts"] == len(parts)
        if parts:
            assert age["users"] == sum(back for back, _ in parts)


def test_of_a_cohort_a_few_who_stayed_away_are_hidden_too(tmp_path: Path) -> None:
    visits = [(0, 40), (31, 30), (60, 40), (91, 20), (121, 19)]
    rows = pd.DataFrame(
        {
            "user": f"{{p001}}u{number:025d}", "kind": "purchase", "tz": None, "prices": [1.0],
            "time_ms": shop.START_MS + day * shop.DAY_MS, "categories": ["Food/Tea"],
        }
        for day, users in [*visits, (190, 1)] for number in range(users)
    )  # fmt: skip
    shop.write(tmp_path, rows)
    with Index(tmp_path) as index:
        found = retention(
            Cube(index).moment(LATER_MS), grain="month", event_type="purchase", periods=12
        )
    first = found["cohorts"][0]
    assert first["users"] == 40
    assert [cell["users"] for cell in first["cells"]] == [40, None, 40, 20, None, None]


def walk(times: dict[str, list[int]], steps: list[str], from_ms: int) -> list[int | None]:
    """Return, of one user, the shortest time to each step, trying every start: the slow way."""
    best: list[int | None] = [None] * len(steps)
    for start in times.get(steps[0], []):
        if start < from_ms:
            continue
        at, best[0] = start, 0
        for number, kind in enumerate(steps[1:], start=1):
            later = [t for t in times.get(kind, []) if t > at]
            if not later:
                break
            at = min(later)
            took, known_best = at - start, best[number]
            best[number] = took if known_best is None else min(known_best, took)
    return best


@pytest.mark.parametrize("now_ms", [LATER_MS, PAST_MS])
@pytest.mark.parametrize(
    ("steps", "within_days", "days"),
    [
        (["view_item", "add_to_cart", "purchase"], 20, 400),
        (["view_item", "add_to_cart", "purchase", "purchase"], 90, 400),
        (["purchase", "purchase"], 5, 120),
        (["message_sent", "purchase", "view_item"], 60, 200),
    ],
)
def test_a_funnel_is_what_a_walk_over_every_start_finds(
    cube: Cube, events: pd.DataFrame, now_ms: int, steps: list[str], within_days: int, days: int
) -> None:
    within_ms = within_days * shop.DAY_MS
    moment = cube.moment(now_ms)
    found = funnel(moment, steps=steps, within_ms=within_ms, days=days)
    seen = known(events, now_ms)
    from_ms = min(now_ms, int(events.time_ms.max())) + 1 - days * shop.DAY_MS
    took = []
    for _, own in seen.sort_values("time_ms").groupby("user"):
        times = {str(kind): list(some.time_ms) for kind, some in own.groupby("kind")}
        took.append(walk(times, steps, from_ms))
    reached = [
        [t[step] for t in took if t[step] is not None and t[step] <= within_ms]
        for step in range(len(steps))
    ]
    counts = [len(each) for each in reached]
    assert counts[0] > counts[-1] > 0
    for step, each in enumerate(found["steps"]):
        assert each["type"] == steps[step]
        if each["users"] is not None:
            assert each["users"] == counts[step]
            if step:
                hours = np.median(np.array(reached[step])) / shop.HOUR_MS
                assert each["median_hours"] == pytest.approx(hours, abs=0.01)
                assert each["of_first"]["share"] == pytest.approx(
                    counts[step] / counts[0], abs=1e-4
                )
    shown = [each["users"] for each in found["steps"] if each["users"] is not None]
    assert len(shown) >= 2
    assert all(a == b or a - b >= K for a, b in pairwise(shown))


@pytest.mark.parametrize("text", ["purchase", "a,,b", "A,b", ",".join("abcdefghi")])
def test_steps_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidQuestionError, match=r"^steps: "):
        parse(text)


@pytest.mark.parametrize("now_ms", [LATER_MS, PAST_MS])
@pytest.mark.parametrize(("rows", "columns"), [("recency", "frequency"), ("frequency", "monetary")])
def test_rfm_is_what_pandas_counts(
    cube: Cube, events: pd.DataFrame, now_ms: int, rows: Any, columns: Any
) -> None:
    found = rfm(cube.moment(now_ms), rows=rows, columns=columns)
    today = (min(now_ms, int(events.time_ms.max())) + 1) // shop.DAY_MS
    bought = events[(events.kind == "purchase") & (events.time_ms < today * shop.DAY_MS)].copy()
    bought["day"] = bought.time_ms // shop.DAY_MS
    bought["spent"] = bought.prices.map(sum)
    recent = bought[bought.day >= today - 91]
    figures = pd.DataFrame({"recency": bought.groupby("user").day.max()})
    figures["frequency"] = recent.groupby("user").size()
    figures["monetary"] = recent.groupby("user").spent.sum()
    figures = figures.fillna(0)
    fifths = ((figures.rank(method="min") - 1) * 5 // len(figures)).astype(int) + 1
    counts = fifths.groupby([rows, columns]).size()
    shown = 0
    for cell in found["cells"]:
        here = int(counts.get((cell[rows], cell[columns]), 0))
        if cell["users"] is None:
            continue
        shown += 1
        assert cell["users"] == here
        own = figures[(fifths[rows] == cell[rows]) & (fifths[columns] == cell[columns])]
        assert cell["mean_spend"] == pytest.approx(own.monetary.mean(), abs=0.01)
        assert cell["median_recency_days"] == (today - own.recency).median()
    few = sum(int(counts.get((r, c), 0)) < K for r in range(1, 6) for c in range(1, 6))
    assert shown > 0
    assert found["suppressed"] >= few
    for row, total in enumerate(found["row_totals"], start=1):
        if total is not None and None not in found["column_totals"]:
            assert total == (fifths[rows] == row).sum()


@pytest.mark.parametrize(("now_ms", "days"), [(LATER_MS, 400), (PAST_MS, 90)])
def test_habits_are_what_pandas_counts_where_the_shopper_is(
    cube: Cube, events: pd.DataFrame, now_ms: int, days: int
) -> None:
    found = habits(cube.moment(now_ms), event_type="purchase", days=days)
    until = min(now_ms, int(events.time_ms.max())) + 1
    bought = known(events, now_ms).query("kind == 'purchase'")
    bought = bought[bought.time_ms >= until - days * shop.DAY_MS].copy()
    there = [
        moment.tz_convert("UTC" if tz is None else tz)
        for moment, tz in zip(bought.moment, bought.tz, strict=True)
    ]
    bought["slot"] = [(moment.weekday(), moment.hour) for moment in there]
    shown = 0
    for cell in found["cells"]:
        here = bought[bought.slot == (cell["weekday"], cell["hour"])]
        if cell["users"] is None:
            continue
        shown += 1
        assert (cell["users"], cell["events"]) == (here.user.nunique(), len(here))
        assert cell["interval"][0] <= cell["share"] <= cell["interval"][1]
    assert shown >= 10
    assert {cell["hour"] for cell in found["cells"] if cell["users"]} > {13}


def test_affinities_are_what_pandas_counts(cube: Cube, events: pd.DataFrame) -> None:
    found = affinities(cube.moment(LATER_MS), months=4, most=50)
    bought = known(events, LATER_MS).query("kind == 'purchase'")
    bought = bought[(bought.month > 2024 * 12 + 3) & (bought.month <= 2024 * 12 + 7)]
    assert (found["period"]["from"], found["period"]["to"]) == ("2024-04-01", "2024-08-01")
    assert found["baskets"] == len(bought)
    held = {c: bought.categories.map(lambda own, c=c: c in own) for c in shop.CATEGORIES}
    assert found["pairs"]
    for pair in found["pairs"]:
        a, b = held[pair["a"]], held[pair["b"]]
        assert pair["baskets"] == (a & b).sum()
        assert pair["lift"] == pytest.approx(
            (a & b).sum() * len(bought) / (a.sum() * b.sum()), abs=1e-3
        )
        people = [bought[a & b & (bought.month == m)].user.nunique() for m in bought.month.unique()]
        assert pair["users_at_least"] == max(people) >= K
        assert pair["interval"][0] < pair["lift"] < pair["interval"][1]
    best = found["pairs"][0]
    assert {best["a"], best["b"]} == {"Food/Bread", "Food/Jam"}
    assert best["interval"][0] > 1
    only = affinities(cube.moment(LATER_MS), months=4, most=50, category="Food/Jam")
    assert only["pairs"]
    assert all("Food/Jam" in (pair["a"], pair["b"]) for pair in only["pairs"])
    with pytest.raises(InvalidQuestionError, match=r"^category: "):
        affinities(cube.moment(LATER_MS), months=4, most=5, category="Food")


def test_drift_is_how_far_the_profiles_moved(cube: Cube, events: pd.DataFrame) -> None:
    found = drift(cube.moment(LATER_MS), months=4, most=50)
    history = pd.DataFrame(
        cube.index.rows(
            'SELECT "user", event_timestamp, interest_categories, interest_category_weights '
            "FROM feature_rows_profile", {},
        ),
        columns=["user", "at", "names", "weights"],
    )  # fmt: skip
    before = pd.to_datetime(history["at"], utc=True) - pd.Timedelta(days=1)
    history["month"] = before.dt.strftime("%Y-%m-01")
    history = history.sort_values("at").groupby(["user", "month"]).last().reset_index()
    shares = {
        (row.user, row.month): dict(zip(row.names, np.array(row.weights) / sum(row.weights),
                                        strict=True))
        for row in history.itertuples() if len(row.weights)
    }  # fmt: skip
    months = ["2024-04-01", "2024-05-01", "2024-06-01", "2024-07-01"]
    assert [each["start"] for each in found["months"]] == months[1:]
    for was, month in zip(months, found["months"], strict=False):
        moved = [
            sum(
                abs(now.get(c, 0) - shares[user, was].get(c, 0)) for c in {*now, *shares[user, was]}
            )
            / 2
            for (user, at), now in shares.items()
            if at == month["start"] and (user, was) in shares
        ]
        assert month["users"] == len(moved)
        assert month["mean"] == pytest.approx(np.mean(moved), abs=1e-4)
        assert month["quartiles"][1] == pytest.approx(np.median(moved), abs=1e-4)
    both = {u for u, m in shares if m == months[0]} & {u for u, m in shares if m == months[-1]}
    assert found["users"] == len(both)
    assert found["rising"][0]["category"] == "Home/Rug"
    assert found["compared"] <= len(shop.CATEGORIES)
    for each in [*found["rising"], *found["falling"]]:
        change = [
            shares[u, months[-1]].get(each["category"], 0)
            - shares[u, months[0]].get(each["category"], 0)
            for u in both
        ]
        assert each["change"] == pytest.approx(np.mean(change), abs=1e-4)
        half = stats.t.ppf(1 - 0.025 / found["compared"], len(both) - 1) * stats.sem(change)
        assert each["interval"][1] - each["change"] == pytest.approx(half, abs=1e-4)
        assert not each["interval"][0] <= 0 <= each["interval"][1]


def test_an_empty_archive_and_an_unknown_type_have_no_figures(
    cube: Cube, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Index(tmp_path_factory.mktemp("empty")) as index:
        for found in every(Cube(index), LATER_MS):
            assert not [c for c in cells(found) if c.get("users")]
    moment = cube.moment(LATER_MS)
    assert funnel(moment, steps=["a", "b"], within_ms=1, days=1)["steps"][0]["users"] is None
    assert retention(moment, grain="week", event_type="nothing", periods=3)["curve"] == []
    assert trends(moment, grain="week", event_type="nothing", level=1, category=None, most=3,
                  buckets=9)["series"][0]["points"] == []  # fmt: skip
    assert all(c["users"] is None for c in habits(moment, event_type="no", days=9)["cells"])
