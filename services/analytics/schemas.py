"""Answers of behaviour analysis, for the API's description."""

from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from feature_repo.profile_views.shapes import Answer, Count, Fifth, Interval, RfmSegment, Share
from services.audiences.schemas import AskedOf
from services.http.answer_schemas import describe_answer
from services.http.profile_schemas import EXAMPLE_TIME

Grains = Literal["week", "month"]
Figures = Literal["recency", "frequency", "monetary"]


class Analysis(Answer):
    """What every analysis says: as of when, by how many people, how much is hidden."""

    as_of: str
    k: Annotated[int, Field(ge=20)]
    suppressed: Count
    data: AskedOf


Period = TypedDict("Period", {"from": str, "to": str})
"""What time the figures are of."""


class TrendPoint(Answer):
    """One bucket; null where too few people stand behind it or its neighbours."""

    start: str
    users: Count | None
    users_interval: Interval | None
    events: Count | None
    amount: float | None


class TrendGrowth(Answer):
    """Factor from one bucket to the next."""

    per_bucket: float
    interval: Interval


class TrendChange(Answer):
    """A shift of the level: first bucket after it, mean events on either side."""

    at: str
    before: float
    after: float
    ratio: float
    interval: Interval
    p: Share


class TrendSeries(Answer):
    """A category's buckets, or everything's (null); no shape where a bucket is hidden."""

    category: str | None
    points: list[TrendPoint]
    growth: TrendGrowth | None
    change_points: list[TrendChange] | None


class Trends(Analysis):
    """Demand by category."""

    type: str
    grain: Grains
    false_alarms: Share
    series: list[TrendSeries]


class DriftMonth(Answer):
    """How far profiles moved since the month before, 0 to 1."""

    start: str
    users: Count | None
    mean: Share | None
    interval: Interval | None
    quartiles: list[float] | None


class DriftInterest(Answer):
    """An interest's mean share in the profiles of the first and the last month."""

    category: str
    users_before: Count | None
    users_after: Count | None
    share_before: Share
    share_after: Share
    change: float
    interval: Interval


class Drift(Analysis):
    """How the population's interests move."""

    period: Period
    users: Count | None
    compared: Count
    months: list[DriftMonth]
    rising: list[DriftInterest]
    falling: list[DriftInterest]


class RetentionCell(Answer):
    """Those of a cohort who came back, so many buckets later."""

    age: Count
    users: Count | None
    share: Share | None
    interval: Interval | None


class RetentionCohort(Answer):
    """Those whose first event is in one bucket."""

    start: str
    began_before: bool
    users: Count | None
    cells: list[RetentionCell]


class RetentionAge(RetentionCell):
    """All shown cells of one age."""

    cohorts: Count
    of: Count | None


class Retention(Analysis):
    """Who comes back."""

    type: str
    grain: Grains
    cohorts: list[RetentionCohort]
    curve: list[RetentionAge]


class FunnelRate(Answer):
    """A share of users."""

    share: Share
    interval: Interval


class FunnelStep(Answer):
    """Who reached a step, and how long they took at the median."""

    type: str
    users: Count | None
    of_first: FunnelRate | None
    of_previous: FunnelRate | None
    median_hours: float | None


class Funnel(Analysis):
    """How many users went through ordered steps."""

    period: Period
    within_hours: float
    steps: list[FunnelStep]


class RfmCell(Answer):
    """Buyers of one cell; two of the three figures are named, by their fifths."""

    recency: NotRequired[Fifth | None]
    frequency: NotRequired[Fifth | None]
    monetary: NotRequired[Fifth | None]
    segment: RfmSegment | None
    users: Count | None
    share: Share | None
    interval: Interval | None
    mean_spend: float | None
    median_recency_days: float | None


class Rfm(Analysis):
    """The grid; totals are null where every cell is hidden."""

    days: Count
    rows: Figures
    columns: Figures
    cells: list[RfmCell]
    row_totals: list[Count | None]
    column_totals: list[Count | None]


class HabitCell(Answer):
    """One hour of one weekday, 0 Monday."""

    weekday: Annotated[int, Field(ge=0, le=6)]
    hour: Annotated[int, Field(ge=0, le=23)]
    users: Count | None
    events: Count | None
    share: Share | None
    interval: Interval | None


class Habits(Analysis):
    """When users act."""

    type: str
    period: Period
    cells: list[HabitCell]
    weekday_totals: list[Count | None]
    hour_totals: list[Count | None]


class AffinityPair(Answer):
    """Two categories and how often one basket holds both."""

    a: str
    b: str
    baskets: Count
    users_at_least: Count
    share_of_a: Share
    share_of_b: Share
    lift: float
    interval: Interval


class Affinities(Analysis):
    """What lies in one basket."""

    period: Period
    baskets: Count | None
    compared: Count
    pairs: list[AffinityPair]


_HEAD: Final = {
    "as_of": EXAMPLE_TIME, "k": 20, "suppressed": 0,
    "data": {"events": 149558, "newest_event": EXAMPLE_TIME},
}  # fmt: skip
_PERIOD: Final = {"from": "2017-01-01", "to": "2018-01-01"}
_RATE: Final = {"share": 0.2406, "interval": [0.22, 0.2626]}
_CELL: Final = {"age": 1, "users": 128, "share": 0.6882, "interval": [0.6184, 0.7504]}

TRENDS: Final[dict[int | str, Any]] = {200: describe_answer(Trends, "Demand by category", {
    **_HEAD, "type": "purchase", "grain": "week", "false_alarms": 0.05, "series": [{
        "category": "Grocery",
        "points": [{"start": "2017-01-02", "users": 1297, "users_interval": [1227.4, 1369.6],
                    "events": 2696, "amount": 86457.99}],
        "growth": {"per_bucket": 1.0012, "interval": [1.0004, 1.002]},
        "change_points": [{"at": "2017-11-13", "before": 2650.1, "after": 2790.4, "ratio": 1.0529,
                           "interval": [1.02, 1.087], "p": 0.0012}]}]})}  # fmt: skip
DRIFT: Final[dict[int | str, Any]] = {200: describe_answer(Drift, "How interests move", {
    **_HEAD, "period": _PERIOD, "users": 1969, "compared": 136,
    "months": [{"start": "2017-03-01", "users": 2143, "mean": 0.2322, "interval": [0.225, 0.2394],
                "quartiles": [0.116, 0.2096, 0.3121]}],
    "rising": [{"category": "Grocery/Tea", "users_before": 120, "users_after": 260,
                "share_before": 0.004, "share_after": 0.009, "change": 0.005,
                "interval": [0.002, 0.008]}],
    "falling": []})}  # fmt: skip
RETENTION: Final[dict[int | str, Any]] = {200: describe_answer(Retention, "Who comes back", {
    **_HEAD, "type": "purchase", "grain": "month",
    "cohorts": [{"start": "2017-02-01", "began_before": False, "users": 186, "cells": [_CELL]}],
    "curve": [{**_CELL, "cohorts": 1, "of": 186}]})}  # fmt: skip
FUNNEL: Final[dict[int | str, Any]] = {200: describe_answer(Funnel, "Who went how far", {
    **_HEAD, "period": _PERIOD, "within_hours": 720,
    "steps": [{"type": "message_sent", "users": 1546, "of_first": None, "of_previous": None,
               "median_hours": None},
              {"type": "coupon_redeemed", "users": 372, "of_first": _RATE, "of_previous": _RATE,
               "median_hours": 186.49}]})}  # fmt: skip
RFM: Final[dict[int | str, Any]] = {200: describe_answer(Rfm, "The grid", {
    **_HEAD, "days": 91, "rows": "recency", "columns": "frequency",
    "cells": [{"recency": 1, "frequency": 1, "segment": "hibernating", "users": 365,
               "share": 0.148, "interval": [0.1345, 0.1625], "mean_spend": 35.24,
               "median_recency_days": 73}],
    "row_totals": [493, 494, 493, 494, 493],
    "column_totals": [None, 494, 493, 494, 493]})}  # fmt: skip
HABITS: Final[dict[int | str, Any]] = {200: describe_answer(Habits, "Hour by weekday", {
    **_HEAD, "type": "purchase", "period": _PERIOD,
    "cells": [{"weekday": 0, "hour": 17, "users": 761, "events": 1373, "share": 0.00975,
               "interval": [0.009, 0.01049]}],
    "weekday_totals": [1373, None, None, None, None, None, None],
    "hour_totals": [None] * 17 + [1373] + [None] * 6})}  # fmt: skip
AFFINITIES: Final[dict[int | str, Any]] = {200: describe_answer(
    Affinities, "What lies in one basket", {
    **_HEAD, "period": _PERIOD, "baskets": 129191, "compared": 3158,
    "pairs": [{"a": "Grocery/Dry Noodles & Pasta", "b": "Grocery/Pasta Sauce", "baskets": 3182,
               "users_at_least": 268, "share_of_a": 0.4482, "share_of_b": 0.5462, "lift": 9.94,
               "interval": [8.494, 11.631]}]})}  # fmt: skip
