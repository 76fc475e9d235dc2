"""The bench `analytics`: how soon each analysis is answered.

The history is that of `audiences`: Complete Journey's, each household ten times under other
names, 1.5 million events. Belongs here: the questions and the measuring.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from feature_repo.analytics.affinities import affinities
from feature_repo.analytics.calendar import DAY_MS
from feature_repo.analytics.cube import Cube, Moment
from feature_repo.analytics.drift import drift
from feature_repo.analytics.funnel import funnel
from feature_repo.analytics.habits import habits
from feature_repo.analytics.retention import retention
from feature_repo.analytics.rfm import rfm
from feature_repo.analytics.trends import trends
from feature_repo.audiences.index import Index
from services.lab.bench.audiences import history, multiply, share

ROUNDS: Final = 30
WARM_UP: Final = 2
_TOUR: Final = ("message_sent", "coupon_redeemed", "purchase")

Tell = Callable[[int, int, str], None]
Ask = Callable[[Moment], dict[str, Any]]

QUESTIONS: Final[dict[str, tuple[Ask, ...]]] = {
    "trends": (
        lambda m: trends(m, grain="week", event_type="purchase", level=1, category=None, most=10,
                         buckets=52),
        lambda m: trends(m, grain="month", event_type="purchase", level=2, category=None, most=50,
                         buckets=52),
    ),
    "drift": (lambda m: drift(m, months=12, most=10),),
    "retention": (
        lambda m: retention(m, grain="month", event_type="purchase", periods=12),
        lambda m: retention(m, grain="week", event_type="purchase", periods=52),
    ),
    "funnel": (
        lambda m: funnel(m, steps=_TOUR, within_ms=30 * DAY_MS, days=365),
        lambda m: funnel(m, steps=("purchase",) * 3, within_ms=7 * DAY_MS, days=91),
    ),
    "rfm": (
        lambda m: rfm(m, rows="recency", columns="frequency"),
        lambda m: rfm(m, rows="frequency", columns="monetary"),
    ),
    "habits": (
        lambda m: habits(m, event_type="purchase", days=365),
        lambda m: habits(m, event_type="purchase", days=28),
    ),
    "affinities": (lambda m: affinities(m, months=12, most=20),),
}  # fmt: skip
"""By route; the larger questions of each are among them. Half of the rounds ask of the past."""


def measure_analytics(*, data: Path | None, tell: Tell) -> dict[str, Any]:
    """Return the figures; what is made for it lies in a temporary folder and goes with it.

    Parameters
    ----------
    data
        State folder with an archive, only read; default: Complete Journey is imported.
    """
    with tempfile.TemporaryDirectory(prefix="portrait-bench-") as folder:
        home, many = history(data, Path(folder), tell), Path(folder) / "many"
        multiply(home, many, tell)
        tell(0, 0, "the index and the cube")
        with Index(many) as index:
            cube = Cube(index)
            times = {name: _times(cube, asks, tell, name) for name, asks in QUESTIONS.items()}
            return {
                "analytics_ms": {name: _spread(clock) for name, (clock, _) in times.items()},
                "analytics_cpu_ms": {name: _spread(cpu) for name, (_, cpu) in times.items()},
                "events": index.num_events,
                "users": index.num_users,
                "answers": sum(len(clock) for clock, _ in times.values()),
                "index_s": round(index.built_s, 1),
                "cube_s": round(cube.built_s, 1),
            }


def _spread(values_ms: Sequence[float]) -> dict[str, float]:
    return {f"p{at}": share(values_ms, at) for at in (50, 95)} | {"max": max(values_ms)}


def _times(
    cube: Cube, asks: Sequence[Ask], tell: Tell, name: str
) -> tuple[list[float], list[float]]:
    """Return what each answer took: by the clock, and of both cores' time, milliseconds.

    The second is what to look at on a machine with other work.
    """
    moments = [cube.moment(cube.index.newest_ms - back * DAY_MS) for back in (0, 100)]
    for ask in asks[:WARM_UP]:
        ask(moments[0])
    clock, cpu = list[float](), list[float]()
    for number in range(ROUNDS):
        tell(number, ROUNDS, name)
        for ask in asks:
            started_s, cpu_s = time.perf_counter(), time.process_time()
            ask(moments[number % 2])
            clock.append(round((time.perf_counter() - started_s) * 1000, 3))
            cpu.append(round((time.process_time() - cpu_s) * 1000, 3))
    return clock, cpu
