"""Sound events: what analyses and feature tables read of the archive, whatever stands in it.

A record that today's rules would refuse may lie in an older archive. It must stop no answer and
be silently nobody's: what is odd in it is left out, the rest counts, and it is counted itself.
Belongs here: which values are odd, in SQL. What the columns mean is `archive.event_table`'s.
"""

from collections.abc import Mapping
from typing import Any, Final

from feature_repo.events import time_zones
from feature_repo.events.fields import EARLIEST_MS, LATEST_MS, MAX_AMOUNT, MAX_QUANTITY, MAX_VALUE


def _line(check: str) -> str:
    """Return whether ``check`` holds of any line ``i``, as SQL."""
    return f"coalesce(len(list_filter(items, lambda i: {check})) > 0, false)"


def _beyond(name: str, most: float) -> str:
    # NaN is greater than any number in DuckDB.
    return f"coalesce({name} < 0 OR {name} > {most!r}, false)"


def _object(name: str) -> str:
    return f"CASE WHEN json_valid({name}) THEN json_type({name}) = 'OBJECT' ELSE false END"


_ODD_LINE: Final = (
    "i IS NULL OR i.item_id IS NULL OR i.quantity IS NULL "
    f"OR {_beyond('i.quantity', MAX_QUANTITY)} OR {_beyond('i.price', MAX_AMOUNT)} "
    f"OR {_beyond('i.discount', MAX_AMOUNT)}"
)
_ODD: Final = {
    "tz": "tz IS NOT NULL AND tz NOT IN (SELECT name FROM known_zones)",
    "time": f"time IS NULL OR epoch_ms(time) NOT BETWEEN {EARLIEST_MS} AND {LATEST_MS}",
    "user": '"user" IS NULL OR type IS NULL OR event_id IS NULL',
    "value": _beyond("value", MAX_VALUE),
    "items": _line(_ODD_LINE),
    "consent": f"consent IS NOT NULL AND NOT ({_object('consent')})",
    "properties": f"properties IS NOT NULL AND NOT ({_object('properties')})",
}
"""What is odd in which column of a row."""
COLUMNS: Final = tuple(_ODD)


def _select_within(name: str, most: float) -> str:
    return f"{name} := CASE WHEN NOT {_beyond(f'i.{name}', most)} THEN i.{name} END"


_COPIED: Final = ("category", "brand", "currency", "variant", "position")
_SOUND_LINE: Final = (
    "struct_pack(item_id := i.item_id, quantity := CASE WHEN i.quantity IS NULL OR "
    f"{_beyond('i.quantity', MAX_QUANTITY)} THEN 0 ELSE i.quantity END, "
    f"{_select_within('price', MAX_AMOUNT)}, "
    + ", ".join(f"{name} := i.{name}" for name in _COPIED)
    + f", {_select_within('discount', MAX_AMOUNT)}, coupon := i.coupon)"
)


def select_sound(source: str) -> str:
    """Return the SELECT of the events of ``source`` (a FROM clause) that every reader can take.

    A row without user, type or a time that there can be is left out; an unknown zone, an amount
    that is none and what is no JSON are NULL. Needs `prepare`.
    """
    return f"""
SELECT * REPLACE (
    CASE WHEN tz IN (SELECT name FROM known_zones) THEN tz END AS tz,
    CASE WHEN NOT {_ODD["value"]} THEN value WHEN value < 0 AND type <> 'refund' THEN 0
        WHEN value < 0 THEN -greatest(value, -{MAX_VALUE!r}) END AS value,
    CASE WHEN {_ODD["items"]} THEN list_transform(
        list_filter(items, lambda i: i IS NOT NULL AND i.item_id IS NOT NULL),
        lambda i: {_SOUND_LINE}) ELSE items END AS items,
    CASE WHEN {_object("consent")} THEN consent END AS consent,
    CASE WHEN {_object("properties")} THEN properties END AS properties
) FROM {source} WHERE NOT ({_ODD["time"]}) AND NOT ({_ODD["user"]})
"""  # noqa: S608 - built from constants


def prepare(connection: Any) -> None:
    """Make the table of zones that `select_sound` and `count_odd` read."""
    names = sorted(time_zones.list_known())
    connection.execute("CREATE TABLE known_zones AS SELECT unnest(?) AS name", [names])


def count_odd(connection: Any, source: str) -> dict[str, int]:
    """Return how many rows of ``source`` are odd in which column; only those that are."""
    counts = ", ".join(f"count(*) FILTER ({odd})" for odd in _ODD.values())
    row = connection.execute(f"SELECT {counts} FROM {source}").fetchone()  # noqa: S608
    return {name: int(n) for name, n in zip(_ODD, row, strict=True) if n}


def describe_odd(odd: Mapping[str, int]) -> str:
    """Return counts of odd rows as words.

    Examples
    --------
    >>> describe_odd({"tz": 2, "time": 1})
    'tz of 2 rows, time of 1 rows'
    """
    return ", ".join(f"{column} of {rows:,} rows" for column, rows in odd.items())
