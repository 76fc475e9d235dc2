"""Popularity and trend: two sorted sets of items, their users fading.

An item counts its users, not their touches: each as much as the strongest thing they did
with it, a purchase 1, a cart 0.3, a look 0.05, as of the day on which they last did it. Half
after four weeks in the one set and after one in the other, so that nobody counts for more than
one buyer, however often they come. Belongs here: the numbers an item has without any model or
user. They are statistics, kept beside the log's commit, not inside it: a crash may lose or
repeat the last few counts.

Scores use forward decay (Cormode et al., 2009): a user's day d counts ``a · 2^((d − L)/H)``
with a fixed landmark L, so nothing ever has to be decayed in place. What a user adds is the
difference to what they count already, and for that the store remembers the days by the hash
of user and item: `CELLS` to a partition. Pairs that share a cell count as one of them on a day;
where there are many more pairs than cells, the sets count a sample of them.
"""

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import numpy as np

from feature_repo.archive import valid_events
from feature_repo.archive.event_archive import Archive
from feature_repo.events.schema import EventRecord
from feature_repo.events.types import (
    POPULARITY_LEVELS,
    POPULARITY_STEPS,
    RECENT_HALF_LIFE_DAYS,
    SHORT_HALF_LIFE_DAYS,
)

KEY: Final = "portrait:popular:shoppers"
TREND_KEY: Final = "portrait:trending:shoppers"
EVENT_KEYS: Final = ("portrait:popular", "portrait:trending")
"""Sets of an earlier version, which counted events; removed when new ones are filled."""
HALF_LIFE_MS: Final = RECENT_HALF_LIFE_DAYS * 86_400_000
TREND_HALF_LIFE_MS: Final = SHORT_HALF_LIFE_DAYS * 86_400_000
"""Shorter ones would leave a double's range: 2^1023 is reached 1,023 half-lives after L."""
SETS: Final = {KEY: HALF_LIFE_MS, TREND_KEY: TREND_HALF_LIFE_MS}
MAX_ITEMS: Final = 200_000
"""Of a set; beyond them those that count least go."""
CELLS: Final = 1 << 16
"""Six bytes each: the last day of each level, two bytes each, the high one first; 0: never."""
_LANDMARK_MS: Final = 1_577_836_800_000  # 2020-01-01
_DAY_MS: Final = 86_400_000
_MAX_DAY: Final = 0xFFFF

Touch = tuple[str, str, int]
"""Pseudonym of the user, item id, level."""


@dataclass(frozen=True)
class ArchiveCounts:
    """What an archive says.

    Attributes
    ----------
    scores
        For each of `SETS` the items' scores.
    cells
        For each partition the days of its cells.
    """

    scores: dict[str, dict[str, float]]
    cells: dict[int, bytes]


def cells_key(partition: int) -> bytes:
    """Return the string of a partition's cells."""
    return b"{p%03d}touched" % partition


def cell(user: str, item: str) -> int:
    """Return the cell of a user and an item; the archive's SQL makes the same."""
    digest = hashlib.md5(f"{user}{item}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little") % CELLS


def note(touches: dict[Touch, int], events: Iterable[EventRecord]) -> None:
    """Add to ``touches``, the last day of each, what ``events`` say."""
    for event in events:
        level = POPULARITY_LEVELS.get(event.type)
        if level is not None:
            day = max(1, min(_MAX_DAY, event.time_ms // _DAY_MS))
            for item in event.items:
                touch = (event.user, item.item_id, level)
                touches[touch] = max(day, touches.get(touch, 0))


def gains(days: tuple[int, ...], level: int, day: int) -> Iterator[tuple[str, float]]:
    """Yield what a touch on a day adds to an item in each of `SETS`; nothing where it is 0.

    Parameters
    ----------
    days
        The last day of each level before.

    Examples
    --------
    >>> L = _LANDMARK_MS // _DAY_MS
    >>> [round(gain, 9) for _, gain in gains((0, 0, 0), 0, L)]  # a look
    [0.05, 0.05]
    >>> [round(gain, 9) for _, gain in gains((L, 0, 0), 2, L)]  # and a purchase
    [0.95, 0.95]
    >>> list(gains((L, L, L), 2, L))  # and another
    []
    """
    for key, half_life_ms in SETS.items():
        gained = 0.0
        for step, before in zip(POPULARITY_STEPS[: level + 1], days, strict=False):
            if day > before:
                counted = _weight(before, half_life_ms) if before else 0.0
                gained += step * (_weight(day, half_life_ms) - counted)
        if gained:
            yield key, gained


def _weight(day: int, half_life_ms: int) -> float:
    return math.exp2(min(1000.0, (day * _DAY_MS - _LANDMARK_MS) / half_life_ms))


def fading(now_ms: int) -> float:
    """Return what a score of `KEY` is to be multiplied by to count users as of ``now_ms``.

    Examples
    --------
    >>> fading(_LANDMARK_MS + 2 * HALF_LIFE_MS)
    0.25
    """
    today_ms = now_ms // _DAY_MS * _DAY_MS
    return math.exp2(max(-1000.0, (_LANDMARK_MS - today_ms) / HALF_LIFE_MS))


def seed(client: Any, archive: Archive, without: Collection[str] = ()) -> int:
    """Fill sets and cells from the archive, each in one step, and return the number of items.

    Parameters
    ----------
    without
        Pseudonyms of users who are not counted.
    """
    counted = from_archive(archive, without)
    # The cells first: a start that is killed here fills both again.
    for partition, cells in counted.cells.items():
        client.set(cells_key(partition), cells)
    for key, scores in counted.scores.items():
        if not scores:
            continue
        with client.pipeline(transaction=True) as pipe:
            pipe.delete(key)
            items = list(scores.items())
            for start in range(0, len(items), 5000):
                pipe.zadd(key, dict(items[start : start + 5000]))
            pipe.execute()
    for key in EVENT_KEYS:
        client.delete(key)
    return len(counted.scores[KEY])


def from_archive(archive: Archive, without: Collection[str] = ()) -> ArchiveCounts:
    """Return every item's scores, and the days of the cells, by the archive's events.

    Events of the users ``without`` are left out.

    They are what counting the events one by one gives, where they come in the order of their
    days or no two pairs share a cell.
    """
    if archive.empty():
        return ArchiveCounts({key: {} for key in SETS}, {})
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2")
        valid_events.prepare(connection)
        connection.execute(_TOUCHES, [_MAX_DAY, _DAY_MS, CELLS, archive.glob(), [*without]])
        scores = {key: _scores(connection, half_life_ms) for key, half_life_ms in SETS.items()}
        return ArchiveCounts(scores, _cells(connection))


_TOUCHES: Final = f"""
CREATE TEMP TABLE touched AS
WITH touch AS (
    SELECT "user", unnest(items).item_id AS item, epoch_ms(time) AS at_ms,
        greatest(1, least(?, at_ms // ?)) AS day,
        MAP {POPULARITY_LEVELS}[type] AS level,
        left("user", 6) AS tag, (md5_number_lower("user" || item) % ?)::INTEGER AS cell
    FROM ({valid_events.select_sound("read_parquet(?)")})
    WHERE type IN {(*POPULARITY_LEVELS,)} AND "user" NOT IN (SELECT unnest(?::VARCHAR[]))
), daily AS (
    SELECT tag, cell, step, day, arg_min(item, at_ms) AS item
    FROM touch, range(3) AS steps(step) WHERE level >= step GROUP BY ALL
)
SELECT *, lag(day) OVER (PARTITION BY tag, cell, step ORDER BY day) AS before FROM daily
"""  # noqa: S608 - `sound` is built from constants
"""Days on which a step was counted in a cell, for which item, and the day before it."""


def _scores(connection: duckdb.DuckDBPyConnection, half_life_ms: int) -> dict[str, float]:
    rows = connection.execute(
        """
        WITH added AS (
            SELECT item, list_extract($steps, step + 1) AS amount,
                pow(2.0, least(1000.0, (day * $day_ms - $landmark) / $half)) AS now,
                CASE WHEN before IS NULL THEN 0 ELSE
                    pow(2.0, least(1000.0, (before * $day_ms - $landmark) / $half)) END AS counted
            FROM touched)
        SELECT item, sum(amount * (now - counted)) FROM added GROUP BY item""",
        {
            "steps": list(POPULARITY_STEPS), "day_ms": _DAY_MS, "landmark": _LANDMARK_MS,
            "half": float(half_life_ms),
        },
    ).fetchall()  # fmt: skip
    return {str(item): float(score) for item, score in rows}


def _cells(connection: duckdb.DuckDBPyConnection) -> dict[int, bytes]:
    found = dict[int, bytes]()
    query = "SELECT cell, step, max(day)::INTEGER AS day FROM touched WHERE tag = ? GROUP BY ALL"
    for (tag,) in connection.execute("SELECT DISTINCT tag FROM touched").fetchall():
        columns: Mapping[str, Any] = connection.execute(query, [tag]).fetchnumpy()
        cells = np.zeros((CELLS, len(POPULARITY_STEPS)), ">u2")
        cells[columns["cell"], columns["step"]] = columns["day"]
        found[int(tag[2:5])] = cells.tobytes()
    return found
