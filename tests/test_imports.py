"""The arrows between rooms: services → training → feature_repo, never back."""

import ast
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("feature_repo", "training", "services")
MAY_IMPORT = {
    "feature_repo": {"feature_repo"},
    "training": {"feature_repo", "training"},
    "services": {"feature_repo", "training", "services"},
}


def imported(source: str) -> set[str]:
    """Return the top-level names of all modules that ``source`` imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_point_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    forbidden = (imported(path.read_text()) & {*ROOMS, "tests"}) - MAY_IMPORT[room]
    assert not forbidden, f"{room} may not import {forbidden}"


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if "feature_repo" in p.parts],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_feature_repo_needs_no_torch(path: Path) -> None:
    assert "torch" not in imported(path.read_text())


def test_checker_sees_a_wrong_arrow() -> None:
    assert imported("def f():\n    from services.app import build") == {"services"}


def rooms_imported(source: str) -> set[str]:
    """Return the rooms below services that ``source`` imports, anywhere in it."""
    modules = [
        node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module
    ]
    found = {module.split(".")[1] for module in modules if module.startswith("services.")}
    return {name for name in found if (ROOT / "services" / name).is_dir()}


def test_rooms_below_services_never_import_in_a_circle() -> None:
    rooms = [path.parent for path in (ROOT / "services").glob("*/__init__.py")]
    graph = {
        room.name: {
            name for path in room.rglob("*.py") for name in rooms_imported(path.read_text())
        }
        - {room.name}
        for room in rooms
    }
    assert "log" in graph["chaos"]
    list(TopologicalSorter(graph).static_order())
    with pytest.raises(CycleError):
        list(TopologicalSorter(graph | {"log": {"chaos"}}).static_order())


def test_every_room_is_installed() -> None:
    setting = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = [path.parent for room in ROOMS for path in (ROOT / room).rglob("__init__.py")]
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert sorted(setting["packages"]) == sorted(found)
    for room in ROOMS:
        data = [p for end in ("lua", "html", "yaml") for p in (ROOT / room).rglob(f"*.{end}")]
        patterns = setting["package-data"].get(room, [])
        named = {path for pattern in patterns for path in (ROOT / room).glob(pattern)}
        assert set(data) <= named


def test_infra_holds_no_logic() -> None:
    assert not list((ROOT / "infra").rglob("*.py"))
