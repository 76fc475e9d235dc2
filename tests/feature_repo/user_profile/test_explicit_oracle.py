"""The state at every prefix against a naive recomputation from the raw events."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from explicit_histories import DAY_S, NOT_OWN, histories
from hypothesis import given
from retold import told

from feature_repo.events.schema import EventRecord
from feature_repo.user_profile import explicit
from feature_repo.user_profile.compact import pack_type
from feature_repo.user_profile.explicit import apply, new
from feature_repo.user_profile.order_days import window

STEP = {
    "view_item": 0.1, "select_item": 0.1, "share": 0.3, "add_to_wishlist": 0.3,
    "add_to_cart": 0.3, "rate_item": 0.3, "purchase": 1.0, "remove_from_wishlist": -0.3,
    "remove_from_cart": -0.3, "refund": -1.0, "not_interested": -1.0,
}  # fmt: skip
COUNTER = {
    "view_item": "views", "select_item": "views", "add_to_cart": "carts",
    "remove_from_cart": "carts", "purchase": "purchases", "refund": "purchases",
}  # fmt: skip


def seconds(e: EventRecord) -> int:
    return e.time_ms // 1000


def order_numbers(history: list[EventRecord]) -> list[int]:
    """The number of the current order after each event."""
    placed = iter(told(history))
    numbers, count = [], 0
    for e in history:
        if e.type == "purchase":
            count += next(placed).is_new
        numbers.append(count)
    return numbers


def keys_of(e: EventRecord, kind: str) -> set[str]:
    if kind == "item":
        return {i.item_id for i in e.items}
    if e.type == "not_interested":
        return set()
    if kind == "brand":
        return {i.brand for i in e.items if i.brand}
    levels = [i.category.split("/") for i in e.items if i.category]
    return {"/".join(path[:n]) for path in levels for n in (1, 2, len(path)) if n <= len(path)}


class Naive:
    """What an interest must be: all touches since it was last gone."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.net, self.order, self.times = 0, 0, list[int]()
        self.counts, self.bought_at = Counter[str](), list[int]()
        self.parts = {112: list[tuple[int, float]](), 7: list[tuple[int, float]]()}

    def weight(self, days: int) -> float:
        last = max(self.times)
        return sum(a * 0.5 ** ((last - t) / (days * DAY_S)) for t, a in self.parts[days])

    def touch(self, e: EventRecord, order: int) -> None:
        step, at = STEP[e.type], seconds(e)
        if not self.times and step < 0:
            return
        self.times.append(at)
        if e.type == "purchase":
            if self.counts["purchases"] == 0:
                self.bought_at = []
            self.bought_at.append(at)
            if self.order == order:
                return
            self.order = order
        sign = 1 if step > 0 else -1
        name = COUNTER.get(e.type, "")
        self.counts[name] = max(0, self.counts[name] + sign)
        self.net += sign
        for days, parts in self.parts.items():
            parts.append((at, step))
            if self.weight(days) < 0:
                parts.clear()
        if self.net <= 0:
            self.clear()


def naive_interests(history: list[EventRecord], kind: str) -> dict[str, Naive]:
    found: dict[str, Naive] = {}
    for e, order in zip(history, order_numbers(history), strict=True):
        if e.type in STEP:
            for key in keys_of(e, kind):
                found.setdefault(key, Naive()).touch(e, order)
    return {key: naive for key, naive in found.items() if naive.times}


@given(histories(max_size=30))
def test_interests(history: list[EventRecord]) -> None:
    profile = new()
    for n, e in enumerate(history, 1):
        apply(profile, e)
        for kind, table in (
            ("item", profile.items.entries()),
            ("category", profile.categories.entries()),
            ("brand", profile.brands.entries()),
        ):
            expected = naive_interests(history[:n], kind)
            assert {str(key) for key in table} == set(expected)
            for key, entry in table.items():
                naive = expected[str(key)]
                assert (entry.first_at, entry.last_at) == (min(naive.times), max(naive.times))
                assert entry.net == naive.net
                for name in ("views", "carts", "purchases"):
                    assert getattr(entry, name) == naive.counts[name]
                if entry.purchases:
                    assert entry.first_purchase_at == min(naive.bought_at)
                    assert entry.last_purchase_at == max(naive.bought_at)
                # One rounding to a millionth for each touch, and one for each decay.
                slack = 2e-6 * len(naive.times) + 1e-9
                assert abs(entry.long / 1e6 - naive.weight(112)) <= slack
                assert abs(entry.short / 1e6 - naive.weight(7)) <= slack


def naive_amount(e: EventRecord) -> int:
    if e.value is not None:
        return round(e.value * 1000)
    paid = [max(0.0, i.quantity * (i.price or 0) - (i.discount or 0)) for i in e.items]
    return round(sum(paid) * 1000)


@given(histories())
def test_orders_money_and_windows(history: list[EventRecord]) -> None:
    profile = new()
    for n, e in enumerate(history, 1):
        apply(profile, e)
        seen = history[:n]
        numbers = [0, *order_numbers(seen)]
        placed = [x for x, a, b in zip(seen, numbers, numbers[1:], strict=False) if b > a]
        money = [(seconds(x) // DAY_S, -naive_amount(x)) for x in seen if x.type == "refund"]
        bought = told(seen)
        for each in bought:
            was = 0 if each.instead_of is None else naive_amount(each.instead_of)
            money.append((seconds(each.event) // DAY_S, naive_amount(each.event) - was))
        state = profile.orders
        assert state.count == len(placed)
        assert state.spend == sum(m for _, m in money)
        assert state.lines == sum(
            len(x.event.items) - len(x.instead_of.items if x.instead_of else []) for x in bought
        )
        newest = max((day for day, _ in money), default=0)
        for today in (newest, newest + 5, newest + 100):
            for days in (28, 91):
                assert window(state, today, days) == (
                    sum(today - days < seconds(x) // DAY_S <= today for x in placed),
                    sum(m for day, m in money if today - days < day <= today),
                )


@given(histories())
def test_gaps_history_ring_and_seen(history: list[EventRecord]) -> None:
    profile = new()
    for e in history:
        apply(profile, e)
    placed_at, gaps = list[int](), list[int]()
    newest = 0
    for each in told(history):
        e = each.event
        if each.is_new:
            if placed_at and seconds(e) >= newest:
                gaps.append(seconds(e) - newest)
            placed_at.append(seconds(e))
        newest = max(newest, seconds(e))
    assert profile.orders.gaps_s == gaps[-20:]
    bought = [i.item_id for e in history if e.type == "purchase" for i in e.items]
    assert explicit.purchased_items(profile) == list(dict.fromkeys(bought))
    ring = [
        (e.type, seconds(e), i.item_id)
        for e in history
        if e.type in STEP or e.type == "try_on"
        for i in e.items
    ]
    assert [(g.type, g.at, k) for g in profile.recent for k in g.items] == ring[-50:]
    looked = [
        i.item_id
        for e in history
        if e.type in {"view_item", "select_item", "add_to_cart", "add_to_wishlist"}
        for i in e.items
    ]
    assert set(explicit.seen_items(profile)) == set(bought) | set(looked)


@given(histories())
def test_counts_habits_and_consent(history: list[EventRecord]) -> None:
    profile = new()
    for e in history:
        apply(profile, e)
    assert profile.counts == Counter(pack_type(e.type) for e in history)
    own = [e for e in history if e.type not in NOT_OWN]
    moments = [
        (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds(e))).astimezone(
            ZoneInfo(e.tz or "UTC")
        )
        for e in own
    ]
    hours, weekdays = Counter(m.hour for m in moments), Counter(m.weekday() for m in moments)
    assert profile.activity.hours == [hours[h] for h in range(24)]
    assert profile.activity.weekdays == [weekdays[d] for d in range(7)]
    assert profile.channels == Counter(e.channel for e in own if e.channel)
    for purpose in ("ads", "mail"):
        said = [
            (seconds(e), not e.consent[purpose]) for e in history if purpose in (e.consent or {})
        ]
        if said:
            assert profile.consent[purpose].granted != max(said)[1]
        else:
            assert purpose not in profile.consent
    assert profile.anonymous == all(e.anonymous for e in history)
    assert set(profile.linked) == {e.linked for e in history if e.linked}


@given(histories())
def test_sessions_by_the_gap_alone(history: list[EventRecord]) -> None:
    for e in history:
        e.session_id = None
    history.sort(key=lambda e: e.time_ms)
    profile = new()
    sessions: list[list[EventRecord]] = []
    for e in history:
        apply(profile, e)
        if e.type in NOT_OWN:
            continue
        if not sessions or seconds(e) - seconds(sessions[-1][-1]) > 30 * 60:
            sessions.append([])
        sessions[-1].append(e)
        assert profile.session.number == len(sessions)
        assert profile.session.events == len(sessions[-1])
        assert profile.session.started_at == seconds(sessions[-1][0])
        viewed = {
            i.item_id
            for x in sessions[-1]
            if x.type in {"view_item", "select_item"}
            for i in x.items
        }
        assert {str(key) for key in profile.session.viewed} == viewed
