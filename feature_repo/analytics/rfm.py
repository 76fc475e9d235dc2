"""The RFM grid: buyers by fifths of recency, frequency and money.

Belongs here: the answer. Fifths are those of the profile view (`features.sql.profile`):
equal values share the lower one, 5 is best.
"""

from typing import Any, Final, Literal

import numpy as np

from feature_repo.analytics.calendar import DAY_MS
from feature_repo.analytics.cube import Moment
from feature_repo.analytics.intervals import share
from feature_repo.analytics.suppression import few, grid
from feature_repo.profile_views.metrics import rfm_segment

Figure = Literal["recency", "frequency", "monetary"]

DAYS: Final = 91
FIFTHS: Final = 5

_CELLS: Final = """
WITH buyers AS (
    SELECT u, max(day) FILTER (orders > 0) AS recency,
        coalesce(sum(orders) FILTER (day >= $day - $days), 0)::BIGINT AS frequency,
        coalesce(sum(spend_m) FILTER (day >= $day - $days), 0)::BIGINT AS monetary
    FROM order_days WHERE day < $day GROUP BY u HAVING sum(orders) > 0
),
ranked AS (
    SELECT *,
        1 + (5 * (rank() OVER (ORDER BY recency) - 1)) // count(*) OVER () AS f_recency,
        1 + (5 * (rank() OVER (ORDER BY frequency) - 1)) // count(*) OVER () AS f_frequency,
        1 + (5 * (rank() OVER (ORDER BY monetary) - 1)) // count(*) OVER () AS f_monetary
    FROM buyers
)
SELECT {row}, {column}, count(*), sum(monetary)::BIGINT / 1000 / count(*),
    median($day - recency)
FROM ranked GROUP BY ALL
"""


def rfm(moment: Moment, *, rows: Figure, columns: Figure) -> dict[str, Any]:
    """Return how many buyers are in each cell of two figures, and their mean spend in 91 days.

    As of the midnight (UTC) at or before the moment; days before it count.
    """
    day = moment.until_ms // DAY_MS
    sql = _CELLS.replace("{row}", f"f_{rows}").replace("{column}", f"f_{columns}")
    found = moment.cube.index.rows(sql, {"day": day, "days": DAYS})
    users = np.zeros((FIFTHS, FIFTHS), dtype=np.int64)
    spend, recency = np.zeros(users.shape), np.zeros(users.shape)
    for row, column, count, mean, middle in found:
        cell = int(row) - 1, int(column) - 1
        users[cell], spend[cell], recency[cell] = count, mean, middle
    masked = grid(users, few(users))
    per_row, per_column = masked.totals(users)
    counted = int(per_row.sum())
    named = rows == "recency" and columns == "frequency"
    cells = [
        {
            rows: row + 1,
            columns: column + 1,
            "segment": rfm_segment(row + 1, column + 1) if named else None,
            **_figures(
                masked.hidden[row, column], users[row, column], counted, spend[row, column],
                recency[row, column],
            ),
        }
        for row in range(FIFTHS)
        for column in range(FIFTHS)
    ]  # fmt: skip
    return {
        **moment.head(int(masked.hidden.sum())),
        "days": DAYS,
        "rows": rows,
        "columns": columns,
        "cells": cells,
        "row_totals": [int(n) if n else None for n in per_row],
        "column_totals": [int(n) if n else None for n in per_column],
    }


def _figures(hidden: Any, users: Any, of: Any, spend: float, recency: float) -> dict[str, Any]:
    if hidden:
        return {"users": None, "share": None, "interval": None, "mean_spend": None,
                "median_recency_days": None}  # fmt: skip
    low, high = share(users, of)
    return {
        "users": int(users),
        "share": round(int(users) / int(of), 4),
        "interval": [round(float(low), 4), round(float(high), 4)],
        "mean_spend": round(float(spend), 2),
        "median_recency_days": float(recency),
    }
