"""Routes of behaviour analysis; what is answered is `feature_repo.analytics`'."""

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import Query, Request
from starlette.responses import Response

from feature_repo.analytics import affinities as pairs
from feature_repo.analytics import drift as drifting
from feature_repo.analytics import funnel as steps_of
from feature_repo.analytics import habits as hours
from feature_repo.analytics import retention as cohorts
from feature_repo.analytics import rfm as fifths
from feature_repo.analytics import trends as demand
from feature_repo.analytics.calendar import Grain
from feature_repo.analytics.cube import Moment
from feature_repo.audiences.values import duration_ms
from feature_repo.errors import InvalidQuestionError
from services.analytics import schemas as said
from services.analytics.coarse_figures import blur_figures
from services.analytics.cube import AnalyticsCube
from services.audiences.coarse import DAY_MS, blur_data, is_coarse, midnight
from services.audiences.requests import moment_of
from services.context.answers import answer, context_of
from services.http import scopes
from services.http.problems import ProblemError
from services.runtime import workers

router = scopes.router("analyst", "analytics", "/v1/analytics")

TYPE_PATTERN: Final = r"^[a-z][a-z0-9_]{0,63}$"
MOST_DAYS: Final = 3660

AsOf = Annotated[
    str | None, Query(max_length=40, description="A day or an RFC 3339 time; else now")
]
EventType = Annotated[str, Query(alias="type", pattern=TYPE_PATTERN, description="Type of event")]
Category = Annotated[
    str | None, Query(max_length=256, description="Only this one, of the first two levels")
]
Days = Annotated[int, Query(ge=1, le=MOST_DAYS, description="The last so many days")]
Months = Annotated[int, Query(ge=1, le=120, description="The last so many whole months")]
Most = Annotated[int, Query(ge=1, le=50, description="At most so many")]


@router.get("/trends", responses=said.TRENDS)
async def get_trends(
    request: Request,
    kind: EventType = "purchase",
    grain: Grain = "week",
    level: Annotated[int, Query(ge=1, le=2, description="1: departments, 2: below them")] = 1,
    category: Category = None,
    most: Most = 10,
    buckets: Annotated[int, Query(ge=1, le=520, description="The last whole ones")] = 52,
    as_of: AsOf = None,
) -> Response:
    """Return demand by category and whole week or month, how it grows and when it shifted."""
    return await _answer(
        request, as_of, lambda moment: demand.trends(
            moment, grain=grain, event_type=kind, level=level, category=category, most=most,
            buckets=buckets,
        )
    )  # fmt: skip


@router.get("/drift", responses=said.DRIFT)
async def get_drift(
    request: Request, months: Months = 12, most: Most = 10, as_of: AsOf = None
) -> Response:
    """Return how far profiles move from month to month, and which interests rise and fall."""
    return await _answer(
        request, as_of, lambda moment: drifting.drift(moment, months=months, most=most)
    )


@router.get("/retention", responses=said.RETENTION)
async def get_retention(
    request: Request,
    kind: EventType = "purchase",
    grain: Grain = "month",
    periods: Annotated[int, Query(ge=1, le=104, description="The last whole cohorts")] = 12,
    as_of: AsOf = None,
) -> Response:
    """Return how many of each cohort came back, by weeks or months since it began."""
    return await _answer(
        request, as_of,
        lambda moment: cohorts.retention(moment, grain=grain, event_type=kind, periods=periods),
    )  # fmt: skip


@router.get("/funnel", responses=said.FUNNEL)
async def get_funnel(
    request: Request,
    steps: Annotated[
        str, Query(max_length=600, description="2 to 8 types of events in order, comma-separated")
    ] = "view_item,add_to_cart,purchase",
    within: Annotated[
        str, Query(max_length=10, description="From first step to last: 30m, 12h, 7d or 4w")
    ] = "7d",
    days: Days = 365,
    as_of: AsOf = None,
) -> Response:
    """Return how many users reached each of some ordered steps within a time."""
    chosen = steps_of.parse(steps)
    try:
        within_ms = duration_ms(within)
    except ValueError as error:
        raise InvalidQuestionError("within", str(error)) from None
    if is_coarse(request.state.caller) and within_ms % DAY_MS:
        detail = f"{within} is no whole number of days: that needs a key of scope server"
        raise ProblemError("forbidden", detail, pointer="/query/within")
    return await _answer(
        request, as_of,
        lambda moment: steps_of.funnel(moment, steps=chosen, within_ms=within_ms, days=days),
    )  # fmt: skip


@router.get("/rfm", responses=said.RFM)
async def get_rfm(
    request: Request,
    rows: Annotated[fifths.Figure, Query(description="Fifths of the rows")] = "recency",
    columns: Annotated[fifths.Figure, Query(description="Fifths of the columns")] = "frequency",
    as_of: AsOf = None,
) -> Response:
    """Return the grid of buyers by fifths of two of recency, frequency and money."""
    if rows == columns:
        raise InvalidQuestionError("columns", f"rows are {rows} already: name another figure")
    return await _answer(
        request, as_of, lambda moment: fifths.rfm(moment, rows=rows, columns=columns)
    )


@router.get("/habits", responses=said.HABITS)
async def get_habits(
    request: Request, kind: EventType = "purchase", days: Days = 365, as_of: AsOf = None
) -> Response:
    """Return events by weekday and hour, where the user is."""
    return await _answer(
        request, as_of, lambda moment: hours.habits(moment, event_type=kind, days=days)
    )


@router.get("/affinities", responses=said.AFFINITIES)
async def get_affinities(
    request: Request, months: Months = 12, most: Most = 20, category: Category = None,
    as_of: AsOf = None,
) -> Response:  # fmt: skip
    """Return the categories that lie in one basket more often than chance."""
    return await _answer(
        request, as_of,
        lambda moment: pairs.affinities(moment, months=months, most=most, category=category),
    )  # fmt: skip


async def _answer(
    request: Request, as_of: str | None, ask: Callable[[Moment], dict[str, Any]]
) -> Response:
    context = context_of(request)
    now_ms = moment_of(context, as_of)
    coarse = is_coarse(request.state.caller)
    if coarse:
        now_ms = midnight(now_ms, context.clock.now_ms())
    cube = await context.of(AnalyticsCube).present()
    found = await workers.ASKING.run(ask, cube.moment(now_ms))
    if not coarse:
        return answer(found)
    told = await workers.ASKING.run(blur_figures, found)
    return answer({**told, "data": blur_data(found["data"])})
