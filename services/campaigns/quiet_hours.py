"""Quiet hours: whether a moment lies in them, by the clock on a user's wall.

Belongs here: the reading of the clock. Where a user's time zone comes from is for the caller.
"""

from datetime import datetime

from feature_repo.events.time_zones import zone
from services.campaigns.campaign import QuietHours, minute_of


def is_quiet(hours: QuietHours, now_ms: int, tz: str | None) -> bool:
    """Say whether nobody is to be written to.

    Parameters
    ----------
    now_ms
        Epoch milliseconds.
    tz
        The user's IANA time zone; None: the one that stands in for it.

    Examples
    --------
    >>> night = QuietHours.model_validate({"from": "22:00", "until": "08:00"})
    >>> is_quiet(night, 0, None), is_quiet(night, 0, "Asia/Tokyo")
    (True, False)
    """
    local = datetime.fromtimestamp(now_ms / 1000, zone(tz or hours.tz))
    minute = local.hour * 60 + local.minute
    start, end = minute_of(hours.from_), minute_of(hours.until)
    if start < end:
        return start <= minute < end
    return minute >= start or minute < end
