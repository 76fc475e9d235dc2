"""SQL of the item view: what an item is, how much it sells and how often again.

A row stands at each Monday on which something about the item changes. The statement reads
the temporary tables that `feature_repo.features.snapshots` stages.
"""

from feature_repo.features.catalogue import WINDOWS_DAYS


def rows(first: int, last: int) -> str:
    """Return the SELECT of the item rows with snapshot day in ``first..last``."""
    changes = ["SELECT item_id, week AS snap, 0 AS buyers FROM seen"]
    for days in WINDOWS_DAYS:
        changes += [
            f"SELECT item_id, week AS snap, baskets AS pop_{days} FROM sold",  # noqa: S608
            f"SELECT item_id, week + {days} AS snap, -baskets AS pop_{days} FROM sold",  # noqa: S608
        ]
    changes += [
        "SELECT item_id, week AS snap, 1 AS buyers FROM bought WHERE nth = 1",
        "SELECT item_id, week AS snap, 1 AS repeaters FROM bought WHERE nth = 2",
    ]
    counts = (*(f"pop_{days}" for days in WINDOWS_DAYS), "buyers", "repeaters")
    return f"""
WITH seen AS (
    SELECT item_id, week,
        arg_max(stated, (time, event, stated)) FILTER (stated IS NOT NULL) AS category,
        arg_max(brand, (time, event, brand)) FILTER (brand IS NOT NULL) AS brand,
        arg_max(price, (time, event, price)) FILTER (price IS NOT NULL) AS price
    FROM lines GROUP BY ALL
),
bought AS (  -- once an order, when it first told of the item
    SELECT item_id, week,
        row_number() OVER (PARTITION BY item_id, "user" ORDER BY time, basket) AS nth
    FROM (
        SELECT item_id, "user", basket, min(time) AS time, min(week) AS week FROM lines
        WHERE type = 'purchase' GROUP BY ALL
    )
),
sold AS (
    SELECT item_id, week, count(*) AS baskets FROM bought GROUP BY ALL
),
changes AS ({" UNION ALL BY NAME ".join(changes)}),
merged AS (
    SELECT item_id, snap, {", ".join(f"coalesce(sum({c}), 0) AS {c}" for c in counts)}
    FROM changes WHERE snap <= {last} GROUP BY ALL
),
running AS (
    SELECT m.item_id, snap, {", ".join(f"(sum({c}) OVER upto)::BIGINT AS {c}" for c in counts)},
        {
        ", ".join(
            f"last_value(s.{c} IGNORE NULLS) OVER upto AS {c}"
            for c in ("category", "brand", "price")
        )
    }
    FROM merged m LEFT JOIN seen s ON s.item_id = m.item_id AND s.week = snap
    WINDOW upto AS (PARTITION BY m.item_id ORDER BY snap)
)
SELECT r.item_id, snap,
    coalesce(r.category, c.category) AS category, coalesce(r.brand, c.brand) AS brand, r.price,
    {", ".join(f"pop_{days} AS popularity_{days}d" for days in WINDOWS_DAYS)},
    buyers AS num_buyers_total, repeaters / nullif(buyers, 0)::DOUBLE AS repurchase_rate
FROM running r LEFT JOIN catalogue c USING (item_id)
WHERE snap >= {first}
"""  # noqa: S608 - built from names and whole numbers
