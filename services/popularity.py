"""What sells lately and what is trending: two sorted sets of items, their touches fading.

A touch counts half after four weeks in the one and after one in the other. Belongs here: the
numbers an item has without any model or user. They are statistics, kept beside the log's
commit, not inside it: a crash may lose or repeat the last few counts.

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
TREND_KEY: Final = "portrait:trending"
HALF_LIFE_MS: Final = 28 * 86_400_000
TREND_HALF_LIFE_MS: Final = 7 * 86_400_000
"""Shorter ones would leave a double's range: 2^1023 is reached 1,023 half-lives after L."""
SETS: Final = {KEY: HALF_LIFE_MS, TREND_KEY: TREND_HALF_LIFE_MS}
_LANDMARK_MS: Final = 1_577_836_800_000  # 2020-01-01
AMOUNTS: Final = {"purchase": 1.0, "add_to_cart": 0.3, "view_item": 0.05, "select_item": 0.05}


def amounts(events: Iterable[EventRecord], half_life_ms: int = HALF_LIFE_MS) -> dict[str, float]:
    """Return what each item gains by ``events`` in the set of this half-life."""
    gained: dict[str, float] = defaultdict(float)
    for event in events:
        amount = AMOUNTS.get(event.type)
        if amount is not None:
            weight = amount * math.exp2((event.time_ms - _LANDMARK_MS) / half_life_ms)
            for item in {item.item_id for item in event.items}:
                gained[item] += weight
    return gained


def fading(now_ms: int) -> float:
    """Return what a score of `KEY` is to be multiplied by to count touches as of ``now_ms``.

    Examples
    --------
    >>> fading(_LANDMARK_MS + 2 * HALF_LIFE_MS)
    0.25
    """
    return math.exp2(max(-1000.0, (_LANDMARK_MS - now_ms) / HALF_LIFE_MS))


def seed(client: Any, archive: Archive) -> int:
    """Fill each set from the archive in one step and return the number of items."""
    count = 0
    for key, half_life_ms in SETS.items():
        scores = from_archive(archive, half_life_ms)
        count = len(scores)
        if not scores:
            continue
        with client.pipeline(transaction=True) as pipe:
            pipe.delete(key)
            items = list(scores.items())
            for start in range(0, len(items), 5000):
                pipe.zadd(key, dict(items[start : start + 5000]))
            pipe.execute()
    return count


def from_archive(archive: Archive, half_life_ms: int = HALF_LIFE_MS) -> dict[str, float]:
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
            [_LANDMARK_MS, float(half_life_ms), archive.glob()],
        ).fetchall()
    return {str(item): float(score) for item, score in rows}
