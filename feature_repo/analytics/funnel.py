"""Funnels: how many users did one thing, then another, then a third, within a time.

Belongs here: the answer; how steps are followed is `steps`'. The order is that of the events'
times: two events of one moment follow each other in neither order.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from feature_repo.analytics.calendar import DAY_MS
from feature_repo.analytics.cube import Moment
from feature_repo.analytics.intervals import share
from feature_repo.analytics.suppression import chain
from feature_repo.errors import InvalidQuestionError
from feature_repo.events.schema import iso

LEAST_STEPS: Final = 2
MOST_STEPS: Final = 8
HOUR_MS: Final = 3_600_000
_TYPE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


def parse(text: str) -> list[str]:
    """Return the steps that a comma-separated list names.

    Raises
    ------
    InvalidQuestionError
        If they are fewer than two or more than eight, or one is no type of event.

    Examples
    --------
    >>> parse("view_item, purchase")
    ['view_item', 'purchase']
    """
    steps = [step.strip() for step in text.split(",")]
    if not LEAST_STEPS <= len(steps) <= MOST_STEPS:
        raise InvalidQuestionError(
            "steps", f"{len(steps)} steps: name {LEAST_STEPS} to {MOST_STEPS}, comma-separated"
        )
    for step in steps:
        if not _TYPE.fullmatch(step):
            raise InvalidQuestionError("steps", f"{step[:64]!r} is not a type of event")
    return steps


def funnel(moment: Moment, *, steps: Sequence[str], within_ms: int, days: int) -> dict[str, Any]:
    """Return how many users reached each step; a type may stand among the steps more than once.

    Reached is step i by who has events of the types of steps 1 to i, each later than the one
    before, the last at most ``within_ms`` after the first, which is of the last ``days``.
    """
    from_ms = moment.until_ms - days * DAY_MS
    order, until_ms = moment.cube.steps, moment.until_ms
    reached = [order.first(steps[0], from_ms, until_ms)]
    for event_type in steps[1:]:
        reached.append(order.then(reached[-1], event_type, within_ms, until_ms))
    took_ms = [each.least_ms() for each in reached]
    counts = np.array([len(each) for each in took_ms])
    hidden = chain(counts)
    shown, first, before = list[dict[str, Any]](), None, None
    for event_type, count, masked, took in zip(steps, counts, hidden, took_ms, strict=True):
        users = None if masked else int(count)
        middle = None if masked or not shown else round(float(np.median(took)) / HOUR_MS, 2)
        shown.append({
            "type": event_type, "users": users, "of_first": _rate(users, first),
            "of_previous": _rate(users, before), "median_hours": middle,
        })  # fmt: skip
        first, before = users if len(shown) == 1 else first, users
    return {
        **moment.head(int(hidden.sum())),
        "period": {"from": iso(max(0, from_ms)), "to": iso(moment.at_ms)},
        "within_hours": round(within_ms / HOUR_MS, 4),
        "steps": shown,
    }


def _rate(part: int | None, whole: int | None) -> dict[str, Any] | None:
    if part is None or whole is None:
        return None
    low, high = share(part, whole)
    return {
        "share": round(part / whole, 4),
        "interval": [round(float(low), 4), round(float(high), 4)],
    }
