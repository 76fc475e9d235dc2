"""Fields of an event or an item: their types, times, and the free object.

Belongs here: rules that one value keeps by itself. What a whole event needs is for
`feature_repo.events.schema` to say.
"""

import math
from datetime import datetime
from typing import Annotated, Any, Final

import orjson
from pydantic import AfterValidator, Field, StringConstraints

from feature_repo.events import time_zones
from feature_repo.events.placeholder_ids import check_user_id

MAX_ID: Final = 128
"""Characters of an id."""
MAX_VALUE: Final = 1e12
"""Of an order."""
MAX_AMOUNT: Final = 1e9
"""Of a line's price and discount."""
MAX_QUANTITY: Final = 1e6
SET_ASIDE: Final = "portrait_set_aside"
"""Member of an event's properties that holds amounts in a currency without a rate."""
MAX_SET_ASIDE_BYTES: Final = 24 * 1024
"""Enough for what 200 lines can state."""
MAX_PROPERTIES_BYTES: Final = 8 * 1024
MAX_PROPERTIES_DEPTH: Final = 4

_TIME_FORMS: Final = "time must be RFC 3339 with an offset, or epoch seconds or milliseconds"
EARLIEST_MS: Final = 0
LATEST_MS: Final = 4_102_444_800_000  # 2100-01-01
_MILLIS_FROM: Final = 1e11  # smaller numbers are seconds
_HUGE: Final = 10**300  # whole numbers from here on are not turned into floats

Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID)]
UserId = Annotated[Id, AfterValidator(check_user_id)]
Text = Annotated[str, StringConstraints(max_length=256)]
LongText = Annotated[str, StringConstraints(max_length=2048)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
AnyCaseCurrency = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{3}$")]
"""As senders write it; `feature_repo.archive.currency` puts it in capitals."""
Category = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Value = Annotated[float, Field(allow_inf_nan=False, ge=0, le=MAX_VALUE)]
Amount = Annotated[float, Field(allow_inf_nan=False, ge=0, le=MAX_AMOUNT)]
Quantity = Annotated[float, Field(allow_inf_nan=False, gt=0, le=MAX_QUANTITY)]


def parse_time(value: Any) -> int:
    """Return epoch milliseconds from RFC 3339 with offset, epoch seconds or epoch milliseconds."""
    if isinstance(value, bool):
        raise ValueError(_TIME_FORMS)  # noqa: TRY004 - Pydantic reports a ValueError
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("time has no offset: add Z or +hh:mm")
        millis = value.timestamp() * 1000
    elif isinstance(value, int | float):
        if not abs(value) < _HUGE:  # nan, too
            raise ValueError("time must be finite")
        millis = float(value) if abs(value) >= _MILLIS_FROM else float(value) * 1000
    elif isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value.removesuffix("z") + "Z" * value.endswith("z"))
        except ValueError:
            raise ValueError(
                f"{value[:40]!r} is not a time: use RFC 3339 such as 2026-01-31T12:00:00Z"
            ) from None
        return parse_time(parsed)
    else:
        raise ValueError(_TIME_FORMS)  # noqa: TRY004 - Pydantic reports a ValueError
    if not EARLIEST_MS <= millis <= LATEST_MS:
        for unit, per_milli in (("microseconds", 1e3), ("nanoseconds", 1e6)):
            if _MILLIS_FROM <= millis / per_milli <= LATEST_MS:
                raise ValueError(f"time looks like {unit}: send seconds or milliseconds")
        raise ValueError("time must lie between 1970-01-01 and 2100-01-01")
    return round(millis)


def check_tz(value: str) -> str:
    """Return the name of a time zone as it came; refuse one that not every reader knows."""
    if value not in time_zones.list_known():
        raise ValueError(f"{value[:64]!r} is not an IANA time zone such as Europe/Berlin")
    return value


def check_properties(value: dict[str, Any]) -> dict[str, Any]:
    """Return a free object as it is kept; refuse one over 8 KB or nested deeper than 4.

    What Portrait put there itself, `SET_ASIDE`, does not count: events are taken again as exported.
    Whole numbers beyond 64 bits are kept as floats, as JSON readers in other languages do.

    Raises
    ------
    ValueError
        With the bound that was broken, or for a number that is not finite.
    """
    kept: dict[str, Any] = _keep(value, MAX_PROPERTIES_DEPTH)
    own = {name: each for name, each in kept.items() if name != SET_ASIDE}
    for what, told, most in (
        ("properties take", own, MAX_PROPERTIES_BYTES),
        (f"{SET_ASIDE} takes", kept.get(SET_ASIDE), MAX_SET_ASIDE_BYTES),
    ):
        size = len(orjson.dumps(told))
        if size > most:
            raise ValueError(f"{what} {size} bytes: at most {most}")
    return kept


def _keep(value: Any, levels: int) -> Any:
    if isinstance(value, dict | list):
        if levels == 0:
            raise ValueError(f"properties are nested deeper than {MAX_PROPERTIES_DEPTH}")
        if isinstance(value, list):
            return [_keep(each, levels - 1) for each in value]
        return {name: _keep(each, levels - 1) for name, each in value.items()}
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        value = float(value) if abs(value) < _HUGE else math.inf
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers in properties must be finite")
    return value
