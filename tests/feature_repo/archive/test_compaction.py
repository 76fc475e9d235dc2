"""Merging small archive parts: the same events at any moment, for every kind of reader."""

import random
import threading
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from feature_repo.archive import compaction
from feature_repo.archive.compaction import compact
from feature_repo.archive.event_archive import SCHEMA, Archive, LogPosition, Span, write_part
from feature_repo.events.schema import EventRecord, ItemRecord
from tests.feature_repo.crashes import Crash, CrashAfter

USERS = {p: [f"{{p{p:03d}}}" + letter * 26 for letter in "abcd"] for p in range(3)}


def event(name: str, user: str, items: int = 0) -> EventRecord:
    return EventRecord(
        id=name, type="view_item", user=user, time_ms=5, received_ms=6, properties={"k": name},
        items=[ItemRecord(f"i{n}", 1.0, 2.5, "A/B") for n in range(items)],
    )  # fmt: skip


def fill(
    archive: Archive, partitions: int = 2, spans: int = 10, each: int = 3
) -> dict[int, LogPosition]:
    """Write ``spans`` parts for every partition and some history; return how far each is."""
    choose = random.Random(7)
    archive.append("import-shop-1", [(LogPosition.imported(9), event("old", USERS[0][0]))])
    ends = dict[int, LogPosition]()
    for partition in range(partitions):
        at = LogPosition(0, 0)
        for span in range(spans):
            entries = [
                (
                    LogPosition(100 + span, n),
                    event(f"e{partition}-{span}-{n}", choose.choice(USERS[partition]), n % 3),
                )
                for n in range(each)
            ]
            until = entries[-1][0]
            assert archive.extend(Span(partition, at, until), entries) == each
            at = until
        ends[partition] = at
    return ends


def test_many_small_parts_become_one_for_each_partition(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "events")
    ends = fill(archive)
    before = list(archive.histories())
    assert compact(archive, ends, many=21) == 0
    assert compact(archive, ends, many=20) == 20
    assert [part.name for part in archive.parts()] == [
        "import-shop-1.parquet", "p000-0-0-109-2.parquet", "p001-0-0-109-2.parquet"
    ]  # fmt: skip
    assert list(archive.histories()) == before
    for part in archive.parts():
        assert pq.read_schema(part).equals(SCHEMA)
        users = pq.read_table(part).column("user").to_pylist()
        assert users == sorted(users)
    assert compact(archive, ends, many=1) == 0


@pytest.mark.parametrize("newest", ["first", "last", "none"])
def test_parts_that_lack_newer_columns_are_merged_with_others(tmp_path: Path, newest: str) -> None:
    archive = Archive(tmp_path / "events")
    ends = fill(archive, partitions=1)
    before = list(archive.histories())
    parts = archive.parts_of(0, LogPosition(0, 0))
    for part in {"first": parts[1:], "last": parts[:-1], "none": parts}[newest]:
        write_part(part, pq.read_table(part).drop_columns(["key"]))
    assert list(archive.histories()) == before
    assert compact(archive, ends, many=1) == 10
    assert list(archive.histories()) == before
    merged = pq.read_table(archive.parts()[-1])
    assert merged.schema.equals(SCHEMA)
    assert merged.column("key").null_count == len(merged) == 30


def test_what_the_store_does_not_know_to_be_archived_is_left(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "events")
    ends = fill(archive)
    assert compact(archive, {0: LogPosition(107, 2)}, many=1) == 8
    names = {part.name for part in archive.parts()}
    assert {"p000-0-0-107-2.parquet", "p000-107-2-108-2.parquet"} <= names
    assert len(names) == 1 + 3 + 10
    # A part whose entries the archive holds by now under another name is not written again.
    span = Span(0, LogPosition(103, 2), LogPosition(104, 2))
    entries = [(LogPosition(104, n), event(f"e0-4-{n}", USERS[0][0])) for n in range(3)]
    assert archive.extend(span, entries) == 0
    other = (LogPosition(104, 1), event("x", USERS[0][0]))
    assert archive.extend(span, [*entries, other]) == 1
    assert compact(archive, ends, many=1) == 10
    assert sum(len(history) for _, history in archive.histories()) == 1 + 60 + 1


def test_parts_stay_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MOST_ROWS", 30)
    archive = Archive(tmp_path / "events")
    ends = fill(archive, partitions=1, spans=28)
    before = list(archive.histories())
    assert compact(archive, ends, many=1) == 28 // 10 * 10 + 8
    rows = [pq.read_metadata(part).num_rows for part in archive.parts()]
    assert sorted(rows) == [1, 24, 30, 30]
    assert list(archive.histories()) == before


def test_large_parts_are_not_rewritten_with_every_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(tmp_path / "events")
    ends = fill(archive, partitions=1, spans=40, each=30)
    largest = max(part.stat().st_size for part in archive.parts())
    monkeypatch.setattr(compaction, "_TIERS", (largest, 100 * largest))
    assert compact(archive, ends, many=1) == 40
    [old] = archive.parts_of(0, LogPosition(0, 0))
    assert old.stat().st_size > largest
    identity, at = old.stat().st_ino, ends[0]
    for n in range(8):
        until = LogPosition(200 + n, 0)
        assert archive.extend(Span(0, at, until), [(until, event(f"x{n}", USERS[0][0]))])
        at = until
    assert compact(archive, {0: at}, many=1) == 8
    kept, new = archive.parts_of(0, LogPosition(0, 0))
    assert (kept.name, kept.stat().st_ino) == (old.name, identity)
    assert pq.read_metadata(new).num_rows == 8


def test_readers_see_every_event_once_throughout(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "events")
    ends = fill(archive, partitions=3, spans=8)
    wanted = (1 + 3 * 8 * 3,) * 2
    stop, reads = threading.Event(), 0
    failures = list[object]()

    def read() -> None:
        nonlocal reads
        query = "SELECT count(*), count(DISTINCT event_id) FROM read_parquet(?)"
        with duckdb.connect() as connection:
            while not stop.is_set():
                for source in (archive.glob(), [str(part) for part in archive.parts()]):
                    found = connection.execute(query, [source]).fetchone()
                    if found != wanted:
                        failures.append(found)
                reads += 1

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for partition in range(3):
            before = reads
            assert compact(archive, {partition: ends[partition]}, many=1) == 8
            while reads < before + 2 and thread.is_alive():
                stop.wait(0.001)
    finally:
        stop.set()
        thread.join()
    assert reads
    assert failures == []


def test_a_kill_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(200):
        archive = Archive(tmp_path / str(at) / "events")
        ends = fill(archive, partitions=1, spans=8, each=1)
        before = list(archive.histories())
        with monkeypatch.context() as patch:
            CrashAfter(at).over_files(patch)
            try:
                compact(archive, ends, many=1)
                ended = True
            except Crash:
                ended = False
        again = Archive(archive.root)
        assert list(again.histories()) == before
        compact(again, ends, many=1)
        assert list(again.histories()) == before
        assert len(again.parts()) == 2
        compact(again, ends, many=1, grace_s=0)
        assert len(list(again.part_set.generations.iterdir())) == 1
        if ended:
            assert at > 10
            return
    pytest.fail("never came to an end")


def test_a_merge_that_lost_a_row_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(tmp_path / "events")
    ends = fill(archive, partitions=1)
    before = archive.parts()
    real = compaction.part_writer

    class Losing:
        def __init__(self, *given: object) -> None:
            self.inner = real(*given)  # type: ignore[arg-type]

        def __enter__(self) -> object:
            writer = self.inner.__enter__()
            write = writer.write_batch
            writer.write_batch = lambda batch: write(batch.slice(1))
            return writer

        def __exit__(self, *given: object) -> None:
            self.inner.__exit__(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(compaction, "part_writer", Losing)
    with pytest.raises(OSError, match="29 of 30 events"):
        compact(archive, ends, many=1)
    assert archive.parts() == before
