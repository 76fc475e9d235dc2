"""What every feature should be, by plain loops over the raw events; slow and obvious."""

from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from statistics import fmean, pstdev
from zoneinfo import ZoneInfo

from retold import told

from feature_repo.events.schema import EventRecord
from feature_repo.features.catalogue import COUNTED_TYPES, INTERESTS
from feature_repo.features.sql.interests import SHRINKAGE_BASKETS

NOT_OWN = {"message_sent", "campaign_decision", "consent_updated"}

TOUCHES = {
    "view_item", "select_item", "add_to_cart", "add_to_wishlist", "purchase", "rate_item", "share",
}  # fmt: skip


def day_of(event: EventRecord) -> int:
    return event.time_ms // 86_400_000


def paid(event: EventRecord) -> float:
    if event.value is not None:
        return max(0, event.value)
    lines = [max(0.0, i.quantity * (i.price or 0) - (i.discount or 0)) for i in event.items]
    return sum(lines)


def spent(log: list[EventRecord], orders: list[EventRecord]) -> float:
    """Return what some purchases of a user's log add to what was spent."""
    return sum(
        paid(t.event) - (paid(t.instead_of) if t.instead_of else 0)
        for t in told(log) if t.event in orders
    )  # fmt: skip


def two_levels(category: str | None) -> str | None:
    return None if category is None else "/".join(category.split("/")[:2])


def gaps(days: set[int]) -> tuple[float | None, float | None]:
    steps = [b - a for a, b in pairwise(sorted(days))]
    return (fmean(steps), pstdev(steps)) if steps else (None, None)


def first_told(
    everyone: list[EventRecord], keys: Callable[[EventRecord], set[str]]
) -> list[tuple[EventRecord, str]]:
    """Return each key of each order once, with the purchase that told of it first."""
    found: dict[tuple[str, str], EventRecord] = {}
    for user in {e.user for e in everyone}:
        for each in told([e for e in everyone if e.user == user]):
            for key in keys(each.event):
                found.setdefault((each.first.id, key), each.event)
    return [(event, key) for (_, key), event in found.items()]


def behaviour(log: list[EventRecord], snap: int, window: int) -> dict[str, float | None]:
    """Return one user's behaviour row at the midnight that begins day ``snap``."""
    seen = [e for e in log if snap - window <= day_of(e) < snap]
    bought = [e for e in seen if e.type == "purchase"]
    first_told = [t.event for t in told(log) if t.instead_of is None]
    touched = [i for e in seen if e.type in TOUCHES for i in e.items]
    priced = [i for e in bought if e in first_told for i in e.items if i.price is not None]
    gross = sum(i.quantity * i.price for i in priced)
    off = sum(min(i.discount or 0, i.quantity * i.price) for i in priced)
    active = {day_of(e) for e in seen if e.type not in NOT_OWN}
    mean, spread = gaps(active)
    ordered = [t.event for t in told(log) if t.is_new and t.event in seen]
    order_mean, order_spread = gaps({day_of(e) for e in ordered})
    row: dict[str, float | None] = {
        "num_events": len(seen),
        **{name: sum(e.type == kind for e in seen) for name, kind in COUNTED_TYPES.items()},
        "num_purchases": len(ordered),
        "num_distinct_items": len({i.item_id for i in touched}),
        "num_distinct_categories": len({two_levels(i.category) for i in touched} - {None}),
        "spend": spent(log, bought),
        "discount_share": off / gross if gross else None,
        "num_active_days": len(active),
        "mean_gap_days": mean,
        "std_gap_days": spread,
        "mean_order_gap_days": order_mean,
        "std_order_gap_days": order_spread,
    }
    return {f"{name}_{window}d": value for name, value in row.items()}


def interests(
    everyone: list[EventRecord], user: str, snap: int, field: str
) -> list[tuple[float, str]]:
    """Return a user's ``(weight, key)``, best first."""
    baskets, total = defaultdict(float), 0.0
    own, own_total = defaultdict(float), 0.0

    def keys(e: EventRecord) -> set[str]:
        named = {two_levels(i.category) if field == "category" else i.brand for i in e.items}
        return named - {None}

    before = [e for e in everyone if day_of(e) < snap]
    for e, _ in first_told(before, lambda _: {"all"}):
        share = 2.0 ** (-(snap - day_of(e)) / 112)
        total += share
        own_total += share if e.user == user else 0
    for e, key in first_told(before, keys):
        share = 2.0 ** (-(snap - day_of(e)) / 112)
        baskets[key] += share
        own[key] += share if e.user == user else 0
    kappa = SHRINKAGE_BASKETS
    scored = [
        ((n + kappa * baskets[key] / total) / (own_total + kappa), key)
        for key, n in own.items()
        if n > 0
    ]
    return sorted(scored, reverse=True)[:INTERESTS]


def quintile(values: dict[str, float], user: str) -> int | None:
    if user not in values:
        return None
    below = sum(v < values[user] for v in values.values())
    return 1 + 5 * below // len(values)


def profile(everyone: list[EventRecord], user: str, snap: int) -> dict[str, object]:
    """Return one user's profile row at the Monday midnight that begins day ``snap``."""
    before = [e for e in everyone if day_of(e) < snap]
    mine = [e for e in before if e.user == user]
    orders = [e for e in mine if e.type == "purchase"]
    own = [e for e in mine if e.type not in NOT_OWN]

    def within(days: int, who: str = user) -> list[EventRecord]:
        return [
            e for e in before
            if e.user == who and e.type == "purchase" and day_of(e) >= snap - days
        ]  # fmt: skip

    def count(some: list[EventRecord], who: str = user) -> int:
        theirs = told([e for e in before if e.user == who])
        return sum(t.is_new for t in theirs if t.event in some)

    def money(days: int, who: str = user) -> float:
        return spent([e for e in before if e.user == who], within(days, who))

    buyers = {e.user for e in before if e.type == "purchase"}
    last = {
        u: max(day_of(e) for e in before if e.user == u and e.type == "purchase") for u in buyers
    }
    local = [
        datetime.fromtimestamp(e.time_ms / 1000, UTC).astimezone(ZoneInfo(e.tz or "UTC"))
        for e in own
    ]
    hours, days = Counter(t.hour for t in local), Counter(t.weekday() for t in local)
    recency = snap - last[user] if orders else None
    lines = sum(
        len(t.event.items) - len(t.instead_of.items if t.instead_of else []) for t in told(mine)
    )
    categories = interests(before, user, snap, "category")
    brands = interests(before, user, snap, "brand")
    return {
        "rfm_recency_days": recency,
        "rfm_frequency_28d": count(within(28)),
        "rfm_frequency_91d": count(within(91)),
        "rfm_monetary_28d": money(28),
        "rfm_monetary_91d": money(91),
        "rfm_recency_quintile": quintile(last, user),
        "rfm_frequency_quintile": quintile({u: count(within(91, u), u) for u in buyers}, user),
        "rfm_monetary_quintile": quintile({u: round(money(91, u), 3) for u in buyers}, user),
        "num_orders_total": count(orders),
        "spend_total": spent(mine, orders),
        "mean_basket_lines": lines / count(orders) if orders else None,
        "tenure_days": snap - min(day_of(e) for e in mine),
        "interest_categories": [key for _, key in categories],
        "interest_category_weights": [w for w, _ in categories],
        "interest_brands": [key for _, key in brands],
        "interest_brand_weights": [w for w, _ in brands],
        "hour_histogram": [hours[h] / len(own) for h in range(24)] if own else [],
        "weekday_histogram": [days[d] / len(own) for d in range(7)] if own else [],
        "peak_hour": max(hours, key=lambda h: (hours[h], -h)) if own else None,
        "peak_weekday": max(days, key=lambda d: (days[d], -d)) if own else None,
    }


def item(everyone: list[EventRecord], item_id: str, snap: int) -> dict[str, object]:
    """Return one item's row at the Monday midnight that begins day ``snap``."""
    before = [e for e in everyone if day_of(e) < snap and e.type in TOUCHES]
    lines = [(e.time_ms, e.id, i) for e in before for i in e.items if i.item_id == item_id]
    sold = [
        e for e, key in first_told(before, lambda e: {i.item_id for i in e.items}) if key == item_id
    ]
    buyers = Counter(e.user for e in sold)
    prices = [(t, n, i.price) for t, n, i in lines if i.price is not None]
    return {
        "category": next((i.category for *_, i in lines if i.category), None),
        "brand": next((i.brand for *_, i in lines if i.brand), None),
        "price": max(prices)[2] if prices else None,
        **{f"popularity_{w}d": sum(day_of(e) >= snap - w for e in sold) for w in (7, 28, 91)},
        "num_buyers_total": len(buyers),
        "repurchase_rate": sum(n > 1 for n in buyers.values()) / len(buyers) if buyers else None,
    }
