"""A set of parts changes whole: whoever lists it sees one generation, at any step of a crash."""

import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.archive import part_set
from feature_repo.archive.part_set import PartSet, write_part
from tests.feature_repo.crashes import Crash, CrashAfter


def put(folder: Path, name: str, *values: int) -> Path:
    path = folder / f"{name}.parquet"
    write_part(path, pa.table({"n": list(values)}))
    return path


def values(parts: list[Path]) -> list[int]:
    return sorted(n for part in parts for n in pq.read_table(part).column("n").to_pylist())


def shop(tmp_path: Path, *, plain: bool = False) -> PartSet:
    root = tmp_path / "archive" / "events"
    if plain:
        root.mkdir(parents=True)
    made = PartSet(root)
    for n in range(4):
        with made.adding() as folder:
            put(folder, f"part{n}", n)
    return made


def merge(made: PartSet) -> bool:
    path = made.scratch()
    put(path.parent, path.stem, 1, 2)
    return made.exchange({"part1.parquet", "part2.parquet"}, {"merged.parquet": path})


def test_an_exchange_shows_all_or_nothing_and_leaves_the_old_readable(tmp_path: Path) -> None:
    made = shop(tmp_path)
    before = made.parts()
    assert merge(made)
    assert [part.name for part in made.parts()] == [
        "merged.parquet", "part0.parquet", "part3.parquet"
    ]  # fmt: skip
    assert values(made.parts()) == values(before) == [0, 1, 2, 3]
    assert values(sorted(made.root.glob("*.parquet"))) == [0, 1, 2, 3]
    made.sweep(grace_s=3600)
    assert values(before) == [0, 1, 2, 3]
    made.sweep(grace_s=0)
    assert values(made.parts()) == [0, 1, 2, 3]
    assert not any(part.exists() for part in before)


def test_a_folder_that_becomes_a_link_is_read_on(tmp_path: Path) -> None:
    made = shop(tmp_path, plain=True)
    listed = made.parts()
    assert not merge(made)
    assert made.prepare()
    assert made.prepare()
    assert made.root.is_symlink()
    assert not merge(made)  # who has listed the folder reads through the link: not yet
    assert values(listed) == values(made.parts()) == [0, 1, 2, 3]
    long_ago = time.time() - 7200
    os.utime(made.root, (long_ago, long_ago), follow_symlinks=False)
    assert merge(made)
    moved = tmp_path / "elsewhere"
    (tmp_path / "archive").rename(moved)  # a home can be moved: the link is relative
    assert values(PartSet(moved / "events").parts()) == [0, 1, 2, 3]


def test_what_is_no_longer_there_is_not_exchanged(tmp_path: Path) -> None:
    made = shop(tmp_path)
    assert merge(made)
    assert not merge(made)
    assert values(made.parts()) == [0, 1, 2, 3]
    path = made.scratch()
    put(path.parent, path.stem, 9)
    with pytest.raises(FileExistsError):
        made.exchange({"merged.parquet"}, {"part0.parquet": path})
    assert values(made.parts()) == [0, 1, 2, 3]


def test_an_exchange_waits_for_parts_being_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_set, "LOCK_WAIT_S", 0.1)
    made = shop(tmp_path)
    with made.adding() as folder, made.adding():
        assert not merge(made)
        made.sweep(grace_s=0)
        put(folder, "part9", 9)
    assert merge(made)
    assert values(made.parts()) == [0, 1, 2, 3, 9]


def test_without_an_exchange_of_names_parts_are_only_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(one: Path, other: Path) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(part_set, "_swap", refuse)
    made = shop(tmp_path, plain=True)
    assert not made.prepare()
    assert not merge(made)
    made.sweep(grace_s=0)
    assert values(made.parts()) == [0, 1, 2, 3]
    assert not made.root.is_symlink()


def test_a_part_of_that_name_is_replaced_or_kept(tmp_path: Path) -> None:
    path = put(tmp_path, "a", 1)
    assert not write_part(path, pa.table({"n": [2]}), replace=False)
    assert values([path]) == [1]
    assert write_part(path, pa.table({"n": [2]}))
    assert values([path]) == [2]
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize("plain", [True, False], ids=["plain folder", "link"])
def test_a_kill_at_any_step_leaves_a_whole_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    for at in range(200):
        made = shop(tmp_path / str(at), plain=plain)
        listed = made.parts()
        with monkeypatch.context() as patch:
            CrashAfter(at).over_files(patch)
            try:
                made.prepare()
                merge(made)
                made.sweep(grace_s=60)
                ended = True
            except Crash:
                ended = False
        again = PartSet(made.root)
        assert values(again.parts()) == values(listed) == [0, 1, 2, 3]
        # Whoever comes next can go on.
        assert again.prepare()
        assert values(again.parts()) == [0, 1, 2, 3]
        if not plain:
            assert merge(again) or "merged.parquet" in {part.name for part in again.parts()}
        assert values(again.parts()) == [0, 1, 2, 3]
        again.sweep(grace_s=0)
        assert values(again.parts()) == [0, 1, 2, 3]
        assert len(list(again.generations.iterdir())) == 1
        assert not list(again.root.parent.glob("*.link"))
        if ended:
            assert at > 5
            return
    pytest.fail("never came to an end")


def test_the_grace_begins_when_a_generation_is_replaced(tmp_path: Path) -> None:
    made = shop(tmp_path)
    before = made.parts()
    long_ago = time.time() - 7200
    os.utime(before[0].parent, (long_ago, long_ago))
    assert merge(made)
    made.sweep(grace_s=3600)
    assert values(before) == [0, 1, 2, 3]
