"""SQL of long-term interests: categories and brands by decayed distinct baskets.

The weight of key k for user u at snapshot s counts each basket once (an order told again is the
same basket; what it adds counts from then on), halves it every 112 days, and is shrunk to the
key's popularity::

    n(u,k) = Σ_b 2^(−(s − day_b)/112) over u's baskets with k,   N(u) the same over all of u's
    p(k)   = Σ_u n(u,k) / Σ_u N(u)
    w(u,k) = (n(u,k) + κ·p(k)) / (N(u) + κ)

Only keys the user has bought are listed: no interest without evidence. The statements read
the temporary tables that `feature_repo.features.snapshots` stages.
"""

from typing import Final

from feature_repo.events.types import LONG_HALF_LIFE_DAYS
from feature_repo.features.catalogue import INTERESTS

SHRINKAGE_BASKETS: Final = 5.0
"""κ: as many baskets of the average user are mixed into everyone's own."""


def stage(last: int) -> str:
    """Return the statements that make ``baskets_to`` and ``interests``.

    Parameters
    ----------
    last
        Newest snapshot day; decays are kept relative to it so that no power overflows.
    """
    weight = f"pow(2.0, (day - {last}) / {LONG_HALF_LIFE_DAYS}.0)"
    return f"""
CREATE TEMP TABLE baskets_to AS
SELECT "user", week, added, sum(added) OVER (PARTITION BY "user" ORDER BY week) AS n
FROM (
    SELECT "user", week, sum({weight}) AS added
    FROM (
        SELECT "user", basket, min(day) AS day, min(week) AS week FROM lines
        WHERE type = 'purchase' GROUP BY ALL
    )
    GROUP BY ALL
);
CREATE TEMP TABLE interests (
    "user" VARCHAR, snap INTEGER, kind VARCHAR, best STRUCT(w DOUBLE, k VARCHAR)[]
);
{_best_of("category", weight, last)}
{_best_of("brand", weight, last)}
"""  # noqa: S608 - built from names and whole numbers


def _best_of(column: str, weight: str, last: int) -> str:
    # A running sum holds from its week until the next one: unnest makes a row of each Monday
    # between (an inequality join takes a hundred times as long).
    mondays = f"unnest(range(week, least(next_week, {last} + 1), 7)) AS snap"
    return f"""
INSERT INTO interests
WITH kept AS (
    SELECT "user", basket, {column} AS key, min(day) AS day, min(week) AS week FROM lines
    WHERE type = 'purchase' AND {column} IS NOT NULL GROUP BY ALL
),
own AS (
    SELECT "user", key, {mondays}, n FROM (
        SELECT "user", key, week::BIGINT AS week, sum(added) OVER same AS n,
            lead(week, 1, 1000000) OVER same AS next_week
        FROM (SELECT "user", key, week, sum({weight}) AS added FROM kept GROUP BY ALL)
        WINDOW same AS (PARTITION BY "user", key ORDER BY week)
    )
),
everyone AS (
    SELECT snap, sum(n) OVER (ORDER BY snap) AS n FROM (
        SELECT snap, coalesce(sum(added), 0) AS n
        FROM weeks LEFT JOIN baskets_to ON week = snap GROUP BY ALL
    )
),
key_totals AS (
    SELECT key, {mondays}, n FROM (
        SELECT key, week::BIGINT AS week, sum(added) OVER same AS n,
            lead(week, 1, 1000000) OVER same AS next_week
        FROM (SELECT key, week, sum({weight}) AS added FROM kept GROUP BY ALL)
        WINDOW same AS (PARTITION BY key ORDER BY week)
    )
),
popular AS (
    SELECT key, snap, {SHRINKAGE_BASKETS} * scale * t.n / e.n AS prior
    FROM key_totals t JOIN everyone e USING (snap) JOIN weeks USING (snap)
)
-- rounded, so that keys of equal weight stay equal whatever the order of summing
SELECT "user", snap, '{column}', max({{'w': round(n + prior, 10), 'k': key}}, {INTERESTS})
FROM own JOIN popular USING (key, snap)
GROUP BY ALL;
"""  # noqa: S608 - built from names and whole numbers


def weights(column: str) -> str:
    """Return the expression of one kind's weights from ``best``, ``baskets`` and ``scale``."""
    whole = f"(baskets + {SHRINKAGE_BASKETS} * scale)"
    return f"list_transform({column}_best, lambda b: b.w / {whole})"
