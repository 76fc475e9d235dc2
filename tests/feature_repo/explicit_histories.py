"""Event histories for the tests of the explicit profile."""

from typing import Any

from hypothesis import strategies as st

from feature_repo.events.schema import EventRecord, ItemRecord

START_S = 1_700_000_000
HOUR_S, DAY_S = 3600, 86_400

CATALOGUE = {
    "1": ("Grocery/Milk", "Private"),
    "22": ("Grocery/Bread", "Baker"),
    "007": ("Grocery/Bread/Rye", None),
    "B-12": ("Garden", "Baker"),
    "4294967295": (None, None),
    "é": ("Garden/Tools", "42"),
}
NOT_OWN = {"message_sent", "campaign_decision", "consent_updated"}
"""Done by the shop, not by the user."""
TYPES = [
    "view_item", "add_to_cart", "remove_from_cart", "purchase", "purchase", "purchase", "refund",
    "add_to_wishlist", "remove_from_wishlist", "rate_item", "share", "select_item",
    "not_interested", "view_item_list", "search", "begin_checkout", "message_sent", "try_on",
    "consent_updated", "campaign_decision",
]  # fmt: skip
GAPS_S = [
    0,
    0,
    7,
    20 * 60,
    40 * 60,
    6 * HOUR_S,
    DAY_S,
    9 * DAY_S,
    40 * DAY_S,
    -1,
    -HOUR_S,
    -3 * DAY_S,
]


def event(
    event_type: str = "view_item", *ids: str, at: int = START_S, **fields: Any
) -> EventRecord:
    """Return an event of ``event_type`` on the items ``ids`` at ``at`` (epoch seconds)."""
    items = fields.pop("items", None) or [ItemRecord(i) for i in ids]
    if event_type in {"purchase", "refund"}:
        fields.setdefault("order_id", f"order-{at}")
    return EventRecord(
        id=f"{event_type}-{at}",
        type=event_type,
        user="u",
        time_ms=at * 1000,
        received_ms=0,
        items=items,
        **fields,
    )


@st.composite
def lines(draw: st.DrawFn) -> ItemRecord:
    item_id = draw(st.sampled_from(list(CATALOGUE)))
    category, brand = CATALOGUE[item_id]
    return ItemRecord(
        item_id,
        quantity=draw(st.sampled_from([1.0, 2.0, 0.25])),
        price=draw(st.none() | st.integers(0, 5000).map(lambda cents: cents / 100)),
        category=category,
        brand=brand,
        discount=draw(st.none() | st.just(0.5)),
    )


@st.composite
def events(draw: st.DrawFn, at: int) -> EventRecord:
    type_ = draw(st.sampled_from(TYPES))
    bare = type_ in {"search", "consent_updated", *NOT_OWN}
    order = draw(st.sampled_from("abc")) if type_ in {"purchase", "refund"} else None
    return EventRecord(
        id="e",
        type=type_,
        user="u",
        time_ms=at * 1000 + draw(st.sampled_from([0, 999])),
        received_ms=0,
        anonymous=draw(st.booleans()),
        linked=draw(st.none() | st.sampled_from(["x", "y"])),
        session_id=draw(st.none() | st.none() | st.sampled_from(["s1", "7"])),
        items=[] if bare else draw(st.lists(lines(), min_size=1, max_size=4)),
        order_id=order,
        value=draw(st.none() | st.sampled_from([0.0, 12.34])),
        channel=draw(st.none() | st.sampled_from(["web", "store"])),
        tz=draw(st.none() | st.sampled_from(["UTC", "Asia/Tokyo"])),
        consent=draw(st.none() | st.dictionaries(st.sampled_from(["ads", "mail"]), st.booleans())),
    )


@st.composite
def histories(draw: st.DrawFn, max_size: int = 40) -> list[EventRecord]:
    """One user's events in log order; times mostly rise, some events come late."""
    at, found = START_S, []
    for gap in draw(st.lists(st.sampled_from(GAPS_S), max_size=max_size)):
        at += gap
        found.append(draw(events(at)))
    return found
