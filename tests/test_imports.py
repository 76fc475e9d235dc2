"""Rooms and the arrows between them: one table of who may import whom, and no circle in it."""

import ast
import tomllib
from functools import cache
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
feature_repo.analytics: audiences errors events profile_views
feature_repo.archive: errors events
feature_repo.audiences: archive errors events features profile_views user_profile
feature_repo.definitions: features online
feature_repo.erasure: archive events user_profile
feature_repo.events: errors
feature_repo.feast_stores: errors features online
feature_repo.features: archive erasure errors events user_profile
feature_repo.importers: archive audiences erasure errors events user_profile
feature_repo.online: errors
feature_repo.profile_views: errors events features user_profile
feature_repo.user_profile: archive errors events
training.evaluation: history neighbours network scoring | feature_repo: errors events
training.fit: evaluation history neighbours network scoring state | feature_repo: erasure events
training.history:  | feature_repo: archive audiences erasure errors events feast_stores features
    user_profile
training.lab.comparison: evaluation fit history lab.targeting neighbours network scoring |
    feature_repo: errors events importers
training.lab.studies: evaluation fit history lab.comparison lab.targeting neighbours network
    scoring | feature_repo: errors events
training.lab.targeting: evaluation history | feature_repo: errors events features importers
training.neighbours: history state | feature_repo: events
training.network: history neighbours state | feature_repo: errors events features profile_views
training.scoring: history neighbours network state | feature_repo: errors events
training.state: history
services.analytics: audiences context http runtime | feature_repo: analytics archive audiences
    errors profile_views user_profile
services.audit: context http runtime | feature_repo: errors events online profile_views
services.app: gateway http recommend settings update | feature_repo: errors
services.audiences: context http models runtime settings | training: scoring | feature_repo:
    analytics archive audiences erasure errors events features online profile_views user_profile
services.campaigns: audiences context event_log history http recommend runtime | training:
    evaluation | feature_repo: analytics audiences errors events online profile_views
services.catalogue: context http runtime | feature_repo: archive errors events
services.client: analytics audiences audit campaigns erasure export http models | feature_repo:
    errors
services.commands: analytics audiences audit campaigns catalogue client demo erasure event_log
    hosting http models rebuild runtime settings | training: history | feature_repo: analytics
    archive audiences erasure errors events importers online user_profile
services.context: event_log http models runtime settings | feature_repo: errors events online
    user_profile
services.demo: client hosting models rebuild runtime settings | training: evaluation
    fit history | feature_repo: archive events importers online user_profile
services.erasure: analytics audiences campaigns context event_log http models runtime settings |
    feature_repo: archive erasure errors events online profile_views user_profile
services.event_log: models runtime settings | feature_repo: archive erasure errors events online
    user_profile
services.export: audiences campaigns context erasure event_log history http models recommend
    runtime | training: scoring state | feature_repo: archive audiences errors events features
    online profile_views user_profile
services.gateway: analytics audiences audit campaigns catalogue context erasure event_log export
    history http models recommend runtime settings update | feature_repo: archive errors events
    online profile_views user_profile
services.history: context event_log models runtime | feature_repo: archive errors events online
    user_profile
services.hosting: app catalogue client event_log http models recommend runtime settings | training:
    evaluation fit | feature_repo: archive audiences errors events feast_stores features online
services.http: runtime | feature_repo: archive errors events online profile_views user_profile
services.lab.bench: audiences catalogue client demo erasure event_log hosting models recommend
    runtime settings update | training: fit history lab.comparison lab.studies neighbours network
    scoring | feature_repo: analytics archive audiences errors events feast_stores features
    importers online profile_views user_profile
services.lab.chaos: client event_log hosting lab.bench models runtime settings
    update | feature_repo: archive errors events online
services.lab.commands: commands lab.bench lab.chaos runtime | training: evaluation lab.comparison
    lab.studies network | feature_repo: errors
services.models: http settings | training: network scoring | feature_repo: errors events
    feast_stores online profile_views user_profile
services.rebuild: catalogue erasure event_log history hosting models settings update | training:
    fit | feature_repo: archive audiences erasure errors events online user_profile
services.recommend: catalogue context event_log history http models runtime settings | training:
    scoring | feature_repo: archive errors events online profile_views user_profile
services.runtime: settings | training: fit | feature_repo: archive errors events
services.settings:  | feature_repo: events user_profile
services.update: audiences catalogue erasure event_log history models runtime settings |
    feature_repo: archive errors events online user_profile
"""
"""A room and the rooms that it may import, those of each other package after a stroke."""


def table(text: str = ARROWS) -> dict[str, set[str]]:
    """Return the rooms that each room may import, by their full names."""
    found = dict[str, set[str]]()
    for line in text.replace("\n    ", " ").strip().splitlines():
        room, _, others = line.partition(": ")
        package = room.split(".")[0]
        found[room] = set()
        for group in others.split(" | "):
            other, _, names = group.rpartition(": ")
            found[room] |= {f"{other or package}.{name}" for name in names.split()}
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


@cache
def imported(source: str) -> set[str]:
    """Return what ``source`` imports, anywhere in it: modules, and names of ``from`` in full."""
    names = set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(module: str, source: str) -> set[str]:
    """Return the rooms other than its own that a module imports."""
    ours = {name for name in imported(source) if name.startswith(tuple(f"{p}." for p in PACKAGES))}
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
    assert users
    assert all(".lab." in room for room in users)


def test_the_product_needs_no_library_of_an_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    libraries = {
        requirement.replace("-", "_")
        for extra in ("demo", "lab")
        for requirement in extras["optional-dependencies"][extra]
    }
    assert "polars" in libraries
    for module, path in MODULES.items():
        if ".lab." not in module:
            tops = {name.split(".")[0] for name in imported(path.read_text())}
            assert not tops & libraries, module


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


def test_infra_holds_no_logic() -> None:
    assert not list((ROOT / "infra").rglob("*.py"))
