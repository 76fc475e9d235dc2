"""Time zones: the names that every reader of an event reads alike, and what stands in for others.

An event's hour is read by Python where profiles are folded and by DuckDB where tables are made,
each with a list of zones of its own. Only a name that both know is taken; one that stands in an
older event, or comes from another machine, counts as UTC everywhere.
"""

from datetime import UTC, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

_MACHINES_OWN: Final = frozenset({"localtime", "posixrules", "Factory"})
"""Names that mean another thing on each machine, or nothing."""


@lru_cache(maxsize=1)
def list_known() -> frozenset[str]:
    """Return the names that Python and DuckDB both know. The first call takes 0.1 s."""
    import duckdb

    with duckdb.connect() as connection:
        rows = connection.execute("SELECT name FROM pg_timezone_names()").fetchall()
    return frozenset(available_timezones() & {str(row[0]) for row in rows}) - _MACHINES_OWN


@lru_cache(maxsize=1024)
def zone(name: str) -> tzinfo:
    """Return a zone by its name; UTC where not every reader knows it.

    Examples
    --------
    >>> zone("localtime"), zone("Asia/Tokyo")
    (datetime.timezone.utc, zoneinfo.ZoneInfo(key='Asia/Tokyo'))
    """
    if name not in list_known():
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):  # a broken file of this machine
        return UTC
