"""One word per idea: class names, verbs, and the glossary's names."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name

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
        "claimed",
        "copied",
        "counted",
        "cut",
        "damaged",
        "decayed",
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
        "overruled",
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
        "stepped",
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
        "woven",
    ]
)
LEFT = {
    "feature_repo/archive/currency.py: known",
    "feature_repo/user_profile/purposes.py: allowed",
    "services/client/calls.py: applied",
}
"""What readers of the design, the log's writers and callers of the client find under its name."""
RETIRED = frozenset({"asked", "held", "household", "kind", "kinds", "person", "place", "places",
    "shopper", "shoppers", "touched"})  # fmt: skip
"""Words for which a textbook has another: request, in history, user, type, index, updated."""
STORED = {
    "feature_repo/audiences/traits.py: kind",
    "feature_repo/features/catalogue.py: kind",
    "feature_repo/importers/publish.py: events_held",
    "feature_repo/importers/publish.py: rows_held",
    "feature_repo/importers/report.py: events_held",
    "feature_repo/importers/report.py: rows_held",
    "feature_repo/profile_views/shapes.py: kind",
    "services/analytics/routes.py: kind",
    "services/audiences/schemas.py: kind",
    "services/http/answer_schemas.py: kind",
    "training/history/sequences.py: kind",
    "training/network/encoder.py: kind",
    "training/network/model_dir.py: kind",
}
"""Names of columns, of members of answers and of arrays in files, which stay as they were."""
UNSAID = re.compile(
    r"\b(shoppers?|entity ids?|tastes?|withheld|(?:items?|what is) held|held items?|place from 1"
    r"|chances? (?:of|that)|interest score)\b",
    re.IGNORECASE,
)
"""The same for texts: user, pseudonym, in the history, rank, probability, engagement score."""
REFERENCE = re.compile(r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)")
ENTRIES = re.compile(
    r"^(?:Parameters|Attributes)\n-+\n(.*?)(?=^\w[^\n]*\n-+\n|\Z)", re.MULTILINE | re.DOTALL
)
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
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not any("property" in ast.unparse(each) for each in node.decorator_list)
        and node.name.strip("_") in PARTICIPLES
    }
    assert found == LEFT


def test_retired_words_name_nothing() -> None:
    found = {
        f"{path}: {name}"
        for path, tree in SOURCES.items()
        for name in map(_name, ast.walk(tree))
        if not RETIRED.isdisjoint(name.lower().replace("held_out", "").split("_"))
    }
    assert found == STORED


def test_retired_words_stand_in_no_text() -> None:
    texts = {path: path.read_text() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))}
    texts |= {ROOT / path: "\n".join(_docstrings(tree)) for path, tree in SOURCES.items()}
    found = {path: UNSAID.findall(" ".join(text.split())) for path, text in texts.items()}
    assert {str(path): words for path, words in found.items() if words} == {}


def test_docstrings_name_what_there_is() -> None:
    """A module's text names its own names or modules, any other what is a name somewhere."""
    own = {path: _identifiers(tree) for path, tree in SOURCES.items()}
    modules = {part for path in SOURCES for part in Path(path).with_suffix("").parts}
    known = modules.union(*own.values())
    wrong = set[str]()
    for path, tree in SOURCES.items():
        head = REFERENCE.findall(ast.get_docstring(tree) or "")
        roots = (ROOT, ROOT / Path(path).parts[0], (ROOT / path).parent)
        wrong |= {
            f"{path}: {name}"
            for name in head
            if name.split(".")[0] not in own[path]
            and not any(_is_module(root.joinpath(*name.split("."))) for root in roots)
        }
        texts = "" if "/commands/" in path else "\n".join(_docstrings(tree))
        wrong |= {f"{path}: {n}" for n in REFERENCE.findall(texts) if n.split(".")[-1] not in known}
    assert wrong == set()


def test_docstrings_describe_the_parameters_there_are() -> None:
    wrong = set[str]()
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    there = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
                case ast.ClassDef():
                    there = _identifiers(node)
                case _:
                    continue
            text = ast.get_docstring(node) or ""
            entries = [entry for section in ENTRIES.findall(text) for entry in section.split("\n")]
            named = {name.strip(" *") for entry in entries for name in entry.split(",")
                     if entry and not entry.startswith(" ")}  # fmt: skip
            wrong |= {f"{path}: {node.name}: {name}" for name in named - there}
    assert wrong == set()


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
            assert resolve_name(name) is not None, name


def _docstrings(tree: ast.AST) -> Iterator[str]:
    """Yield the texts that stand by themselves: of modules, classes, functions and constants."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text


def _identifiers(tree: ast.AST) -> set[str]:
    """Return every name that stands in code."""
    found = set[str]()
    for node in ast.walk(tree):
        match node:
            case (
                ast.Name(id=name)
                | ast.Attribute(attr=name)
                | ast.arg(arg=name)
                | ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                found.add(name)
            case ast.alias(name=name, asname=other):
                found.add(other or name.rpartition(".")[2])
            case ast.ImportFrom(module=str(module)):
                found.update(module.split("."))
    return found


def _is_module(path: Path) -> bool:
    return (
        path.is_dir() or path.with_suffix(".py").exists() or path.parent.with_suffix(".py").exists()
    )


def _name(node: ast.AST) -> str:
    """Return the name that a node gives to something, or an empty one."""
    match node:
        case (
            ast.Name(id=name, ctx=ast.Store())
            | ast.Attribute(attr=name, ctx=ast.Store())
            | ast.arg(arg=name)
            | ast.FunctionDef(name=name)
            | ast.AsyncFunctionDef(name=name)
            | ast.ClassDef(name=name)
        ):
            return name
    return ""
