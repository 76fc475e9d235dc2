"""The archive: whole parts or none, and events come back as they went in, in fold order."""

from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.archive.event_archive import SCHEMA, Archive, LogPosition, to_table
from feature_repo.events.schema import EventRecord, ItemRecord

USERS = [f"{{p00{n}}}" + "abcdefgh"[n] * 26 for n in range(3)]
text = st.text(max_size=8)
number = st.floats(0, 1e6)
items = st.builds(
    ItemRecord, item_id=text, quantity=number, price=st.none() | number,
    category=st.none() | text, position=st.none() | st.integers(0, 99), discount=st.none() | number,
)  # fmt: skip
records = st.builds(
    EventRecord, id=st.uuids().map(str), type=st.sampled_from(["view_item", "purchase", "odd"]),
    user=st.sampled_from(USERS), time_ms=st.integers(0, 4_102_444_800_000),
    received_ms=st.integers(0, 4_102_444_800_000), items=st.lists(items, max_size=3),
    query=st.none() | text, consent=st.none() | st.dictionaries(text, st.booleans(), max_size=2),
    properties=st.none() | st.dictionaries(text, st.integers(-5, 5), max_size=2),
    anonymous=st.booleans(),
)  # fmt: skip
positions = st.builds(LogPosition, st.integers(0, 3), st.integers(0, 3))


def event(name: str, time_ms: int, user: str = USERS[0]) -> EventRecord:
    return EventRecord(id=name, type="view_item", user=user, time_ms=time_ms, received_ms=time_ms)


@settings(max_examples=30)
@given(entries=st.lists(st.tuples(positions, records), max_size=12), cut=st.integers(0, 12))
def test_what_goes_in_comes_out_in_fold_order(
    tmp_path_factory: pytest.TempPathFactory,
    entries: list[tuple[LogPosition, EventRecord]],
    cut: int,
) -> None:
    archive = Archive(tmp_path_factory.mktemp("archive"))
    archive.append("b", entries[:cut])
    archive.append("a", entries[cut:])
    expected = sorted(entries, key=lambda e: (e[1].user, e[0].ms, e[0].seq, e[1].id))
    found = list(archive.histories())
    assert [r for _, history in found for r in history] == [r for _, r in expected]
    assert [u for u, _ in found] == sorted({r.user for _, r in entries})
    assert all(r.user == user for user, history in found for r in history)


def test_columns_tell_what_the_record_tells(tmp_path: Path) -> None:
    line = ItemRecord("A", 2.0, 3.5, "Grocery/Tea", "Brand", discount=0.5)
    one = EventRecord(
        id="e", type="purchase", user=USERS[0], time_ms=1_500, received_ms=2_500, items=[line],
        order_id="o", value=6.5, source="shop", consent={"ads": False}, properties={"k": 1},
    )  # fmt: skip
    archive = Archive(tmp_path)
    archive.append("p", [(LogPosition(7, 8), one)])
    row = duckdb.sql(
        f"SELECT epoch_ms(time), epoch_ms(received), log_ms, log_seq, order_id, value, consent, "
        f"properties, items[1].item_id, items[1].discount, source FROM '{archive.glob()}'"
    ).fetchall()
    assert row == [(1500, 2500, 7, 8, "o", 6.5, '{"ads":false}', '{"k":1}', "A", 0.5, "shop")]
    assert to_table([]).schema == SCHEMA


def test_a_part_written_twice_stays_as_it_is(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    first = archive.append("p", [(LogPosition(0, 1), event("a", 1))])
    before = first.read_bytes()
    assert archive.append("p", [(LogPosition(0, 2), event("b", 2))]) == first
    assert first.read_bytes() == before
    assert archive.parts() == [first]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    archive = Archive(tmp_path)
    monkeypatch.setattr("feature_repo.archive.part_set.os.fsync", fail)
    with pytest.raises(OSError, match="space"):
        archive.append("p", [(LogPosition(0, 1), event("a", 1))])
    assert list(tmp_path.iterdir()) == []
    assert archive.empty()


def test_time_bounds_and_users(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.append("p", [(LogPosition.imported(t), event(f"e{t}", t)) for t in (10, 20, 30)])
    archive.append("q", [(LogPosition(5, 0), event("other", 20, USERS[1]))])

    def ids(**bounds: int) -> list[str]:
        return [e.id for _, h in archive.histories(**bounds) for e in h]

    assert ids(since_ms=10, until_ms=20) == ["e10"]
    assert ids(since_ms=20) == ["e20", "e30", "other"]
    assert [u for u, _ in archive.histories([USERS[1]])] == [USERS[1]]
    assert list(archive.histories([])) == []


def test_history_comes_before_everything_live(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.append("live", [(LogPosition(1, 0), event("live", 5))])
    archive.append("old", [(LogPosition.imported(9), event("old", 9))])
    ((_, history),) = archive.histories()
    assert [e.id for e in history] == ["old", "live"]


def test_an_empty_archive_has_no_histories(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "new")
    assert archive.empty()
    assert list(archive.histories()) == []
