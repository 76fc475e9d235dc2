"""Questions to the index end in time, keep to their disk and leave nothing behind."""

import os
import time
from pathlib import Path

import pytest

from feature_repo.archive.query_bounds import SpillFolder, deadline, sweep
from feature_repo.audiences.index import Index
from feature_repo.errors import TooCostlyError

ENDLESS = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = -1"
LARGE = "SELECT max(t) FROM (SELECT repeat(range::VARCHAR, 9) AS t FROM range(3000000) ORDER BY t)"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def test_a_query_ends_at_the_deadline_and_the_next_one_runs(home: Path) -> None:
    with Index(home) as index:
        with deadline(0.05), pytest.raises(TooCostlyError, match="longer than one may"):
            index.rows(ENDLESS, {})
        assert index.rows("SELECT 1", {}) == [(1,)]
        with deadline(0), pytest.raises(TooCostlyError, match="longer than one may"):
            index.columns("SELECT 1")


def test_what_a_query_puts_down_is_bounded_private_and_removed(home: Path) -> None:
    with Index(home) as index:
        (folder,) = (home / "run" / "spill").iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert index.rows("SELECT current_setting('temp_directory')", {}) == [(str(folder),)]
        index.make("SET memory_limit = '64MB'")
        assert len(index.rows(LARGE, {})) == 1  # it spills
        index.make("SET max_temp_directory_size = '1MB'")
        with pytest.raises(TooCostlyError, match="4GB of disk"):
            index.rows(LARGE, {})
    assert list((home / "run" / "spill").iterdir()) == []


def test_folders_of_ended_processes_go_and_those_in_use_stay(tmp_path: Path) -> None:
    used = SpillFolder(tmp_path)
    assert used.path is not None
    left = used.path.parent / "left"
    left.mkdir()
    (left / "duckdb_temp_storage-0.tmp").write_bytes(b"user")
    young = used.path.parent / "young"
    young.mkdir()
    for path in (left, used.path):
        os.utime(path, (time.time() - 3600, time.time() - 3600))
    sweep(tmp_path)
    assert {path.name for path in used.path.parent.iterdir()} == {used.path.name, "young"}
    used.remove()


def test_without_a_folder_of_its_own_nothing_is_put_down(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    with Index(tmp_path) as index:
        assert index.rows("SELECT current_setting('temp_directory')", {})[0][0] in {"", None}
