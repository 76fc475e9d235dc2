"""One word per idea: class names, verbs, and the glossary's names."""

import ast
import re
from collections import defaultdict
from importlib import import_module
from operator import attrgetter
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
    for room in ("feature_repo", "training", "services")
    for path in sorted((ROOT / room).rglob("*.py"))
}
PARTICIPLES = frozenset(
    [
        "allowed",
        "applied",
        "asked",
        "banned",
        "bounded",
        "chosen",
        "counted",
        "cut",
        "decoded",
        "described",
        "dropped",
        "dumped",
        "exported",
        "filled",
        "followed",
        "formed",
        "given",
        "held",
        "joined",
        "kept",
        "known",
        "learned",
        "listed",
        "logged",
        "masked",
        "merged",
        "moved",
        "named",
        "offered",
        "ordered",
        "packed",
        "patched",
        "permitted",
        "quoted",
        "reached",
        "refused",
        "relaxed",
        "said",
        "scaled",
        "settled",
        "shown",
        "stored",
        "taken",
        "told",
        "touched",
        "unjoined",
        "unlinked",
        "voided",
    ]
)
VERBS = ("services/recommend", "services/campaigns", "services/audiences", "services/catalogue",
    "services/event_log", "services/gateway", "services/history", "services/http",
    "services/models", "services/rebuild", "services/runtime", "services/context",
    "services/update", "services/analytics", "services/commands", "services/demo",
    "services/hosting",
    "services/lab/chaos", "services/lab/commands", "training/network", "training/targeting",
    "feature_repo/features", "feature_repo/online", "feature_repo/profile_views")  # fmt: skip
"""Rooms in which functions are verbs, and no participles."""
NAME = re.compile(r"`([\w./]+)` \|$", re.MULTILINE)


def test_no_class_name_stands_in_two_modules() -> None:
    found = defaultdict(set)
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[node.name].add(path)
    assert {name for name, paths in found.items() if len(paths) > 1} == set()


def test_functions_are_no_participles() -> None:
    found = [
        f"{path}: {node.name}"
        for path, tree in SOURCES.items()
        if path.startswith(VERBS)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not any("property" in ast.unparse(each) for each in node.decorator_list)
        and node.name.strip("_") in PARTICIPLES
    ]
    assert found == []


def test_modules_begin_with_a_noun_phrase() -> None:
    heads = {path: ast.get_docstring(tree) or "" for path, tree in SOURCES.items()}
    wrong = re.compile(
        r"(This|Return|Contains|Functions|Module|Helpers?|Utilities"
        r"|What|How|Whether|Which|Who|Whose|Where|When|Why)\b"
    )
    found = {p for p, text in heads.items() if not text[:1].isupper() or wrong.match(text)}
    assert found == set()


def test_the_glossary_names_what_there_is() -> None:
    names = NAME.findall((ROOT / "docs" / "glossary.md").read_text())
    assert len(names) > 40
    for name in names:
        if "/" in name:
            assert (ROOT / name).exists(), name
        elif "." in name:
            assert _find(name) is not None, name


def _find(name: str) -> object:
    """Return a module, or what stands in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            module = import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        return attrgetter(".".join(parts[count:]))(module) if parts[count:] else module
    return None
