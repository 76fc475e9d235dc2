"""The three views of a profile: their shape, the worked example, and plain JSON."""

import json
from typing import Any

import pytest
from explicit_histories import DAY_S, START_S, event, histories
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.profile_views import views
from feature_repo.user_profile.explicit import fold, new

NOW_MS = (START_S + DAY_S) * 1000
FULL_KEYS = [
    "user_id", "version", "updated_at", "event_count", "identity", "consent", "lifecycle",
    "rfm", "session", "interests", "affinities", "habits", "cycles", "propensities",
    "next_categories",
    "segments", "recent", "embedding", "provenance",
]  # fmt: skip


@given(st.integers(-400 * DAY_S, 400 * DAY_S))
def test_the_worked_example_whatever_the_time_between(gap_s: int) -> None:
    profile = fold([event("view_item", "A"), event("purchase", "B", at=START_S + gap_s)])
    assert json.dumps(views.seed(profile, user_id="123"), separators=(",", ":")) == (
        '{"User ID":123,"User Behavior":["Browse Product A","Purchase Product B"],'
        '"Updated User Profile":{"Interest":["Product A","Product B"],'
        '"Purchase History":["Product B"]}}'
    )


def test_interest_goes_by_touches_and_what_is_undone_leaves() -> None:
    history = [event("view_item", "A"), event("view_item", "B"), event("add_to_cart", "B")]
    assert _interest(history) == ["Product B", "Product A"]
    history.append(event("remove_from_cart", "B"))
    assert _interest(history) == ["Product A", "Product B"]
    history += [event("purchase", "C"), event("refund", "C")]
    assert _interest(history) == ["Product A", "Product B"]


def _interest(history: list[EventRecord]) -> Any:
    return views.seed(fold(history), user_id="u")["Updated User Profile"]["Interest"]


def test_seed_shows_titles_verbs_and_the_last_50() -> None:
    types = {
        "view_item": "Browse", "add_to_cart": "Add", "add_to_wishlist": "Save",
        "purchase": "Purchase", "refund": "Return", "rate_item": "Rate",
        "select_item": "Open", "share": "Share", "try_on": "Try on",
    }  # fmt: skip
    seed = views.seed(
        fold([event(name, "A") for name in types]), user_id="u", title={"A": "Coffee"}.__getitem__
    )
    assert seed["User Behavior"] == [f"{word} Coffee" for word in types.values()]
    basket = [ItemRecord(str(i)) for i in range(200)]
    seed = views.seed(fold([event(), event("purchase", items=basket)]), user_id="u")
    assert seed["User Behavior"] == [f"Purchase Product {i}" for i in range(150, 200)]
    assert len(seed["Updated User Profile"]["Purchase History"]) == 200


@pytest.mark.parametrize(
    ("user_id", "shown"),
    [("123", 123), ("0", 0), ("007", "007"), ("12a", "12a"), ("-1", "-1"), ("٣", "٣"),
     ("9007199254740991", 2**53 - 1), ("9007199254740993", "9007199254740993"),
     ("9" * 128, "9" * 128)],
)  # fmt: skip
def test_a_user_id_of_digits_shows_as_a_number(user_id: str, shown: int | str) -> None:
    seed = views.seed(new(), user_id=user_id)
    assert seed["User ID"] == shown
    assert type(seed["User ID"]) is type(shown)


@given(histories(), st.integers(-10 * DAY_S, 500 * DAY_S))
def test_all_views_are_plain_json_at_any_moment(history: list[EventRecord], later_s: int) -> None:
    profile = fold(history)
    now_ms = (profile.last_at + later_s) * 1000 if history else 0
    learned = views.LearnedSummary("m1", 64, {"purchase_7d": (0.25, True)})
    full = views.full(profile, user_id="u", now_ms=now_ms, learned=learned)
    assert list(full) == FULL_KEYS
    for view in (
        full,
        views.summary(profile, user_id="u", now_ms=now_ms),
        views.seed(profile, user_id="u"),
    ):
        assert json.loads(json.dumps(view, allow_nan=False)) == view
    longs = [interest["long"] for interest in full["interests"]]
    assert longs == sorted(longs, reverse=True)
    assert all(interest["weight"] == interest["long"] >= 0 for interest in full["interests"])


def test_a_profile_without_events_is_whole() -> None:
    full = views.full(new(), user_id="u", now_ms=0)
    assert list(full) == FULL_KEYS
    assert full["updated_at"] is full["session"]["id"] is full["rfm"]["recency_days"] is None
    assert full["interests"] == full["recent"] == full["cycles"] == full["session"]["cart"] == []
    assert full["lifecycle"]["stage"] == "visitor"
    assert full["provenance"]["model"] is None


def test_full_reads_windows_batch_and_model() -> None:
    days = [0, 10, 20, 60, 80]
    profile = fold(
        [event("purchase", "A", at=START_S + d * DAY_S, value=10.0, channel="web") for d in days]
    )
    full = views.full(
        profile,
        user_id="u",
        now_ms=(START_S + 90 * DAY_S) * 1000,
        title={"A": "Coffee"}.__getitem__,
        batch={
            "rfm_recency_quintile": 5,
            "rfm_frequency_quintile": 4.0,
            "rfm_monetary_quintile": float("nan"),
        },
        learned=views.LearnedSummary(
            "m1", 64, {"purchase_7d": (0.25, True)}, [("Grocery/Tea", 0.5), ("Toys/Dolls", 0.1)]
        ),
    )
    rfm = full["rfm"]
    assert rfm["recency_days"] == 10.0
    assert rfm["frequency"] == {"28d": 1, "91d": 5}
    assert rfm["monetary"] == {"28d": 10.0, "91d": 50.0}
    assert rfm["quintiles"] == {"recency": 5, "frequency": 4, "monetary": None}
    assert rfm["segment"] == "champions"
    assert full["interests"][0]["title"] == full["recent"][0]["title"] == "Coffee"
    assert full["interests"][0]["evidence"] == {"view": 0, "cart": 0, "purchase": 5}
    assert full["cycles"][0]["mean_gap_days"] == 20.0
    assert full["habits"]["median_gap_days"] == 15.0
    assert full["habits"]["peak"]["hour"] == START_S % DAY_S // 3600
    assert full["affinities"]["channel"]["shares"] == {"web": 1.0}
    assert full["propensities"] == {"purchase_7d": {"p": 0.25, "calibrated": True, "model": "m1"}}
    assert full["next_categories"] == {
        "within_days": 14,
        "categories": [{"category": "Grocery/Tea", "p": 0.5}, {"category": "Toys/Dolls", "p": 0.1}],
        "calibrated": False,
        "model": "m1",
        "as_of": full["provenance"]["as_of"],
    }
    assert full["embedding"] == {"dim": 64, "model": "m1"}


@pytest.mark.parametrize(
    ("orders", "idle_days", "stage"),
    [(0, 1, "visitor"), (1, 1, "new"), (1, 60, "at_risk"), (1, 100, "lapsed"), (20, 5, "active"),
     (20, 20, "at_risk"), (20, 40, "lapsed")],
)  # fmt: skip
def test_lifecycle_measures_recency_by_the_users_own_gap(
    orders: int, idle_days: int, stage: str
) -> None:
    history = [event("purchase", "A", at=START_S + 7 * n * DAY_S) for n in range(orders)]
    profile = fold(history or [event()])
    now_ms = (profile.last_at + idle_days * DAY_S) * 1000
    assert views.full(profile, user_id="u", now_ms=now_ms)["lifecycle"]["stage"] == stage


def test_long_and_short_interest_part_ways() -> None:
    steady = [
        event("purchase", items=[ItemRecord("A", category="Old")], at=START_S + n * 7 * DAY_S)
        for n in range(40)
    ]
    end = START_S + 39 * 7 * DAY_S
    fresh = [
        event("view_item", items=[ItemRecord("B", category="Now")], at=end + n) for n in range(30)
    ]
    profile = fold([*steady, *fresh])
    found = {i["key"]: i for i in views.full(profile, user_id="u", now_ms=end * 1000)["interests"]}
    assert found["Old"]["long"] > 5 * found["Now"]["long"] / 3
    assert found["Now"]["short"] > found["Old"]["short"]
    assert (found["Old"]["trend"], found["Now"]["trend"]) == ("steady", "new")


def test_summary_speaks_plainly() -> None:
    def line(item_id: str) -> ItemRecord:
        return ItemRecord(item_id, price=2.0, category="Grocery/Coffee", brand="Blue")

    history = [
        event("purchase", items=[line("A"), line("B")], at=START_S + 7 * n * DAY_S)
        for n in range(4)
    ]
    profile = fold([*history, event("view_item", items=[line("A")], at=START_S + 22 * DAY_S)])
    summary = views.summary(
        profile, user_id="u", now_ms=(START_S + 23 * DAY_S) * 1000, title="Title {}".format
    )
    assert summary["stage"] == "active"
    assert summary["interests"][:2] == [
        "Grocery › Coffee (1 view, 4 purchases; last 1 day ago)",
        "Title A (1 view, 4 purchases; last 1 day ago)",
    ]
    assert summary["brands"] == ["Blue (100%)"]
    assert summary["habits"] == (
        "Most active on Tuesdays and around 22:00; orders every 7.0 days (median), "
        "2.0 lines an order."
    )
    assert summary["rfm"]["spend_91d"] == 16.0


def test_summary_shows_the_interest_score_with_its_parts() -> None:
    profile = new()
    without = views.summary(profile, user_id="7", now_ms=0)
    assert without["interest_score"] is None
    batch = {"num_carts_7d": 2, "rfm_recency_days": 14, "spend_28d": None}
    shown = views.summary(profile, user_id="7", now_ms=0, batch=batch)["interest_score"]
    assert {part["feature"] for part in shown["because"]} == {"num_carts_7d", "rfm_recency_days"}
    assert shown["score"] == pytest.approx(sum(part["adds"] for part in shown["because"]))
