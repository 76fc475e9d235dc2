"""What a batch of events does to rows: order, batches, poison, models."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.online.live_row import LiveState
from feature_repo.user_profile import explicit
from services.models.transition import Transition

PSEUDONYMS = Pseudonyms(key=b"0" * 16, partitions=4)


class Sum:
    """A stand-in encoder: the state is the list of event ids seen."""

    def __init__(self, version: str = "sum-1") -> None:
        self.version = version
        self.batches = list[int]()

    def replay(self, histories: list[list[EventRecord]], states: list[bytes | None]) -> list[bytes]:
        self.batches.append(len(histories))
        if any(event.id.startswith("poison") for events in histories for event in events):
            raise ValueError("poison")
        return [
            (s or b"") + b"".join(e.id.encode() + b";" for e in h)
            for s, h in zip(states, histories, strict=True)
        ]


def event(user: str, name: str, time_ms: int = 1_700_000_000_000) -> EventRecord:
    return EventRecord(
        id=name, type="view_item", user=PSEUDONYMS.of_user(user), time_ms=time_ms,
        received_ms=time_ms, items=[ItemRecord("A")],
    )  # fmt: skip


def test_the_users_of_a_batch_move_side_by_side() -> None:
    learned = Sum()
    events = [event("a", "1"), event("b", "2"), event("a", "3"), event("a", "4"), event("b", "5")]
    rows, poison = Transition(learned).apply({}, events)
    assert (learned.batches, poison) == ([2], {})
    assert rows[PSEUDONYMS.of_user("a")].learned == b"1;3;4;"
    assert rows[PSEUDONYMS.of_user("b")].learned == b"2;5;"


@given(st.lists(st.sampled_from("abc"), max_size=12), st.integers(0, 12))
def test_two_batches_equal_one(users: list[str], cut: int) -> None:
    events = [event(user, str(n)) for n, user in enumerate(users)]
    transition = Transition(Sum())
    once, _ = transition.apply({}, events)
    first, _ = transition.apply({}, events[:cut])
    second, _ = transition.apply(first, events[cut:])
    assert {**first, **second} == once


def test_a_poison_event_changes_nothing_and_stops_nobody() -> None:
    events = [event("a", "1"), event("a", "poison"), event("b", "2"), event("a", "3")]
    rows, poison = Transition(Sum()).apply({}, events)
    assert list(poison) == [1]
    clean, _ = Transition(Sum()).apply({}, [e for e in events if e.id != "poison"])
    assert rows == clean


def test_an_order_told_again_moves_the_profile_and_no_learned_state() -> None:
    def order(name: str, order_id: str) -> EventRecord:
        return structs.replace(event("a", name), type="purchase", order_id=order_id)

    rows, _ = Transition(Sum()).apply({}, [order("1", "o"), order("2", "p"), order("3", "o")])
    row = rows[PSEUDONYMS.of_user("a")]
    assert (row.learned, row.version) == (b"1;2;", 3)
    rows, _ = Transition(Sum()).apply(rows, [order("4", "p")])
    assert (rows[PSEUDONYMS.of_user("a")].learned, rows[PSEUDONYMS.of_user("a")].version) == (
        b"1;2;",
        4,
    )


def test_a_row_of_another_model_stays_cold_until_rebuilt() -> None:
    old = LiveState(explicit.encode(explicit.fold([event("a", "0")])), b"x", 1, "other", 0)
    rows, _ = Transition(Sum()).apply({PSEUDONYMS.of_user("a"): old}, [event("a", "1")])
    row = rows[PSEUDONYMS.of_user("a")]
    assert (row.learned, row.model, row.version) == (b"", "", 2)


def test_an_event_that_only_the_profile_refuses_leaves_both_halves_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = explicit.apply

    def fussy(profile: explicit.ExplicitProfile, one: EventRecord) -> bool:
        if one.id == "bad":
            raise ArithmeticError
        return whole(profile, one)

    monkeypatch.setattr(explicit, "apply", fussy)
    events = [event("a", "1"), event("a", "bad"), event("b", "2"), event("a", "3")]
    rows, poison = Transition(Sum()).apply({}, events)
    assert poison == {1: "ArithmeticError while applying"}
    assert rows == Transition(Sum()).apply({}, [e for e in events if e.id != "bad"])[0]


def test_an_unreadable_row_stops_only_its_user() -> None:
    broken = LiveState(b"no profile", b"", 3, "", 0)
    rows, poison = Transition(None).apply(
        {PSEUDONYMS.of_user("a"): broken}, [event("a", "1"), event("b", "2")]
    )
    assert list(rows) == [PSEUDONYMS.of_user("b")]
    assert poison == {0: "unreadable row: ModelMismatchError"}


def test_rows_follow_their_own_model_and_new_users_the_target() -> None:
    models = {"old": Sum("old"), "new": Sum("new")}
    transition = Transition(models["old"], models.get)
    rows, _ = transition.apply({}, [event("a", "1")])
    transition.adopt("new")
    rows |= transition.apply(rows, [event("a", "2"), event("b", "3")])[0]
    assert (rows[PSEUDONYMS.of_user("a")].model, rows[PSEUDONYMS.of_user("a")].learned) == (
        "old",
        b"1;2;",
    )
    assert (rows[PSEUDONYMS.of_user("b")].model, rows[PSEUDONYMS.of_user("b")].learned) == (
        "new",
        b"3;",
    )


def test_a_target_may_hold_for_one_partition() -> None:
    models = {"old": Sum("old"), "new": Sum("new")}
    transition = Transition(models["old"], models.get)
    here = int(PSEUDONYMS.of_user("a")[2:5])
    other = next(n for n in map(str, range(99)) if int(PSEUDONYMS.of_user(n)[2:5]) != here)
    transition.adopt("new", here)
    rows, _ = transition.apply({}, [event("a", "1"), event(other, "2")])
    assert [rows[PSEUDONYMS.of_user(user)].model for user in ("a", other)] == ["new", "old"]
