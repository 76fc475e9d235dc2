"""An order that is told again: at any distance, in any parts, live and in the tables alike."""

import tempfile
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from explicit_histories import DAY_S, START_S, event
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from retold import told

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.audiences.index import Index
from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.features import snapshots
from feature_repo.user_profile.amounts import amount
from feature_repo.user_profile.compact import pack_id
from feature_repo.user_profile.explicit import ExplicitProfile, apply, decode, encode, fold, new
from feature_repo.user_profile.order_days import window
from feature_repo.user_profile.order_memory import MEMORY_EVENTS, recall, remember, without_repeats

LINES = [1, 2, 3, 199, 200]


@st.composite
def purchases(draw: st.DrawFn) -> list[EventRecord]:
    """Purchases of few or many orders, some as long as an event can be, days or months apart."""
    orders = draw(st.sampled_from(["ab", "abcdefgh", [f"o{n}" for n in range(40)]]))
    found, at = list[EventRecord](), START_S
    for n in range(draw(st.integers(0, 80))):
        at += draw(st.sampled_from([0, 60, DAY_S, 30 * DAY_S, 91 * DAY_S, 92 * DAY_S, -DAY_S]))
        price = draw(st.sampled_from([1.0, None]))
        lines = [ItemRecord(f"i{k}", price=price) for k in range(draw(st.sampled_from(LINES)))]
        value = draw(st.sampled_from([None, 0.0, 12.5, 1e12]))
        made = event("purchase", at=at, items=lines, value=value,
                     order_id=draw(st.sampled_from(orders)))  # fmt: skip
        found.append(msgspec.structs.replace(made, id=f"e{n:03d}"))
    return found


@given(purchases())
@settings(max_examples=40)
def test_what_is_told_again_takes_the_place_of_what_was_told(history: list[EventRecord]) -> None:
    state = fold(history).orders
    wanted = told(history)
    assert state.count == sum(each.is_new for each in wanted)
    assert state.spend == sum(amount(e.event) for e in wanted) - sum(
        amount(e.instead_of) for e in wanted if e.instead_of
    )
    assert state.lines == sum(len(e.event.items) for e in wanted) - sum(
        len(e.instead_of.items) for e in wanted if e.instead_of
    )
    assert len(state.recent) < MEMORY_EVENTS * 16


@given(purchases())
@settings(max_examples=40)
def test_a_history_without_repeats_holds_what_moves_a_learned_state(
    history: list[EventRecord],
) -> None:
    expected = [each.event for each in told(history) if each.instead_of is None]
    profile = new()
    assert [each for each in history if apply(profile, each)] == expected
    assert without_repeats(history) == expected


def test_a_repeat_counts_once_and_its_new_amount_holds() -> None:
    first = event("purchase", "A", order_id="o1", value=50.0)
    other = event("purchase", "B", order_id="o2", value=7.0, at=START_S + 60)
    again = event("purchase", "A", "C", order_id="o1", value=30.0, at=START_S + DAY_S)
    state = fold([first, other, first, other, again, again]).orders
    assert (state.count, state.spend, state.lines) == (2, 37_000, 3)
    assert window(state, (START_S + DAY_S) // DAY_S, 28) == (2, 37_000)


def test_an_order_told_again_without_an_amount_keeps_the_one_it_had() -> None:
    first = event("purchase", "A", order_id="o", value=50.0)
    silent = event("purchase", "A", "B", order_id="o", at=START_S + 60)
    state = fold([first, silent, silent]).orders
    assert (state.count, state.spend, state.lines) == (1, 50_000, 1)
    for value in (30.0, 0.0):  # 0 is an amount
        again = msgspec.structs.replace(silent, value=value)
        state = fold([first, silent, again, silent]).orders
        assert (state.count, state.spend, state.lines) == (1, value * 1000, 2)


@pytest.mark.parametrize("sizes", [(200, 50), (200, 200, 1), (200, 200, 200, 30)])
def test_a_split_order_adds_up_in_whichever_order_its_parts_come(
    sizes: tuple[int, ...], tmp_path: Path
) -> None:
    arrivals = sorted(set(permutations(sizes)))
    histories = [
        [_part(n, size, at=START_S + n * 60) for n, size in enumerate(arrival)]
        for arrival in arrivals
    ]
    whole = sum(sizes)
    for history in histories:
        state = fold([history[0], event("purchase", "A", order_id="x"), *history[1:]]).orders
        assert (state.count, state.spend, state.lines) == (2, whole * 1000, whole + 1)
    log = [
        msgspec.structs.replace(e, user=f"{{p000}}{n}")
        for n, history in enumerate(histories) for e in history
    ]  # fmt: skip
    _archive(tmp_path, log)
    with Index(tmp_path) as index:
        rows = index.rows("SELECT num_orders, spend_m FROM facts", {})
    assert rows == [(1, whole * 1000)] * len(arrivals)
    snapshots.build(tmp_path, until=datetime.fromtimestamp(START_S + 9 * DAY_S, UTC))
    found = pq.read_table(tmp_path / "features" / "profile").to_pylist()
    assert {(row["num_orders_total"], row["spend_total"], row["mean_basket_lines"])
            for row in found} == {(1, whole, whole)}  # fmt: skip


def _part(number: int, size: int, at: int) -> EventRecord:
    lines = [ItemRecord(f"i{number}-{k}", price=1.0) for k in range(size)]
    made = event("purchase", at=at, items=lines, order_id="o")
    return msgspec.structs.replace(made, id=f"e{number}")


def _archive(home: Path, log: list[EventRecord]) -> None:
    entries = [(LogPosition(1 + n, 0), e) for n, e in enumerate(log)]
    Archive(home / "archive" / "events").append("part", entries)


def _older_row(*events: EventRecord) -> ExplicitProfile:
    """A row as it was before orders were remembered: only the id of the last one is known."""
    profile = fold(events)
    profile.orders.recent = b""
    profile.orders.last_id = pack_id(events[-1].order_id or events[-1].id)
    raw = msgspec.msgpack.decode(encode(profile))
    place = raw.index(msgspec.msgpack.decode(profile.packed_orders))
    del raw[place][-1]
    return decode(msgspec.msgpack.encode(raw))


@pytest.mark.parametrize("order_id", ["o1", "12", None])
def test_the_last_order_of_a_row_without_a_memory_is_known(order_id: str | None) -> None:
    last = event("purchase", "A", order_id=order_id, value=5.0)
    older = _older_row(event("purchase", "B", order_id="0", value=1.0), last)
    assert (older.orders.spend, older.orders.recent) == (6000, b"")
    state = fold([last], older).orders
    assert (state.count, state.spend, state.lines) == (2, 6000, 2)
    again = msgspec.structs.replace(last, value=4.0)
    other = event("purchase", "A", order_id="0", value=2.0)
    state = fold([again, other], older).orders
    assert (state.count, state.spend, state.lines) == (3, 7000, 3)


@pytest.mark.parametrize("day", [0, 1, 20_000, 65_535])
@pytest.mark.parametrize("money", [0, 127, 10**15])
def test_the_memory_keeps_the_last_events(day: int, money: int) -> None:
    memory = b""
    for n in range(MEMORY_EVENTS + 3):
        memory = remember(memory, f"o{n}", day, n, money)
    assert [n for n in range(MEMORY_EVENTS + 3) if recall(memory, f"o{n}", day)] == list(
        range(3, MEMORY_EVENTS + 3)
    )
    assert recall(memory, "o5", day) == (5, money)
    assert recall(memory, "o5", day + 92) is None


@given(st.lists(purchases(), min_size=9, max_size=9))
@settings(max_examples=2, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
def test_tables_tell_the_same(histories: list[list[EventRecord]]) -> None:
    """The SQL of audiences is the fold; that of snapshots is held to its oracle elsewhere."""
    log = [
        msgspec.structs.replace(e, user=f"{{p000}}{n}")
        for n, history in enumerate(histories) for e in history
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        _archive(Path(folder), log)
        with Index(Path(folder)) as index:
            rows = index.rows("SELECT num_orders, spend_m FROM facts ORDER BY u", {})
            money = index.rows("SELECT sum(amount_m) FROM events GROUP BY u ORDER BY u", {})
    states = [fold(history).orders for history in histories if history]
    assert rows == [(state.count, state.spend) for state in states]
    assert money == [(state.spend,) for state in states]
