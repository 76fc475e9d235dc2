"""Funnels: how many users did one thing, then another, then a third, within a time.

Belongs here: following the steps. The order is that of the events' times; two events of one moment
follow each other in neither order.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_repo.analytics.buckets import DAY_MS
from feature_repo.analytics.cube import Moment
from feature_repo.analytics.intervals import share
from feature_repo.analytics.suppression import chain
from feature_repo.errors import InvalidQuestionError
from feature_repo.events import iso

LEAST_STEPS: Final = 2
MOST_STEPS: Final = 8
HOUR_MS: Final = 3_600_000
_NEVER: Final = -1
_TYPE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")

Ints = npt.NDArray[np.int64]


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
    """Return how many users reached each step.

    Reached is step i by who has events of the types of steps 1 to i, each later than the one
    before, the last at most ``within_ms`` after the first, which is of the last ``days``.

    Parameters
    ----------
    steps
        Types of events, at least two; one may stand more than once.
    """
    from_ms = moment.until_ms - days * DAY_MS
    took_ms = follow(moment, steps, within_ms, from_ms)
    counts = np.array([len(each) for each in took_ms])
    hidden = chain(counts)
    shown, first, before = list[dict[str, Any]](), None, None
    for kind, count, masked, took in zip(steps, counts, hidden, took_ms, strict=True):
        users = None if masked else int(count)
        middle = None if masked or not shown else round(float(np.median(took)) / HOUR_MS, 2)
        shown.append({
            "type": kind, "users": users, "of_first": _rate(users, first),
            "of_previous": _rate(users, before), "median_hours": middle,
        })  # fmt: skip
        first, before = users if len(shown) == 1 else first, users
    return {
        **moment.head(int(hidden.sum())),
        "period": {"from": iso(max(0, from_ms)), "to": iso(moment.at_ms)},
        "within_hours": round(within_ms / HOUR_MS, 4),
        "steps": shown,
    }


def follow(moment: Moment, steps: Sequence[str], within_ms: int, from_ms: int) -> list[Ints]:
    """Return, of each step, the least milliseconds that each user who reached it took.

    Keeps for every event the latest start from which the steps before lead up to it: the
    running maximum, user by user, of those of earlier events of the step before. Of all
    chains that end in an event it is the shortest, so that it alone need fit the time.
    """
    columns, types = moment.cube.steps(), moment.cube.types
    codes = [types.index(kind) + 1 if kind in types else 0 for kind in steps]
    time_ms, code = columns["time_ms"], columns["code"]
    chosen = (time_ms >= from_ms) & (time_ms < moment.until_ms)
    if len(set(codes)) < len(types):
        chosen &= np.isin(code, codes)
    begun = np.zeros(moment.cube.index.num_users, dtype=bool)
    begun[columns["u"][chosen & (code == codes[0])]] = True
    chosen &= begun[columns["u"]]
    u, time_ms, code = columns["u"][chosen].astype(np.int64), time_ms[chosen], code[chosen]
    begin = _begins(u, time_ms)
    found, starts = list[Ints](), np.where(code == codes[0], time_ms, _NEVER)
    for number, wanted in enumerate(codes):
        if number:
            starts = np.where(code == wanted, _latest(u, starts, begin), _NEVER)
            starts[time_ms - starts > within_ms] = _NEVER
        reached = np.flatnonzero(starts != _NEVER)
        found.append(_least(u[reached], (time_ms - starts)[reached]))
    return found


def _begins(u: Ints, time_ms: Ints) -> Ints:
    """Return, for each event, the place of the first of the same user and moment."""
    new = np.ones(len(u), dtype=bool)
    new[1:] = (u[1:] != u[:-1]) | (time_ms[1:] != time_ms[:-1])
    return np.maximum.accumulate(np.where(new, np.arange(len(u)), 0))


def _least(u: Ints, took_ms: Ints) -> Ints:
    """Return the least of each user, in their order."""
    if not len(u):
        return took_ms
    return np.minimum.reduceat(took_ms, np.flatnonzero(np.r_[True, u[1:] != u[:-1]]))


def _latest(u: Ints, starts: Ints, begin: Ints) -> Ints:
    """Return, for each event, the latest start of the same user's events of earlier moments."""
    marked = starts != _NEVER
    if not marked.any():
        return np.full(len(u), _NEVER, dtype=np.int64)
    low = int(starts[marked].min())
    own = u * (int(starts.max()) - low + 2)
    best = np.maximum.accumulate(np.where(marked, own + (starts - low + 1), own))
    earlier = np.where(begin > 0, best[begin - 1], 0) - own
    return np.where(earlier > 0, earlier + low - 1, _NEVER)


def _rate(part: int | None, whole: int | None) -> dict[str, Any] | None:
    if part is None or whole is None:
        return None
    low, high = share(part, whole)
    return {
        "share": round(part / whole, 4),
        "interval": [round(float(low), 4), round(float(high), 4)],
    }
