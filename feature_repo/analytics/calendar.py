"""Weeks and months, UTC: numbered without gaps, so that series and ages are differences.

A week begins on Monday. Belongs here: between milliseconds, numbers and names of them, in Python
and in SQL.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

Grain = Literal["week", "month"]

DAY_MS: Final = 86_400_000
_EPOCH: Final = date(1970, 1, 1)

SQL: Final[dict[Grain, str]] = {
    "week": f"((time_ms // {DAY_MS} + 3) // 7)::INTEGER",
    "month": (
        "(12 * year(make_timestamp(time_ms * 1000)) "
        "+ month(make_timestamp(time_ms * 1000)) - 1)::INTEGER"
    ),
}
"""The number of the bucket that holds ``time_ms``."""


def first_day(grain: Grain, bucket: int) -> date:
    """Return the day on which a bucket begins.

    Examples
    --------
    >>> first_day("week", bucket_of("week", 1_483_315_200_000)).isoformat()
    '2017-01-02'
    >>> first_day("month", bucket_of("month", 1_483_315_200_000)).isoformat()
    '2017-01-01'
    """
    if grain == "week":
        return _EPOCH + timedelta(days=7 * bucket - 3)
    return date(bucket // 12, bucket % 12 + 1, 1)


def start_ms(grain: Grain, bucket: int) -> int:
    """Return when a bucket begins, epoch milliseconds."""
    return (first_day(grain, bucket) - _EPOCH).days * DAY_MS


def bucket_of(grain: Grain, time_ms: int) -> int:
    """Return the number of the bucket that holds a moment."""
    if grain == "week":
        return (time_ms // DAY_MS + 3) // 7
    day = datetime.fromtimestamp(time_ms / 1000, UTC)
    return 12 * day.year + day.month - 1


def name(grain: Grain, bucket: int) -> str:
    """Return a bucket's first day, as in answers."""
    return first_day(grain, bucket).isoformat()
