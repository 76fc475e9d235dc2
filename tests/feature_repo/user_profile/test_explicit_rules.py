"""Single rules of the fold, each by an example."""

import pytest
from explicit_histories import DAY_S, HOUR_S, START_S, event

from feature_repo.events.schema import ItemRecord
from feature_repo.user_profile import explicit
from feature_repo.user_profile.compact import pack_id, unpack_type
from feature_repo.user_profile.explicit import fold
from feature_repo.user_profile.id_ring import add, discard, ids, pack_key
from feature_repo.user_profile.order_days import all_days, window
from feature_repo.user_profile.parts import Ids


def test_a_late_event_weighs_what_it_would_have_weighed_in_time() -> None:
    early, late = event("purchase", "1"), event("purchase", "1", at=START_S + 100 * DAY_S)
    in_time, behind = fold([early, late]).items[1], fold([late, early]).items[1]
    assert abs(in_time.long - behind.long) <= 1
    assert in_time.first_purchase_at == behind.first_purchase_at == START_S
    assert in_time.last_at == behind.last_at


def test_a_purchase_counts_once_for_each_key_and_order() -> None:
    item = {"category": "A/B", "brand": "X"}
    basket = [ItemRecord("1", **item), ItemRecord("2", **item), ItemRecord("1", **item)]
    twice = [
        event("purchase", items=basket, order_id="o"),
        event("purchase", items=basket, order_id="o", at=START_S + 5),
    ]
    profile = fold(twice)
    assert profile.orders.count == 1
    assert profile.orders.lines == 3
    assert profile.categories["A/B"].purchases == profile.categories["A"].purchases == 1
    assert profile.brands["X"].long == 1_000_000
    assert profile.items[1].purchases == 1


def test_a_refund_undoes_money_and_interest_but_not_history() -> None:
    line = [ItemRecord("1", quantity=2, price=10.0, discount=1.0)]
    profile = fold(
        [event("purchase", items=line), event("refund", items=line, at=START_S + HOUR_S)]
    )
    assert profile.orders.spend == 0
    assert window(profile.orders, START_S // DAY_S, 28) == (1, 0)
    assert len(profile.items) == 0
    assert explicit.purchased_items(profile) == ["1"]
    assert profile.orders.refunds == 1


def test_days_older_than_91_leave_the_ring_and_late_days_find_their_place() -> None:
    days = [0, 50, 95, 60, 3]
    profile = fold([event("purchase", "1", at=START_S + d * DAY_S, value=1.0) for d in days])
    first = START_S // DAY_S
    assert [day.day - first for day in all_days(profile.orders)] == [50, 60, 95]
    assert window(profile.orders, first + 95, 91) == (3, 3000)


def test_value_goes_before_prices() -> None:
    line = [ItemRecord("1", price=10.0)]
    assert fold([event("purchase", items=line, value=7.5)]).orders.spend == 7500
    assert fold([event("purchase", items=line)]).orders.spend == 10_000
    assert fold([event("purchase", "1")]).orders.spend == 0


def test_impressions_and_messages_sent_are_no_interest_and_no_sign_of_life() -> None:
    profile = fold([event("view_item_list", "1"), event("message_sent", at=START_S + DAY_S)])
    assert len(profile.items) == 0
    assert profile.recent == []
    assert profile.seen_at == START_S
    assert sum(profile.activity.hours) == 1
    assert profile.session.events == 1


def test_not_interested_goes_until_the_item_is_wanted_again() -> None:
    item = [ItemRecord("1", category="A")]
    profile = fold([event("view_item", items=item), event("not_interested", items=item)])
    assert explicit.refused_items(profile) == ["1"]
    assert len(profile.items) == 0
    assert profile.categories["A"].views == 1
    assert explicit.refused_items(fold([event("add_to_cart", "1")], profile)) == []


def test_a_cart_follows_what_goes_in_and_out() -> None:
    profile = fold(
        [
            event("add_to_cart", items=[ItemRecord("1", quantity=3), ItemRecord("2")]),
            event("remove_from_cart", items=[ItemRecord("1", quantity=2)]),
            event("remove_from_cart", items=[ItemRecord("9")]),
        ]
    )
    assert profile.session.cart == {1: 1000, 2: 1000}
    assert profile.session.intent == "buy"
    fold([event("purchase", "1", at=START_S + 9)], profile)
    assert profile.session.cart == {2: 1000}
    assert fold([event("purchase", "2", at=START_S + 10)], profile).session.intent == "bought"
    assert fold([event("search", at=START_S + HOUR_S)], profile).session.cart == {}


def test_intent_reads_the_session() -> None:
    assert fold([]).session.intent is None
    a, b, c = (event("view_item", items=[ItemRecord(i, category="K")]) for i in "abc")
    assert fold([a, b]).session.intent == "browse"
    assert fold([a, b, c]).session.intent == "compare"
    assert fold([a, event("view_item", "z"), a]).session.intent == "compare"
    assert fold([a, event("search")]).session.intent == "search"
    assert fold([a, event("begin_checkout")]).session.intent == "buy"


def test_session_ids_rule_over_gaps() -> None:
    first = event("view_item", "1", session_id="s1")
    much_later = event("view_item", "2", at=START_S + 5 * HOUR_S, session_id="s1")
    other = event("view_item", "3", at=START_S + 5 * HOUR_S, session_id="s2")
    profile = fold([first, much_later])
    assert (profile.session.number, profile.session.events) == (1, 2)
    fold([other], profile)
    assert (profile.session.number, profile.session.events) == (2, 1)
    fold([first], profile)  # late, of a session that is over
    assert (profile.session.number, profile.session.events) == (2, 1)
    unnamed = event("search", at=START_S + 5 * HOUR_S + 30 * 60)
    assert fold([unnamed], profile).session.events == 2
    ended = event("search", at=unnamed.time_ms // 1000 + 30 * 60 + 1)
    assert fold([ended], profile).session.number == 3


def test_consent_follows_event_time_not_arrival() -> None:
    said = event("login", consent={"ads": False}, at=START_S + 9, source="web")
    stale = event("login", consent={"ads": True, "mail": True}, at=START_S)
    consent = fold([said, stale]).consent
    assert (consent["ads"].granted, consent["ads"].source) == (False, "web")
    assert consent["mail"].granted


@pytest.mark.parametrize(
    "properties", [{"purpose": "ads", "granted": True}, {"ads": True, "note": "by phone"}]
)
def test_consent_may_come_as_properties(properties: dict[str, object]) -> None:
    consent = fold([event("consent_updated", properties=properties)]).consent
    assert {purpose: c.granted for purpose, c in consent.items()} == {"ads": True}
    assert fold([event("login", properties=properties)]).consent == {}


def test_habits_follow_the_events_own_zone() -> None:
    profile = fold([event("login", at=0, tz="Asia/Tokyo"), event("login", at=0)])
    assert profile.activity.hours[9] == profile.activity.hours[0] == 1


def test_prices_and_promotions_decay() -> None:
    dear = event("purchase", items=[ItemRecord("1", price=10.0, discount=5.0)])
    cheap = event("purchase", items=[ItemRecord("2", price=1.0)], at=START_S + 112 * DAY_S)
    state = fold([dear, cheap]).orders
    assert (state.paid_lines, state.promoted_lines) == (1_500_000, 500_000)
    assert (state.price_sum, state.gross, state.discount) == (6000, 6000, 2500)


def test_custom_types_beyond_the_bound_count_as_other() -> None:
    profile = fold([event(f"custom_{i}") for i in range(20)] + [event("custom_3"), event("login")])
    counts = {unpack_type(name): n for name, n in profile.counts.items()}
    assert counts[explicit.OTHER] == 4
    assert counts["custom_3"] == 2
    assert counts["login"] == 1


def test_ids_keep_their_form() -> None:
    names = ["1", "0", "01", "-1", "4294967294", "4294967295", "9" * 18, "9" * 19, "١", "1.0", "x"]
    assert [str(pack_id(name)) for name in names] == names
    ring = Ids()
    add(ring, map(pack_key, names), 100)
    assert ids(ring) == names
    for name in names[::2]:
        discard(ring, pack_key(name))
    assert ids(ring) == names[1::2]


def test_a_number_is_not_found_across_two_slots() -> None:
    ring = Ids()
    add(ring, [0x100, 0], 10)  # bytes 00 01 00 00 | 00 00 00 00 hold 01 00 00 00 off a border
    add(ring, [1], 10)
    assert ids(ring) == ["256", "0", "1"]


def test_a_late_order_makes_no_gap() -> None:
    times = [START_S, START_S + 5 * DAY_S, START_S + DAY_S, START_S + 9 * DAY_S]
    state = fold([event("purchase", "1", at=at) for at in times]).orders
    assert state.gaps_s == [5 * DAY_S, 4 * DAY_S]
    assert (state.count, state.first_at, state.last_at) == (4, times[0], times[3])
