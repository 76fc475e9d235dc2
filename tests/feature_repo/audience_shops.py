"""Random shops and random rules over them: few names and round times, so that rules bite."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from feature_repo.archive.event_archive import Archive, LogPosition, write_part
from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.features import snapshots
from feature_repo.features.catalogue import VIEWS

START = datetime(2024, 1, 1, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
DAY_MS = 86_400_000
DAYS = 100
USERS = tuple(f"{{p00{n % 3}}}" + letter * 26 for n, letter in enumerate("abcdef"))
TYPES = (
    "purchase",
    "purchase",
    "view_item",
    "refund",
    "message_sent",
    "try_on",
    "consent_updated",
    "message_unsubscribed",
)
ITEMS = {
    "i0": ("Food/Tea/Green", "Ox"), "i1": ("Food/Tea", "Yak"), "i2": ("Food", "Ox"),
    "i3": ("Food-like/Tea", None), "i4": (None, "Yak"), "i5": ("Home/Lamp", None),
}  # fmt: skip
CATEGORIES = ("Food", "Food/Tea", "Food/Tea/Green", "Food-like", "Home", "Nowhere", "Foo")
FEATURES = {
    "profile": ("rfm_recency_quintile", "interest_categories"),
    "behaviour_28d": ("spend_28d", "num_purchases_28d"),
}


@st.composite
def logs(draw: st.DrawFn) -> list[EventRecord]:
    """Draw a log in log order; late events stand behind events of later times."""
    return [_event(draw, number) for number in range(draw(st.integers(1, 35)))]


def _event(draw: st.DrawFn, number: int) -> EventRecord:
    kind = draw(st.sampled_from(TYPES))
    time_ms = (
        START_MS
        + draw(st.integers(0, DAYS * 4)) * DAY_MS // 4
        + (jitter_ms := draw(st.sampled_from([0, 0, 1, 500])))
    )
    ahead_ms = 0 if jitter_ms else draw(st.sampled_from([0, 0, 1, 1_500, 240_000]))
    chosen = draw(st.lists(st.sampled_from(sorted(ITEMS)), max_size=3))
    ordered = kind in {"purchase", "refund"}
    told = st.sampled_from([None, {"ads": True}, {"ads": False}, {"mail": True, "ads": True}])
    return EventRecord(
        id=f"e{number:03d}", type=kind, user=draw(st.sampled_from(USERS)), time_ms=time_ms,
        received_ms=time_ms - ahead_ms, anonymous=draw(st.booleans()),
        items=[_line(draw, item) for item in chosen],
        order_id=draw(st.sampled_from(["o1", "o2", f"o-{number}"])) if ordered else None,
        value=draw(st.sampled_from([None, 0.0, 7.0, 12.125])),
        channel=draw(st.sampled_from(["ads", "mail"] if kind == "message_unsubscribed"
                                     else [None, "web", "app"])),
        campaign_id=draw(st.sampled_from([None, "c1"])),
        rating=draw(st.sampled_from([None, 2.0, 5.0])),
        consent=draw(told) if draw(st.booleans()) else None,
        properties={"purpose": "mail", "granted": draw(st.booleans())}
        if kind == "consent_updated" else None,
    )  # fmt: skip


def _line(draw: st.DrawFn, item: str) -> ItemRecord:
    category, brand = ITEMS[item]
    return ItemRecord(
        item, quantity=draw(st.sampled_from([1.0, 2.0, 0.5])),
        price=draw(st.sampled_from([None, 1.25, 4.5])), category=category, brand=brand,
        discount=draw(st.sampled_from([None, 0.5, 9.0])),
    )  # fmt: skip


@st.composite
def feature_rows(draw: st.DrawFn) -> list[tuple[str, str, datetime, dict[str, Any]]]:
    """Draw rows of feature views: (view, user, time, values)."""
    made = []
    for _ in range(draw(st.integers(0, 12))):
        view = draw(st.sampled_from(sorted(FEATURES)))
        values: dict[str, Any]
        if view == "profile":
            values = {
                "rfm_recency_quintile": draw(st.sampled_from([None, 1, 5])),
                "interest_categories": draw(st.sampled_from([[], ["Food/Tea"], ["Home/Lamp"]])),
            }
        else:
            values = {
                "spend_28d": draw(st.sampled_from([0.0, 3.5, 80.0])),
                "num_purchases_28d": draw(st.integers(0, 3)),
            }
        day = START + timedelta(days=draw(st.integers(0, DAYS)))
        made.append((view, draw(st.sampled_from(USERS)), day, values))
    return made


def write(home: Path, log: list[EventRecord], rows: list[Any]) -> None:
    """Put a shop below ``home``."""
    entries = [(LogPosition(1000 + n, 0), event) for n, event in enumerate(log)]
    half = len(entries) // 2
    archive = Archive(home / "archive" / "events")
    for name, some in (("one", entries[:half]), ("two", entries[half:])):
        if some:
            archive.append(name, some)
    for view in FEATURES:
        names = [f.name for f in VIEWS[view]]
        table = [
            {"user": user, "event_timestamp": day, "created": day + timedelta(seconds=n),
             **dict.fromkeys(names), **values}
            for n, (of, user, day, values) in enumerate(rows) if of == view
        ]  # fmt: skip
        schema = snapshots.schema(view)
        write_part(
            home / "features" / view / "base.parquet", pa.Table.from_pylist(table, schema=schema)
        )


def latest(rows: list[Any], until: datetime) -> dict[str, dict[str, Any]]:
    """Return each user's features as of a moment."""
    found: dict[str, dict[str, Any]] = {}
    for _, user, _, values in sorted(
        ((n, *row[1:]) for n, row in enumerate(rows) if row[2] <= until),
        key=lambda each: (each[2], each[0]),
    ):
        found.setdefault(user, {}).update(values)
    return found


bounds = st.one_of(
    st.builds(lambda k, v: {k: v}, st.sampled_from(["gte", "gt", "lte", "lt", "eq"]),
              st.sampled_from([0, 1, 2, 3, 7, 12.125, 30])),
    st.just({"gte": 1, "lte": 3}),
)  # fmt: skip
durations = st.sampled_from(["6h", "1d", "7d", "4w", "60d"])


def _subset(draw: st.DrawFn, choices: dict[str, st.SearchStrategy[Any]], most: int) -> Any:
    names = draw(st.lists(st.sampled_from(sorted(choices)), max_size=most, unique=True))
    return {name: draw(choices[name]) for name in names}


_WHERE: dict[str, st.SearchStrategy[Any]] = {
    "channel": st.sampled_from(["web", ["web", "app"]]), "campaign_id": st.just("c1"),
    "value": bounds, "rating": bounds, "price": bounds, "quantity": bounds,
    "item_id": st.lists(st.sampled_from(sorted(ITEMS)), min_size=1, max_size=3),
    "category": st.one_of(
        st.sampled_from(CATEGORIES),
        st.lists(st.sampled_from(CATEGORIES), min_size=1, max_size=2),
    ),
    "brand": st.sampled_from(["Ox", "Yak"]),
}  # fmt: skip


@st.composite
def steps(draw: st.DrawFn) -> dict[str, Any]:
    step: dict[str, Any] = {"type": draw(st.sampled_from(TYPES))}
    where = _subset(draw, _WHERE, 2) if draw(st.booleans()) else {}
    return {**step, "where": where} if where else step


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    test = draw(steps())
    asked = draw(st.sampled_from(["", "count", "count", "sum", "first", "last"]))
    if asked:
        test[asked] = dict(draw(bounds))
    if asked == "sum":
        test["sum"]["of"] = draw(st.sampled_from(["value", "amount", "quantity"]))
    span = draw(st.sampled_from(["", "", "within", "between"]))
    if span == "within":
        test["within"] = draw(durations)
    elif span == "between":
        test["between"] = ["2024-01-20", draw(st.sampled_from(["2024-02-01", "2024-03-05"]))]
    return {"event": test}


@st.composite
def sequences(draw: st.DrawFn) -> dict[str, Any]:
    start = draw(steps())
    test = {"start": start, "then": start if draw(st.booleans()) else draw(steps())}
    test |= _subset(draw, {"within": durations, "ended_within": durations, "without": steps()}, 3)
    return {"sequence": test}


_TRAITS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(
        ("event_count", "orders.count", "orders.spend", "identity.first_seen_days",
         "identity.last_seen_days", "rfm.recency_days", "rfm.frequency.28d", "rfm.frequency.91d",
         "rfm.monetary.28d", "rfm.monetary.91d", "habits.median_gap_days",
         "rfm_recency_quintile", "spend_28d", "num_purchases_28d"), bounds),
    "habits.overdue": st.just({"gt": 1.5}),
    "identity.anonymous": st.booleans().map(lambda value: {"eq": value}),
    "lifecycle.stage": st.sampled_from(
        [{"eq": "visitor"}, {"in": ["new", "active"]}, {"eq": "at_risk"}, {"in": ["lapsed"]}]
    ),
    "interest_categories": st.just({"contains": ["Food/Tea", "Nowhere"]}),
}  # fmt: skip

traits = st.sampled_from(sorted(_TRAITS)).flatmap(
    lambda name: _TRAITS[name].map(lambda asked: {"trait": {"name": name, **asked}})
)
scores = st.sampled_from([{"gte": 0.0}, {"gte": 0.1}, {"top": 10}, {"top": 50}, {"top": 100}]).map(
    lambda asked: {"score": {"name": "interest", **asked}}
)
people = st.lists(st.sampled_from(USERS), min_size=1, max_size=3).map(lambda us: {"entities": us})
leaves = st.one_of(events(), events(), traits, traits, sequences(), scores, people,
                   st.just({"audience": "other"}))  # fmt: skip
rules = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda each: {"all": each}),
        st.lists(inner, min_size=1, max_size=3).map(lambda each: {"any": each}),
        inner.map(lambda each: {"not": each}),
    ),
    max_leaves=4,
)


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a definition that may name the audience ``other``."""
    return {
        "rule": {"all": [draw(rules), {"not": {"entities": [USERS[5]]}}]}
        if draw(st.booleans()) else {"any": [draw(rules)]},
        "consent": draw(st.sampled_from([[], [], ["ads"], ["ads", "mail"]])),
        "exclude": draw(st.lists(rules, max_size=1)),
    }  # fmt: skip
