"""Coarse figures of behaviour analysis: what a key of scope ``analyst`` is told.

Counts are rounded to `services.audiences.coarse.STEP`; shares of people, with their intervals, are
made of the rounded counts; every other measure has two digits. So answers that differ by one
person are mostly the same, and where they are not, they differ by a step. Belongs here: rounding.
What is hidden from everybody is `feature_repo.analytics.suppression`'s.
"""

from typing import Any, Final

from feature_repo.analytics.intervals import share
from services.audiences.coarse import STEP

_COUNTS: Final = frozenset({
    "users", "users_before", "users_after", "users_at_least", "of", "events", "baskets",
    "row_totals", "column_totals", "weekday_totals", "hour_totals", "before", "after",
    "users_interval",
})  # fmt: skip
_MEASURES: Final = frozenset({
    "share", "interval", "mean", "quartiles", "share_before", "share_after", "change",
    "share_of_a", "share_of_b", "lift", "amount", "per_bucket", "ratio", "mean_spend",
    "median_recency_days", "median_hours",
})  # fmt: skip


def blur_figures(found: dict[str, Any]) -> dict[str, Any]:
    """Return an analysis with coarse figures; what it rests on (``data``) is left as it is.

    Examples
    --------
    >>> blur_figures({"points": [{"users": 86, "events": 112, "amount": 1234.56}]})
    {'points': [{'users': 85, 'events': 110, 'amount': 1200.0}]}
    """
    coarse: dict[str, Any] = _blur({name: of for name, of in found.items() if name != "data"})
    first = before = None
    for step in coarse.get("steps", ()):
        _set_rate(step["of_first"], step["users"], first)
        _set_rate(step["of_previous"], step["users"], before)
        first, before = step["users"] if first is None else first, step["users"]
    for cohort in coarse.get("cohorts", ()):
        for cell in cohort["cells"]:
            _set_rate(cell, cell["users"], cohort["users"])
    for cell in coarse.get("curve", ()):
        _set_rate(cell, cell["users"], cell["of"])
    if "row_totals" in coarse:  # shares of all buyers
        for cell, exact in zip(coarse["cells"], found["cells"], strict=True):
            whole = _step(exact["users"] / exact["share"]) if exact["share"] else None
            _set_rate(cell, cell["users"], whole)
    return {**coarse, "data": found["data"]} if "data" in found else coarse


def _blur(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _blur(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_blur(each, name) for each in value]
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    if name in _COUNTS:
        return _step(value)
    return float(f"{value:.2g}") if name in _MEASURES else value


def _step(count: float) -> int:
    return STEP * round(count / STEP)


def _set_rate(rate: dict[str, Any] | None, part: int | None, whole: int | None) -> None:
    if rate is None or part is None or not whole or rate["share"] is None:
        return
    low, high = share(min(part, whole), whole)
    rate["share"] = round(min(part, whole) / whole, 4)
    rate["interval"] = [round(float(low), 4), round(float(high), 4)]
