"""Single values in a rule: durations, moments, bounds, lists of texts.

Belongs here: values that stand alone. What a node made of them means is `rules`'.
"""

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from feature_repo.events.fields import LongText, parse_time

MAX_TEXTS: Final = 1000
MAX_DURATION_MS: Final = 3660 * 86_400_000
_UNITS_MS: Final = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION: Final = re.compile(r"([1-9]\d{0,8})([mhdw])")

Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e15, le=1e15)]


def duration_ms(text: str) -> int:
    """Return a duration such as ``30m``, ``12h``, ``28d`` or ``4w`` in milliseconds.

    Raises
    ------
    ValueError
        If ``text`` is none, or longer than ten years.

    Examples
    --------
    >>> duration_ms("2d")
    172800000
    """
    match = _DURATION.fullmatch(text)
    length_ms = int(match[1]) * _UNITS_MS[match[2]] if match else 0
    if not 0 < length_ms <= MAX_DURATION_MS:
        raise ValueError(
            f"{text[:40]!r} is not a duration: use a whole number of m, h, d or w, such as 28d, "
            "up to ten years"
        )
    return length_ms


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        duration_ms(value)
    return value


def moment_ms(value: Any) -> int:
    """Return a day (its UTC midnight) or an RFC 3339 time with offset as epoch milliseconds.

    Examples
    --------
    >>> moment_ms("1970-01-02")
    86400000
    """
    if isinstance(value, str) and len(value) == 10:
        try:
            day = date.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a day such as 2026-01-31") from None
        return parse_time(datetime(day.year, day.month, day.day, tzinfo=UTC))
    if not isinstance(value, str):
        raise ValueError("a moment is a day (2026-01-31) or RFC 3339 with offset")  # noqa: TRY004
    return parse_time(value)


def _moment(value: Any) -> Any:
    moment_ms(value)
    return value


def _to_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Duration = Annotated[
    str, BeforeValidator(_duration), Field(description="30m, 12h, 28d or 4w", max_length=10)
]
Moment = Annotated[
    str,
    BeforeValidator(_moment),
    Field(description="A day, as its UTC midnight, or RFC 3339 with offset", max_length=40),
]
Texts = Annotated[
    list[LongText],
    BeforeValidator(_to_list, json_schema_input_type=LongText | list[LongText]),
    Field(min_length=1, max_length=MAX_TEXTS, description="One text, or any of several"),
]


class Node(BaseModel):
    """Base of everything in a rule: unknown keys are errors, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Bounds(Node):
    """Where a number must lie; all that are given hold at once."""

    gte: Finite | None = None
    gt: Finite | None = None
    lte: Finite | None = None
    lt: Finite | None = None
    eq: Finite | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if all(value is None for value in (self.gte, self.gt, self.lte, self.lt, self.eq)):
            raise ValueError("a bound is missing: give gte, gt, lte, lt or eq")
        return self

    def to_signs(self) -> list[tuple[str, float]]:
        """Return the given bounds as SQL comparison signs and numbers."""
        signs = ((">=", self.gte), (">", self.gt), ("<=", self.lte), ("<", self.lt), ("=", self.eq))
        return [(sign, value) for sign, value in signs if value is not None]

    def hold(self, value: float | None) -> bool:
        """Say whether a number lies within; an unknown one never does.

        Examples
        --------
        >>> Bounds(gte=2, lt=3).hold(2), Bounds(gte=2).hold(None)
        (True, False)
        """
        return value is not None and all(
            _HOLDS[sign](value, bound) for sign, bound in self.to_signs()
        )


_HOLDS: Final = {
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    "<": lambda a, b: a < b,
    "=": lambda a, b: a == b,
}
