"""SQL of long-term interests: categories and brands by decayed distinct baskets.

The weight of key k for user u at snapshot s counts each basket once, halves it every 112
days, and is shrunk to the key's popularity::

    n(u,k) = Σ_b 2^(−(s − day_b)/112) over u's baskets with k,   N(u) the same over all of u's
    p(k)   = Σ_u n(u,k) / Σ_u N(u)
    w(u,k) = (n(u,k) + κ·p(k)) / (N(u) + κ)

Only keys the user has bought are listed: no interest without evidence. The statements read
the temporary tables that `feature_repo.snapshots` stages.
"""

from typing import Final

from feature_repo.features import INTEREST_HALF_LIFE_DAYS, INTERESTS

SHRINKAGE_BASKETS: Final = 5.0
"""κ: as many baskets of the average shopper are mixed into everyone's own."""


def stage(last: int) -> str:
    """Return the statements that make ``baskets_to`` and ``interests``.

    Parameters
    ----------
    last
        Newest snapshot day; decays are kept relative to it so that no power overflows.
    """
    weight = f"pow(2.0, (day - {last}) / {INTEREST_HALF_LIFE_DAYS}.0)"
    return f"""
CREATE TEMP TABLE baskets_to AS
SELECT "user", week, sum(added) OVER (PARTITION BY "user" ORDER BY week) AS n
FROM (
    SELECT "user", week, sum({weight}) AS added
    FROM (SELECT DISTINCT "user", event, day, week FROM lines WHERE type = 'purchase')
    GROUP BY ALL
);
CREATE TEMP TABLE interests ("user" VARCHAR, snap INTEGER, kind VARCHAR, best STRUCT(w DOUBLE, k VARCHAR)[]);
{_one_kind("category", weight)}
{_one_kind("brand", weight)}
"""  # noqa: S608 - built from names and whole numbers


def _one_kind(column: str, weight: str) -> str:
    return f"""
INSERT INTO interests
WITH kept AS (
    SELECT DISTINCT "user", event, day, week, {column} AS key FROM lines
    WHERE type = 'purchase' AND {column} IS NOT NULL
),
own AS (
    SELECT "user", key, week, sum(added) OVER same AS n,
        lead(week, 1, 1000000) OVER same AS next_week
    FROM (SELECT "user", key, week, sum({weight}) AS added FROM kept GROUP BY ALL)
    WINDOW same AS (PARTITION BY "user", key ORDER BY week)
),
everyone AS (
    SELECT snap, sum(n) AS n
    FROM weeks JOIN (
        SELECT "user", week, n, lead(week, 1, 1000000) OVER (PARTITION BY "user" ORDER BY week) AS next_week
        FROM baskets_to
    ) ON snap >= week AND snap < next_week
    GROUP BY ALL
),
key_totals AS (
    SELECT key, week, sum(added) OVER (PARTITION BY key ORDER BY week) AS n,
        lead(week, 1, 1000000) OVER (PARTITION BY key ORDER BY week) AS next_week
    FROM (SELECT key, week, sum({weight}) AS added FROM kept GROUP BY ALL)
),
popular AS (
    SELECT key, snap, t.n / e.n AS p
    FROM weeks JOIN key_totals t ON snap >= week AND snap < next_week JOIN everyone e USING (snap)
)
SELECT "user", snap, '{column}',
    max({{'w': n + {SHRINKAGE_BASKETS} * p * scale, 'k': key}}, {INTERESTS})
FROM weeks JOIN own ON snap >= week AND snap < next_week JOIN popular USING (key, snap)
GROUP BY ALL;
"""  # noqa: S608 - built from names and whole numbers


def weights(kind: str) -> str:
    """Return the expression of one kind's weights from ``best``, ``baskets`` and ``scale``."""
    whole = f"(baskets + {SHRINKAGE_BASKETS} * scale)"
    return f"list_transform({kind}_best, lambda b: b.w / {whole})"
