"""Tombstones: what is added stays, whatever a crash leaves; nothing is put down past `settle`."""

import os
import stat
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.erasure import tombstones

NAMES = [f"{{p{n:03d}}}{letter * 26}" for n, letter in enumerate("abcdefg")]
STEPS = st.tuples(st.sampled_from(["add", "remove", "cut"]), st.sets(st.sampled_from(NAMES)),
                  st.integers(0, 70))  # fmt: skip


@given(st.lists(STEPS, max_size=12))
def test_the_file_is_the_set_of_what_was_added_and_not_cut_off(
    steps: list[tuple[str, set[str], int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home, held = Path(folder), set[str]()
        path = home / "erasures" / "tombstones"
        for step, names, cut in steps:
            if step == "add":
                tombstones.add(home, names)
                held |= names
            elif step == "remove":
                tombstones.remove(home, names)
                held -= names
            elif path.exists():
                os.truncate(path, max(0, path.stat().st_size - cut))
                whole = path.read_text().splitlines()
                held = {line for line in whole if line in NAMES}
            assert tombstones.read(home) == held


def test_the_file_is_its_owners_and_a_killed_rewrite_leaves_nothing(tmp_path: Path) -> None:
    tombstones.add(tmp_path, NAMES[:2])
    path = tmp_path / "erasures" / "tombstones"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    left = path.with_name(".tombstones.x.tmp")
    left.write_text(NAMES[5])
    tombstones.remove(tmp_path, NAMES[:1])
    assert not left.exists()
    assert tombstones.read(tmp_path) == {NAMES[1]}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ValueError, match="no pseudonym"):
        tombstones.add(tmp_path, ["u1"])


def test_settle_waits_for_who_publishes_by_older_tombstones(tmp_path: Path) -> None:
    seen = list[str]()

    def erase() -> None:
        tombstones.add(tmp_path, NAMES[:1])
        tombstones.settle(tmp_path)
        seen.append("settled")

    with tombstones.publishing(tmp_path) as erased:
        thread = threading.Thread(target=erase)
        thread.start()
        while not tombstones.read(tmp_path):
            pass
        assert not erased
        seen.append("published")
    thread.join()
    assert seen == ["published", "settled"]
    with tombstones.publishing(tmp_path) as erased:
        assert erased == {NAMES[0]}
