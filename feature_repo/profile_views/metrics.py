"""Figures read from a profile's state as of a moment: RFM, lifecycle, interests, habits, cycles.

Belongs here: every equation between the stored state and a shown number. Not here: the
shape of an answer (`views`) and any change of state (`explicit`). ``now`` is epoch seconds
throughout; a moment before the last event counts as no time passed.
"""

import math
from collections.abc import Collection, Mapping
from statistics import median
from typing import Any, Final, Literal

from feature_repo.events.schema import iso
from feature_repo.profile_views.shapes import (
    Cycle,
    InterestKind,
    Lifecycle,
    Peak,
    PricedEvidence,
    ProfileAffinities,
    ProfileHabits,
    ProfileInterest,
    ProfileRfm,
    Quintiles,
    RfmSegment,
    Stage,
    Trend,
)
from feature_repo.user_profile.activity import WEEKDAYS
from feature_repo.user_profile.compact import DAY_S, MICRO, MILLI, Key
from feature_repo.user_profile.explicit import ExplicitProfile
from feature_repo.user_profile.interest_entry import (
    LONG_HALF_LIFE_S,
    SHORT_HALF_LIFE_S,
    Interest,
    decay,
)
from feature_repo.user_profile.order_days import window

PRIOR_GAP_DAYS: Final = 30.0
PRIOR_GAPS: Final = 2
"""A user's own gap begins as a month that counts as two gaps: two orders say little."""
MIN_GAP_DAYS: Final = 7.0
"""Who buys daily is not lost after three days away."""
ACTIVE_GAPS, RISK_GAPS = 1.5, 3.0
"""An order half a gap late is usual; twice left out is not."""
MIN_CYCLE_ORDERS: Final = 3
MAX_CYCLES: Final = 10


def format_time(at: int) -> str | None:
    """Return epoch seconds as RFC 3339; None for 0, which stands for never."""
    return iso(at * 1000) if at else None


def number(value: Any) -> float | None:
    """Return a batch feature as a plain number; None where it is missing or not finite.

    Examples
    --------
    >>> number(2), number(float("nan")), number(None)
    (2.0, None, None)
    """
    if value is None:
        return None
    plain = float(value)
    return plain if math.isfinite(plain) else None


def median_gap_days(profile: ExplicitProfile) -> float | None:
    """Return the median of the last 20 gaps between orders; None before the second order."""
    gaps = profile.orders.gaps_s
    return round(median(gaps) / DAY_S, 4) if gaps else None


def recency_days(profile: ExplicitProfile, now: int) -> float | None:
    """Return days since the last order; None without one."""
    if profile.orders.count == 0:
        return None
    return round(max(0, now - profile.orders.last_at) / DAY_S, 4)


def lifecycle(profile: ExplicitProfile, now: int) -> Lifecycle:
    """Place recency against the user's own gap between orders.

    The personal gap is the median of the last n gaps shrunk to 30 days,
    ``(n · median + 2 · 30) / (n + 2)``, at least 7. Up to 1.5 gaps: ``new`` (one order) or
    ``active``; up to 3: ``at_risk``; beyond: ``lapsed``. Without orders: ``visitor``.
    """
    gaps = len(profile.orders.gaps_s)
    middle = median_gap_days(profile) or 0.0
    gap = max(MIN_GAP_DAYS, (gaps * middle + PRIOR_GAPS * PRIOR_GAP_DAYS) / (gaps + PRIOR_GAPS))
    recency = recency_days(profile, now)
    stage: Stage
    if recency is None:
        stage = "visitor"
    elif recency <= ACTIVE_GAPS * gap:
        stage = "new" if profile.orders.count == 1 else "active"
    else:
        stage = "at_risk" if recency <= RISK_GAPS * gap else "lapsed"
    return {
        "stage": stage,
        "evidence": {
            "orders": profile.orders.count,
            "recency_days": recency,
            "personal_gap_days": round(gap, 4),
            "gaps": gaps,
        },
        "as_of": iso(now * 1000),
    }


def rfm(profile: ExplicitProfile, now: int, batch: Mapping[str, Any] | None) -> ProfileRfm:
    """Return recency, and frequency and money of the last 28 and 91 calendar days (UTC).

    Quintiles (5 best) compare users, so they come from the batch features or are None.
    """
    today = now // DAY_S
    orders_28d, money_28d = window(profile.orders, today, 28)
    orders_91d, money_91d = window(profile.orders, today, 91)
    known = batch or {}
    whole: Quintiles = {
        "recency": _quintile(known, "recency"),
        "frequency": _quintile(known, "frequency"),
        "monetary": _quintile(known, "monetary"),
    }
    segment = known.get("rfm_segment") or rfm_segment(whole["recency"], whole["frequency"])
    return {
        "recency_days": recency_days(profile, now),
        "frequency": {"28d": orders_28d, "91d": orders_91d},
        "monetary": {"28d": money_28d / MILLI, "91d": money_91d / MILLI},
        "quintiles": whole if any(whole.values()) else None,
        "segment": segment,
        "evidence": {
            "orders": profile.orders.count,
            "refunds": profile.orders.refunds,
            "monetary_lifetime": profile.orders.spend / MILLI,
            "first_order_at": format_time(profile.orders.first_at),
            "last_order_at": format_time(profile.orders.last_at),
        },
        "as_of": iso(now * 1000),
    }


def _quintile(batch: Mapping[str, Any], figure: str) -> int | None:
    value = number(batch.get(f"rfm_{figure}_quintile"))
    return None if value is None else int(value)


def rfm_segment(recency: int | None, frequency: int | None) -> RfmSegment | None:
    """Name the RFM cell of two quintiles (5 best); None where one is unknown.

    Examples
    --------
    >>> rfm_segment(5, 5), rfm_segment(1, 5), rfm_segment(1, 1)
    ('champions', 'cannot_lose', 'hibernating')
    """
    if recency is None or frequency is None:
        return None
    if recency >= 3:
        return _recent_segment(recency, frequency)
    if frequency >= 4:
        return "cannot_lose"
    return "at_risk" if frequency == 3 else "hibernating"


def _recent_segment(recency: int, frequency: int) -> RfmSegment:
    if recency >= 4 and frequency >= 4:
        return "champions"
    if frequency >= 3:
        return "loyal"
    return "promising" if recency >= 4 else "needs_attention"


def interests(profile: ExplicitProfile, now: int) -> list[ProfileInterest]:
    """Return all interests, strongest long weight first; long and short are never blended."""
    found = [
        _interest(name, str(key), entry, now)
        for name, table in tables(profile).items()
        for key, entry in table.items()
    ]
    found.sort(key=lambda interest: -interest["long"])
    return found


def tables(profile: ExplicitProfile) -> dict[InterestKind, dict[Key, Interest]]:
    """Return the interests by kind (category, brand, item) and key."""
    return {
        "category": profile.categories.entries(),
        "brand": profile.brands.entries(),
        "item": profile.items.entries(),
    }


def is_department(table: Collection[Key], key: str) -> bool:
    """Say whether ``key`` is a top-level category that stands beside a category within it.

    Such a key says how often a user shops at all, and little about what.
    """
    prefix = key + "/"
    return "/" not in key and any(str(other).startswith(prefix) for other in table)


def _interest(name: InterestKind, key: str, entry: Interest, now: int) -> ProfileInterest:
    elapsed = now - entry.last_at
    long = decay(entry.long, elapsed, LONG_HALF_LIFE_S)
    short = decay(entry.short, elapsed, SHORT_HALF_LIFE_S)
    return {
        "kind": name,
        "key": key,
        "weight": round(long, 6),
        "long": round(long, 6),
        "short": round(short, 6),
        "trend": trend(long, short, now - entry.first_at),
        "evidence": {"view": entry.views, "cart": entry.carts, "purchase": entry.purchases},
        "first_at": format_time(entry.first_at),
        "last_at": format_time(entry.last_at),
        "as_of": iso(now * 1000),
    }


def trend(long: float, short: float, age_s: int) -> Trend:
    """Compare the rates behind the two weights: ``new``, ``rising``, ``steady``, ``falling``.

    Over an age T a steady rate r makes a weight ``r · H / ln 2 · (1 − 2^(−T/H))``, so both
    weights are divided by ``H · (1 − 2^(−T/H))`` and the ratio short : long compares the last
    weeks with the last months: above 2 rising, below 1/2 falling. Younger than 14 days: new.

    Examples
    --------
    >>> trend(16.0, 1.0, 10**8), trend(16.0, 3.0, 10**8), trend(16.0, 0.1, 10**8)
    ('steady', 'rising', 'falling')
    """
    if age_s < 2 * SHORT_HALF_LIFE_S:
        return "new"
    if long <= 0:
        return "falling"
    ratio = _rate(short, SHORT_HALF_LIFE_S, age_s) / _rate(long, LONG_HALF_LIFE_S, age_s)
    if ratio > 2:
        return "rising"
    return "falling" if ratio < 0.5 else "steady"


def _rate(weight: float, half_life_s: int, age_s: int) -> float:
    return weight / (half_life_s * (1 - 2 ** (-age_s / half_life_s)))


def habits(profile: ExplicitProfile, now: int) -> ProfileHabits:
    """Return hours and weekdays of activity, the gap between orders and the basket's size."""
    hours, weekdays = profile.activity
    total = sum(hours)
    peak: Peak | None = None
    if total:
        hour, weekday = hours.index(max(hours)), weekdays.index(max(weekdays))
        peak = {
            "hour": hour,
            "hour_share": round(hours[hour] / total, 4),
            "weekday": WEEKDAYS[weekday],
            "weekday_share": round(weekdays[weekday] / total, 4),
        }
    orders = profile.orders
    return {
        "hour_histogram": list(hours),
        "weekday_histogram": list(weekdays),
        "peak": peak,
        "median_gap_days": median_gap_days(profile),
        "basket_size": round(orders.lines / orders.count, 4) if orders.count else None,
        "evidence": {"events": total, "orders": orders.count, "gaps": len(orders.gaps_s)},
        "as_of": iso(now * 1000),
    }


def affinities(profile: ExplicitProfile, now: int) -> ProfileAffinities:
    """Return leanings to brands, price level, promotions and channels, each with evidence."""
    orders = profile.orders
    brands = {
        str(key): decay(entry.long, now - entry.last_at, LONG_HALF_LIFE_S)
        for key, entry in profile.brands.entries().items()
    }
    whole = sum(brands.values())
    ranked = sorted(brands, key=lambda key: -brands[key])
    events = sum(profile.channels.values())
    evidence: PricedEvidence = {
        "priced_lines_decayed": round(orders.paid_lines / MICRO, 4),
        "as_of": format_time(orders.last_at),
    }
    return {
        "brand": [
            {"key": key, "share": round(brands[key] / whole, 4), "weight": round(brands[key], 6)}
            for key in ranked
            if brands[key] > 0
        ],
        "price": {
            "mean_unit_price": _ratio(orders.price_sum / MILLI, orders.paid_lines / MICRO),
            "mean_order_value": _ratio(orders.spend / MILLI, orders.count),
            "evidence": evidence,
        },
        "promotion": {
            "discount_share": _ratio(orders.discount, orders.gross),
            "promoted_line_share": _ratio(orders.promoted_lines, orders.paid_lines),
            "evidence": evidence,
        },
        "channel": {
            "shares": {str(k): round(n / events, 4) for k, n in profile.channels.items()},
            "evidence": {"events": events},
        },
    }


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole > 0 else None


def cycles(profile: ExplicitProfile, now: int) -> list[Cycle]:
    """Return repurchase cycles of items and categories bought in three orders or more.

    ``mean_gap_days = (last − first) / (n − 1)``. A cycle says when a user usually buys again;
    being past it predicts no purchase, so it is no reason to target anyone.
    """
    found = [
        _cycle(name, str(key), entry, now)
        for name, table in tables(profile).items()
        if name != "brand"
        for key, entry in table.items()
        if entry.purchases >= MIN_CYCLE_ORDERS and not is_department(table, str(key))
    ]
    found.sort(key=lambda cycle: -cycle["n"])
    return found[:MAX_CYCLES]


def _cycle(name: Literal["category", "item"], key: str, entry: Interest, now: int) -> Cycle:
    first, last = entry.first_purchase_at, entry.last_purchase_at
    gap = (last - first) / (entry.purchases - 1)
    return {
        "kind": name,
        "key": key,
        "n": entry.purchases,
        "mean_gap_days": round(gap / DAY_S, 4),
        "first_at": format_time(first),
        "last_at": format_time(last),
        "days_since_last": round(max(0, now - last) / DAY_S, 4),
        "as_of": iso(now * 1000),
    }
