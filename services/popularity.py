"""What sells lately: a sorted set of items, each touch counting half after four weeks.

Belongs here: the one number an item has without any model or user. It is a statistic, kept
beside the log's commit, not inside it: a crash may lose or repeat the last few counts.

Scores use forward decay (Cormode et al., 2009): a touch at time t adds ``a · 2^((t − L)/H)``
with a fixed landmark L, so nothing ever has to be decayed in place.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import duckdb

from feature_repo.archive import Archive
from feature_repo.events import EventRecord

KEY: Final = "portrait:popular"
HALF_LIFE_MS: Final = 28 * 86_400_000
_LANDMARK_MS: Final = 1_577_836_800_000  # 2020-01-01
AMOUNTS: Final = {"purchase": 1.0, "add_to_cart": 0.3, "view_item": 0.05, "select_item": 0.05}


def amounts(events: Iterable[EventRecord]) -> dict[str, float]:
    """Return what each item gains by ``events``."""
    gained: dict[str, float] = defaultdict(float)
    for event in events:
        amount = AMOUNTS.get(event.type)
        if amount is not None:
            weight = amount * math.exp2((event.time_ms - _LANDMARK_MS) / HALF_LIFE_MS)
            for item in {item.item_id for item in event.items}:
                gained[item] += weight
    return gained


def add(client: Any, events: Iterable[EventRecord]) -> None:
    """Count ``events`` into the store's set."""
    gained = amounts(events)
    if not gained:
        return
    with client.pipeline(transaction=False) as pipe:
        for item, amount in gained.items():
            pipe.zincrby(KEY, amount, item)
        pipe.execute()


def seed(client: Any, archive: Archive) -> int:
    """Fill the set from the archive in one step and return the number of items."""
    scores = from_archive(archive)
    if scores:
        with client.pipeline(transaction=True) as pipe:
            pipe.delete(KEY)
            items = list(scores.items())
            for start in range(0, len(items), 5000):
                pipe.zadd(KEY, dict(items[start : start + 5000]))
            pipe.execute()
    return len(scores)


def from_archive(archive: Archive) -> dict[str, float]:
    """Return every item's score by the archive's events."""
    if archive.empty():
        return {}
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2")
        rows = connection.execute(
            """
            SELECT item_id, sum(amount) FROM (
                SELECT DISTINCT event_id, "user", unnest(items).item_id AS item_id,
                    CASE type WHEN 'purchase' THEN 1.0 WHEN 'add_to_cart' THEN 0.3 ELSE 0.05 END
                    * pow(2.0, (epoch_ms(time) - ?) / ?) AS amount
                FROM read_parquet(?) WHERE type IN ('purchase', 'add_to_cart', 'view_item',
                    'select_item'))
            GROUP BY ALL""",
            [_LANDMARK_MS, float(HALF_LIFE_MS), archive.glob()],
        ).fetchall()
    return {str(item): float(score) for item, score in rows}
