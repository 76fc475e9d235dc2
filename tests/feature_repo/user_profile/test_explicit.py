"""Laws of the explicit profile: a fold, exact through its bytes, bounded, one-way."""

import math
import time

import msgspec
import pytest
from explicit_histories import DAY_S, START_S, event, histories
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.errors import ModelMismatchError
from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.user_profile import explicit, orders
from feature_repo.user_profile.explicit import apply, decode, encode, fold, new


@given(histories(), st.integers(0, 40))
def test_fold_of_a_then_b_is_fold_of_both(history: list[EventRecord], cut: int) -> None:
    assert encode(fold(history[cut:], fold(history[:cut]))) == encode(fold(history))


@given(histories())
def test_a_profile_survives_its_bytes_at_every_step(history: list[EventRecord]) -> None:
    direct, stored = new(), encode(new())
    for e in history:
        apply(direct, e)
        profile = decode(stored)
        apply(profile, e)
        stored = encode(profile)
        assert stored == encode(direct)
        assert decode(stored) == direct


@given(histories(), histories(max_size=5))
def test_profiles_share_no_state(history: list[EventRecord], other: list[EventRecord]) -> None:
    profile = fold(history)
    before = encode(profile)
    fold(other)
    fold(other, decode(before))
    assert encode(profile) == before
    assert encode(new()) == encode(fold([]))


@given(histories())
def test_version_counts_events_and_times_never_turn_back(history: list[EventRecord]) -> None:
    profile, last = new(), 0
    for n, e in enumerate(history, 1):
        apply(profile, e)
        assert profile.version == profile.event_count == n
        assert profile.last_at >= last
        last = profile.last_at


@given(histories())
def test_events_are_not_changed_by_the_fold(history: list[EventRecord]) -> None:
    before = [e.encode() for e in history]
    fold(history)
    assert [e.encode() for e in history] == before


def _shopping(n: int, *, name: str = "", spread: int = 5000) -> list[EventRecord]:
    """A heavy user: n events on ever new items, categories, brands, types and channels."""
    kinds = ["view_item", "add_to_cart", "purchase", "add_to_wishlist", "not_interested", "try_"]
    found = []
    for i in range(n):
        kind = kinds[i % len(kinds)]
        items = [
            ItemRecord(
                f"{name}{1_000_000 + (i * 7 + k * 131) % spread}",
                price=1.0 + k,
                category=f"{name[:40]}D{i % 9}/{name[:40]}C{(i + k) % 300}/leaf",
                brand=f"{name}brand{(i * 3 + k) % 200}",
            )
            for k in range(3)
        ]
        found.append(
            event(
                kind + str(i % 40) if kind == "try_" else kind,
                at=START_S + i * 3 * 3600,
                items=items,
                channel=f"{name}{i % 20}",
                linked=f"link{i % 50}",
                consent={f"{name}{i % 70}": True},
            )
        )
    return found


def test_size_and_time_stay_flat_over_ten_thousand_events() -> None:
    history = _shopping(10_000)
    profile, sizes, seconds = new(), [], []
    for at in range(0, 10_000, 500):
        start = time.process_time()
        fold(history[at : at + 500], profile)
        seconds.append(time.process_time() - start)
        sizes.append(len(encode(profile)))
    assert max(sizes[10:]) < 1.1 * max(sizes[5:10])
    assert max(sizes) < 16 * 1024
    assert min(seconds[-5:]) < 3 * min(seconds[5:10])


@pytest.mark.parametrize(
    ("name", "bound"),
    [("\U0001f600" * 118, explicit.MAX_ENCODED_BYTES), ("x" * 13, 32 * 1024), ("", 8 * 1024)],
)
def test_the_hard_cap_holds_for_names_of_any_length(name: str, bound: int) -> None:
    profile = fold(_shopping(3000, name=name))
    for e in _shopping(120, name=name):
        e.type, e.session_id = "add_to_cart", name
        apply(profile, e)
    assert len(encode(profile)) <= bound


def test_huge_amounts_keep_the_profile_storable() -> None:
    line = ItemRecord("1", quantity=1e6, price=1e9)
    profile = new()
    for i in range(20_000):
        apply(profile, event("purchase", at=START_S, items=[line], order_id=f"{i}", value=1e12))
    assert decode(encode(profile)).orders.spend > 0


def test_every_container_is_within_its_bound() -> None:
    profile = fold(_shopping(3000))
    assert sum(len(group.items) for group in profile.recent) == explicit.MAX_RECENT
    assert len(profile.items) <= explicit.ITEM_CAPACITY.most
    assert len(profile.categories) <= explicit.CATEGORY_CAPACITY.most
    assert len(profile.brands) <= explicit.BRAND_CAPACITY.most
    assert len(explicit.purchased_items(profile)) == orders.MAX_HISTORY
    assert len(explicit.seen_items(profile)) <= orders.MAX_HISTORY + explicit.MAX_SEEN
    assert len(explicit.refused_items(profile)) <= explicit.MAX_REFUSED
    assert len(profile.channels) == explicit.MAX_CHANNELS + 1
    assert len([key for key in profile.counts if isinstance(key, str)]) == 17
    assert sum(profile.counts.values()) == 3000
    assert profile.orders.span < 91


def test_a_full_table_keeps_the_heaviest_and_the_newest() -> None:
    profile = new()
    for day in range(60):
        apply(profile, event("purchase", "staple", at=START_S + day * 7 * DAY_S))
        items = [ItemRecord(f"{day}-{k}") for k in range(20)]
        apply(profile, event("purchase", at=START_S + day * 7 * DAY_S + 60, items=items))
    assert profile.items["staple"].purchases == 60
    apply(profile, event("view_item", "just seen", at=START_S + 420 * DAY_S))
    assert "just seen" in profile.items


def test_bytes_hold_no_float() -> None:
    def walk(value: object) -> bool:
        if isinstance(value, dict):
            return any(map(walk, [*value, *value.values()]))
        if isinstance(value, list):
            return any(map(walk, value))
        return isinstance(value, float)

    assert not walk(msgspec.msgpack.decode(encode(fold(_shopping(100))), strict=False))


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xc1rubbish", msgspec.msgpack.encode([])[:0]])
def test_bytes_that_are_no_profile_are_refused(data: bytes) -> None:
    with pytest.raises(ModelMismatchError, match="rebuild it from the log"):
        decode(data)


def test_a_profile_of_another_schema_is_refused() -> None:
    profile = new()
    profile.schema = explicit.SCHEMA + 1
    with pytest.raises(ModelMismatchError, match="schema"):
        decode(encode(profile))


def test_a_weight_halves_in_its_half_life() -> None:
    profile = fold([event("purchase", "1"), event("purchase", "1", at=START_S + 112 * DAY_S)])
    assert math.isclose(profile.items[1].long, 1_500_000)
    assert math.isclose(profile.items[1].short, 1_000_000 * (1 + 2**-16), abs_tol=1)
