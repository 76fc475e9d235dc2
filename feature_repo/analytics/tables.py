"""SQL of the tables that analyses are answered from, out of those of `audiences.tables`.

Everything is counted by user and bucket here once, so that a question reads little. Belongs here:
statements. What runs them is `cube`'s.
"""

from collections.abc import Iterator
from typing import Final, get_args

from feature_repo.analytics.calendar import SQL, Grain

GRAINS: Final[tuple[Grain, ...]] = get_args(Grain)

_DEMAND: Final = """
SELECT '{grain}' AS grain, bucket, shelf, type, count(*) AS users, sum(num)::BIGINT AS events,
    sum(lines_m)::BIGINT AS lines_m
FROM (
    SELECT {bucket} AS bucket, shelf, type, u, count(*) AS num, sum(lines_m)::BIGINT AS lines_m
    FROM ({source}) GROUP BY ALL
) GROUP BY ALL
"""

_ACTIVITY: Final = """
SELECT '{grain}' AS grain, type, u, bucket,
    (min(bucket) OVER (PARTITION BY type, u))::INTEGER AS cohort
FROM (SELECT DISTINCT type, u, {bucket} AS bucket FROM events)
"""


def make() -> Iterator[str]:
    """Yield the statements that make the tables, in their order.

    ``demand`` holds every shelf's users, events and money in each bucket, shelf 0 all of them;
    ``activity`` the buckets in which a user did something, and the first of them; ``slots`` hour
    and weekday of each event where it happened; ``steps`` the order of a user's events; ``starts``
    when each type was first seen.
    """
    sources = (
        "SELECT shelf, u, type, time_ms, lines_m FROM shelf_events",
        "SELECT 0 AS shelf, u, type, time_ms, lines_m FROM events",
    )
    demand = [
        _DEMAND.format(grain=grain, bucket=SQL[grain], source=source)
        for grain in GRAINS
        for source in sources
    ]
    yield f"CREATE TABLE demand AS {' UNION ALL '.join(demand)} ORDER BY grain, type, bucket, shelf"
    activity = [_ACTIVITY.format(grain=grain, bucket=SQL[grain]) for grain in GRAINS]
    yield f"CREATE TABLE activity AS {' UNION ALL '.join(activity)} ORDER BY grain, type, bucket"
    yield from (_SLOTS, _STEPS, _STARTS)


_SLOTS: Final = """
CREATE TABLE slots AS
SELECT type, u, time_ms, (24 * (isodow(there) - 1) + hour(there))::SMALLINT AS slot
FROM (
    SELECT type, u, epoch_ms(time) AS time_ms, timezone(coalesce(tz, 'UTC'), time) AS there
    FROM archive_events JOIN users ON entity = "user"
) ORDER BY type, time_ms
"""

_STEPS: Final = """
CREATE TABLE steps AS SELECT u, time_ms, type FROM events ORDER BY u, time_ms
"""

_STARTS: Final = """
CREATE TABLE starts AS SELECT type, min(time_ms) AS first_ms FROM events GROUP BY type
"""
