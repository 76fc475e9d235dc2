"""The archive after an erasure: nothing of the erased in any byte, everybody else as before."""

import fcntl
import shutil
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from crashes import Crash, CrashAfter
from erasure_search import search
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.archive.compaction import compact
from feature_repo.archive.event_archive import Archive, LogPosition, Span, write_part
from feature_repo.erasure.archive_parts import erase_archive, rewrite_archive
from feature_repo.events.schema import EventRecord

USERS = [f"{{p000}}{letter * 26}" for letter in "abcdef"]
Histories = list[tuple[str, list[EventRecord]]]


def event(name: str, user: str, linked: str | None = None) -> EventRecord:
    mark = f"marker-of-{user[6:10]}"
    return EventRecord(
        id=f"{mark}-{name}", type="view_item", user=user, time_ms=5, received_ms=6, linked=linked,
        url=f"https://x.example/{mark}", properties={"k": mark},
    )  # fmt: skip


def marks(users: set[str]) -> list[str]:
    return [text for user in users for text in (user, f"marker-of-{user[6:10]}")]


def fill(home: Path, spans: list[list[tuple[str, str | None]]]) -> tuple[Archive, LogPosition]:
    """Write a part of history and one of each span of the log."""
    archive, at = Archive(home / "archive" / "events"), LogPosition(0, 0)
    archive.append("import-s-1", [(LogPosition.imported(n), event(f"o{n}", u))
                                  for n, u in enumerate(USERS)])  # fmt: skip
    for number, chosen in enumerate(spans):
        entries = [(LogPosition(100 + number, n), event(f"{number}-{n}", user, linked))
                   for n, (user, linked) in enumerate(chosen)]  # fmt: skip
        archive.extend(Span(0, at, entries[-1][0]), entries)
        at = entries[-1][0]
    return archive, at


def without(histories: Histories, gone: set[str]) -> Histories:
    kept = [(user, events) for user, events in histories if user not in gone]
    for _, events in kept:
        for one in events:
            one.linked = None if one.linked in gone else one.linked
    return kept


SPANS = st.lists(
    st.lists(st.tuples(st.sampled_from(USERS), st.none() | st.sampled_from(USERS)),
             min_size=1, max_size=4),
    min_size=1, max_size=12,
)  # fmt: skip


@settings(max_examples=8)
@given(SPANS, st.sets(st.sampled_from(USERS)), st.booleans(), st.booleans())
def test_nothing_is_left_of_the_erased_and_all_of_the_others(
    spans: list[list[tuple[str, str | None]]], gone: set[str], merged: bool, plain: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if plain:
            (home / "archive" / "events").mkdir(parents=True)
        archive, end = fill(home, spans)
        if merged:
            compact(archive, {0: end}, many=1)
        before = list(archive.histories())
        listed = archive.parts()
        untouched = {p.name: p.stat().st_ino for p in listed
                     if not search(p.parent, marks(gone)) or not gone}  # fmt: skip
        rows = sum(one.user in gone or one.linked in gone for _, h in before for one in h)
        for expected in (rows, 0):  # again: nothing is found
            removal = erase_archive(home, gone)
            assert (removal.found, removal.removed) == (expected, expected)
            assert removal.waits_until_ms is None
            assert list(archive.histories()) == without(before, gone)
            assert search(home, marks(gone)) == []
        for part in listed:  # who had listed them reads on
            assert set(pq.read_table(part)["user"].to_pylist()).isdisjoint(gone)
        assert untouched.items() <= {p.name: p.stat().st_ino for p in archive.parts()}.items()


def test_parts_without_the_erased_are_not_written_again(tmp_path: Path) -> None:
    archive, _ = fill(tmp_path, [[(USERS[0], None)], [(USERS[1], USERS[2])]])
    before = {path.name: path.stat().st_ino for path in archive.parts()}
    erase_archive(tmp_path, {USERS[0]})
    after = {path.name: path.stat().st_ino for path in archive.parts()}
    assert before.keys() - after.keys() == {"p000-0-0-100-0.parquet"}
    assert {name for name in after if after[name] != before[name]} == {"import-s-1.parquet"}


def test_a_file_is_read_once_in_however_many_generations_it_stands(tmp_path: Path) -> None:
    spans = [[(user, None)] for user in USERS]
    archive, end = fill(tmp_path, spans)
    erase_archive(tmp_path, {USERS[5]})  # each makes a generation
    erase_archive(tmp_path, {USERS[4]})
    compact(archive, {0: end}, many=1)
    parts, read = archive.part_set, list[int]()
    generations = {path.stat().st_ino for path in parts.generations.rglob("*.parquet")}
    assert len(list(parts.generations.rglob("*.parquet"))) > len(generations) > 1

    def count(path: Path) -> int:
        read.append(path.stat().st_ino)
        return 0

    rewrite_archive(tmp_path, count, lambda table: table)
    assert sorted(read) == sorted(generations)


def test_what_killed_writers_left_goes_too(tmp_path: Path) -> None:
    archive, _ = fill(tmp_path, [[(USERS[0], None)]])
    parts = archive.part_set
    shutil.copy(archive.parts()[0], parts.scratch())
    shutil.copy(archive.parts()[0], parts.folder() / ".x.parquet.0123.tmp")
    spill = parts.generations / "0123.spill"
    spill.mkdir()
    (spill / "block").write_text(USERS[0])
    assert len(search(tmp_path, [USERS[0]])) == 5
    erase_archive(tmp_path, {USERS[0]})
    assert search(tmp_path, marks({USERS[0]})) == []


def test_an_archiver_goes_on_and_a_compaction_waits(tmp_path: Path) -> None:
    archive, end = fill(tmp_path, [[(user, None)] for user in USERS * 2])
    later = LogPosition(500, 0)
    with archive.part_set.rewriting():
        assert compact(archive, {0: end}, many=1) == 0
        assert archive.extend(Span(0, end, later), [(later, event("new", USERS[1]))]) == 1
    assert compact(archive, {0: end}, many=1) == 12
    erase_archive(tmp_path, {USERS[0]})
    assert [user for user, _ in archive.histories()] == USERS[1:]
    with (tmp_path / "archive" / ".events.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it


STEPS = [
    pytest.param(True, 1, marks=pytest.mark.slow), pytest.param(False, 1, marks=pytest.mark.slow),
    (False, 11),
]  # fmt: skip


@pytest.mark.parametrize(("plain", "every"), STEPS)
def test_an_erasure_that_dies_at_any_step_is_done_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: bool, every: int
) -> None:
    gone = set(USERS[:2])
    for at in range(0, 300, every):
        home = tmp_path / str(at)
        if plain:
            (home / "archive" / "events").mkdir(parents=True)
        archive, _ = fill(home, [[(USERS[0], None), (USERS[5], USERS[0])], [(USERS[1], None)]])
        archive.part_set.exchange((), {})  # readers may still be at an older generation
        before = list(archive.histories())
        after = without(list(archive.histories()), gone)
        with monkeypatch.context() as patch:
            CrashAfter(at).over_files(patch)
            try:
                erase_archive(home, gone)
                ended = True
            except Crash:
                ended = False
        again = Archive(home / "archive" / "events")
        seen = list(again.histories())
        assert seen in (before, after)
        erase_archive(home, gone)
        assert list(again.histories()) == after
        assert search(home, marks(gone)) == []
        shutil.rmtree(home)
        if ended:
            assert at > 5
            return
    pytest.fail("never came to an end")


def test_parts_that_lack_newer_columns_keep_theirs(tmp_path: Path) -> None:
    archive, _ = fill(tmp_path, [[(USERS[0], None), (USERS[1], None)]])
    [part] = archive.parts_of(0, LogPosition(0, 0))
    write_part(part, pq.read_table(part).drop_columns(["key", "linked"]))
    erase_archive(tmp_path, {USERS[0]})
    [part] = archive.parts_of(0, LogPosition(0, 0))
    table = pq.read_table(part)
    assert table["user"].to_pylist() == [USERS[1]]
    assert "key" not in table.column_names
