"""SQL of the tables that analyses are answered from, out of those of `audiences.tables`.

Everything is counted by user and bucket here once, so that a question reads little. Belongs here:
statements. What runs them is `cube`'s.
"""

from collections.abc import Iterator
from typing import Final, get_args

from feature_repo.analytics.buckets import DAY_MS, SQL, Grain

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
    when each type was first seen; ``taste`` the interests of the last profile of each month, as
    shares; ``moves`` how far a user's moved since the month before.
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
    yield from (_SLOTS, _STEPS, _STARTS, _TASTE, _MOVES)


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

_TASTE: Final = f"""
CREATE TABLE taste AS
SELECT month, u, category, weight / sum(weight) OVER (PARTITION BY month, u) AS share
FROM (
    SELECT month, u, unnest(interest_categories) AS category,
        unnest(interest_category_weights) AS weight
    FROM (
        SELECT u, {SQL["month"]} AS month, interest_categories, interest_category_weights
        FROM (
            SELECT u, epoch_ms(event_timestamp) - {DAY_MS} AS time_ms, created,
                interest_categories, interest_category_weights
            FROM feature_rows_profile JOIN users ON entity = "user"
        )
        QUALIFY row_number() OVER (
            PARTITION BY u, {SQL["month"]} ORDER BY time_ms DESC, created DESC) = 1
    )
) WHERE weight > 0 ORDER BY month, u
"""
"""A profile of a midnight holds what was before it: it belongs to the month of the day before."""

_MOVES: Final = """
CREATE TABLE moves AS
SELECT month, u, sum(abs(change)) / 2 AS moved
FROM (
    SELECT month, u, category, sum(share) AS change
    FROM (
        SELECT month, u, category, share FROM taste
        UNION ALL SELECT month + 1, u, category, -share FROM taste
    ) GROUP BY ALL
)
WHERE (month, u) IN (SELECT (month, u) FROM taste)
    AND (month - 1, u) IN (SELECT (month, u) FROM taste)
GROUP BY ALL ORDER BY month
"""
