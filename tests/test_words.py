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
        "averaged",
        "banned",
        "bounded",
        "checked",
        "chosen",
        "copied",
        "counted",
        "cut",
        "damaged",
        "decoded",
        "described",
        "divided",
        "dropped",
        "dumped",
        "exported",
        "faded",
        "filled",
        "fitted",
        "flattened",
        "followed",
        "formed",
        "gathered",
        "given",
        "granted",
        "held",
        "hidden",
        "joined",
        "kept",
        "known",
        "laid",
        "learned",
        "listed",
        "logged",
        "masked",
        "merged",
        "mixed",
        "moved",
        "named",
        "numbered",
        "offered",
        "opened",
        "ordered",
        "packed",
        "parted",
        "patched",
        "permitted",
        "planted",
        "quoted",
        "reached",
        "recorded",
        "refused",
        "relaxed",
        "resampled",
        "retold",
        "rounded",
        "said",
        "scaled",
        "scored",
        "settled",
        "shown",
        "shuffled",
        "skipped",
        "stated",
        "stored",
        "summed",
        "tagged",
        "taken",
        "timed",
        "told",
        "touched",
        "tuned",
        "turned",
        "unjoined",
        "unlinked",
        "voided",
        "weighted",
        "windowed",
    ]
)
VERBS = ("services/", "training/", "feature_repo/analytics", "feature_repo/archive",
    "feature_repo/audiences", "feature_repo/events", "feature_repo/feast_stores",
    "feature_repo/features", "feature_repo/importers", "feature_repo/online",
    "feature_repo/profile_views")  # fmt: skip
"""Rooms in which functions are verbs, and no participles."""
LEFT = {"feature_repo/archive/currency.py: known", "services/client/calls.py: applied"}
"""What the log's writers and callers of the client have to find under its name."""
NAME = re.compile(r"`([\w./]+)` \|$", re.MULTILINE)


def test_no_class_name_stands_in_two_modules() -> None:
    found = defaultdict(set)
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[node.name].add(path)
    assert {name for name, paths in found.items() if len(paths) > 1} == set()


def test_functions_are_no_participles() -> None:
    found = {
        f"{path}: {node.name}"
        for path, tree in SOURCES.items()
        if path.startswith(VERBS)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not any("property" in ast.unparse(each) for each in node.decorator_list)
        and node.name.strip("_") in PARTICIPLES
    }
    assert found == LEFT


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
