"""A registry that was applied by this code is known again; anything else is applied."""

from pathlib import Path

import pytest

from feature_repo.feast_stores import registry_stamp
from feature_repo.features.catalogue import VIEWS


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "registry.db").write_bytes(b" ".join(view.encode() for view in VIEWS))
    registry_stamp.note(tmp_path)
    return tmp_path


def test_what_was_applied_is_known_again(home: Path) -> None:
    assert registry_stamp.is_current(home)


def test_a_new_place_a_lost_or_emptied_registry_and_other_code_are_not(
    home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert not registry_stamp.is_current(elsewhere)
    for name in ("registry.db", "registry.applied"):
        (elsewhere / name).write_bytes((home / name).read_bytes())
    assert not registry_stamp.is_current(elsewhere)

    with monkeypatch.context() as patch:
        other = tmp_path_factory.mktemp("code")
        (other / "definitions.py").write_text("views = []")
        patch.setattr(registry_stamp, "_FOLDER", other)
        assert not registry_stamp.is_current(home)
    with monkeypatch.context() as patch:
        patch.setattr(registry_stamp, "version", lambda name: "0")
        assert not registry_stamp.is_current(home)

    (home / "registry.db").write_bytes(b"torn down")
    assert not registry_stamp.is_current(home)
    (home / "registry.db").unlink()
    assert not registry_stamp.is_current(home)
