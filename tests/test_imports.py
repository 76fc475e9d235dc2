"""Rooms and the arrows between them: one table of who may import whom, and no circle in it."""

import ast
import textwrap
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("feature_repo", "training", "services")
FLAT = {
    "feature_repo": {"__init__", "definitions", "errors"},
    "training": {"__init__"},
    "services": {"__init__", "app", "settings"},
}
"""Modules that stand in no room."""
HEAVY = {"feature_repo": {"torch", "fastapi", "starlette", "httpx2"}, "training": {"fastapi"}}
"""Libraries that a package does without."""
ARROWS = """
@@TABLE@@
"""
"""A room, and the rooms that it may import; those of its own package without the package's name."""


def table(text: str = ARROWS) -> dict[str, set[str]]:
    """Return the rooms that each room may import, by their full names."""
    found = dict[str, set[str]]()
    for line in textwrap.dedent(text).strip().replace("\\\n", "").splitlines():
        room, _, others = line.partition(":")
        package = room.split(".")[0]
        found[room] = {
            name if name.split(".")[0] in PACKAGES else f"{package}.{name}"
            for name in others.split()
        }
    return found


def room_of(module: str) -> str:
    """Return the room of a module: its folder, or the module itself where it stands flat."""
    parts = module.split(".")
    return ".".join(parts[: 3 if parts[1:2] == ["lab"] else 2])


MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imported(source: str) -> set[str]:
    """Return all that ``source`` imports, anywhere in it: modules, and names of ``from`` in full."""
    names = set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(module: str, source: str) -> set[str]:
    """Return the rooms other than its own that a module imports."""
    ours = {name for name in imported(source) if name.split(".")[0] in PACKAGES}
    return {room_of(name) for name in ours} - {room_of(module)}


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    found = dict[str, set[str]]()
    for module, path in MODULES.items():
        if "." in module:
            found.setdefault(room_of(module), set()).update(
                rooms_imported(module, path.read_text())
            )
    return found


def test_the_table_holds_the_arrows_there_are(arrows: dict[str, set[str]]) -> None:
    assert {room: others for room, others in arrows.items() if others} == table()


def test_no_room_imports_itself_by_way_of_others() -> None:
    list(TopologicalSorter(table()).static_order())
    with pytest.raises(CycleError):
        list(TopologicalSorter(table() | {"feature_repo.errors": {"services.app"}}).static_order())


def test_packages_import_one_way() -> None:
    for room, others in table().items():
        place = PACKAGES.index(room.split(".")[0])
        assert all(PACKAGES.index(other.split(".")[0]) <= place for other in others), room


def test_the_product_needs_no_laboratory() -> None:
    users = {room for room, others in table().items() if any(".lab." in name for name in others)}
    assert {room for room in users if ".lab." not in room} == {"services.commands"}


def test_libraries_that_a_package_does_without() -> None:
    for module, path in MODULES.items():
        heavy = HEAVY.get(module.split(".")[0], set())
        tops = {name.split(".")[0] for name in imported(path.read_text())}
        assert not tops & ({"tests"} | heavy), module


def test_flat_modules_are_those_named() -> None:
    for package, names in FLAT.items():
        assert {path.stem for path in (ROOT / package).glob("*.py")} == names


def test_a_wrong_arrow_is_seen() -> None:
    source = "def f():\n    from services.runtime import logs\n    import services.app"
    assert rooms_imported("training.fit.loop", source) == {"services.runtime", "services.app"}


def test_every_room_is_installed() -> None:
    setting = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = [path.parent for room in PACKAGES for path in (ROOT / room).rglob("__init__.py")]
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert sorted(setting["packages"]) == sorted(found)
    for room in PACKAGES:
        data = [p for end in ("lua", "html", "yaml") for p in (ROOT / room).rglob(f"*.{end}")]
        patterns = setting["package-data"].get(room, [])
        named = {path for pattern in patterns for path in (ROOT / room).glob(pattern)}
        assert set(data) <= named


def test_infra_holds_no_logic() -> None:
    assert not list((ROOT / "infra").rglob("*.py"))
