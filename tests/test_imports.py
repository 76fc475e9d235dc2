"""The arrows between rooms: services → training → feature_repo, never back."""

import ast
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


def test_infra_holds_no_logic() -> None:
    assert not list((ROOT / "infra").rglob("*.py"))
