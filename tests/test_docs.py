"""The docs are true: tests, files, commands, settings and calls that they name exist."""

import json
import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import yaml
from doc_pages import DOCS, ROOT, Page, pages
from typer.main import get_command

from services.commands.cli import app
from services.gateway import access
from services.settings import Settings
from services.settings import page as settings_page

TOPS = ("feature_repo", "training", "services")
PRINTED = {DOCS / "accuracy.md", DOCS / "features.md", DOCS / "settings.md"}
TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def named(page: Path) -> list[tuple[str, str]]:
    return TEST.findall(page.read_text())


def test_file_names_of_tests_are_unique() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    files = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    missing = [
        f"{file}::{test}"
        for file, test in named(page)
        if not re.search(rf"^(?:async )?def {test}\(", files.get(file, ""), re.MULTILINE)
    ]
    assert missing == []


def test_every_row_of_faults_and_invariants_names_a_test() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text().partition("## Chaos")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    without = [row for row in rows if not TEST.search(row) and not row.endswith("| tests |")]
    assert len(rows) > 30
    assert without == []


def test_the_table_of_bounds_is_what_the_code_says() -> None:
    text = (ROOT / "docs" / "security.md").read_text().partition("## Bounds of every input")[2]
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| [^|]+ \| `([\w.]+)` \|$", text, re.MULTILINE)
    assert len(rows) > 25
    for most, name in rows:
        room, _, rest = name.rpartition(".")
        if room.endswith(".ASKING"):
            room, rest = "services.runtime.workers", f"ASKING.{rest}"
        found = attrgetter(rest)(import_module(room))
        shown = f"{found:,}" if isinstance(found, int) else str(found).removesuffix(".0")
        assert most == shown, name


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Page) -> None:
    broken = list[str]()
    for link in page.links():
        where, _, anchor = link.partition("#")
        target = (page.path.parent / where).resolve() if where else page.path
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in Page(target).anchors()):
            broken.append(link)
    assert broken == []


def test_every_page_is_in_the_contents_of_the_site() -> None:
    listed = set(re.findall(r"^([\w/-]+)$", (DOCS / "index.md").read_text(), re.MULTILINE))
    assert {path.stem for path in DOCS.glob("*.md")} - {"index"} == listed - {"adr/README"}
    decisions = sorted((DOCS / "adr").glob("0*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        assert path.name in Page(DOCS / "adr" / "README.md").links()


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_python_yaml_and_json_blocks_can_be_read(page: Page) -> None:
    for block in page.blocks("python"):
        compile(block, page.name, "exec")
    for block in page.blocks("yaml"):
        yaml.safe_load(block)
    for block in page.blocks("json"):
        json.loads(block)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_command_of_a_page_exists_with_its_options(page: Page) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    wrong = list[str]()
    for program, *words in page.commands():
        if program == "portrait":
            wrong += unknown(get_command(app), words)
        elif program == "make":
            wrong += [
                word for word in words if re.fullmatch("[a-z-]+", word) and word not in targets
            ]
        elif words[:1] == ["-m"]:
            wrong += [] if find_spec(words[1]) else [words[1]]
    assert wrong == []


def unknown(command: Any, words: list[str]) -> list[str]:
    """Return commands and options among the words that the command line does not have."""
    named = (each.opts + each.secondary_opts for each in command.params)
    options = {"--help"}.union(*named)
    for n, word in enumerate(words):
        if word.startswith("-"):
            if not set(word.partition("=")[0].split("|")) <= options:
                return [f"{command.name} {word}"]
        elif hasattr(command, "commands"):
            names = [name for name in word.split("|") if re.fullmatch("[a-z-]+", name)]
            missing = [name for name in names if name not in command.commands]
            if missing or len(names) != 1:
                return missing
            return unknown(command.commands[names[0]], words[n + 1 :])
    return []


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_source_file_of_a_page_exists(page: Page) -> None:
    code = {one.content.partition("::")[0] for one in page.inline("code_inline")}
    files = {
        name
        for name in code
        if re.fullmatch(r"(feature_repo|training|services|infra|tests)/[\w/.]+", name)
    }
    assert [name for name in sorted(files) if not (ROOT / name).exists()] == []
    own = set(re.findall(r"Save this as `([\w.]+)`", page.path.read_text()))
    bare = {name for name in code if re.fullmatch(r"\w+\.(py|lua|yaml|html)", name)} - own
    assert bare - source_names() == set()
    for name in code:
        if re.fullmatch(rf"({'|'.join(TOPS)})(\.\w+)+", name):
            assert resolve_name(name) is not None, name


@cache
def source_names() -> set[str]:
    """Names of the files of all rooms and of the root, without their folders."""
    files = (path for top in (*TOPS, "infra", "tests") for path in (ROOT / top).rglob("*.*"))
    return {path.name for path in (*files, *ROOT.glob("*.py"))}


@cache
def calls() -> list[str]:
    """Patterns of the paths that the API has."""
    return [re.sub(r"{[^}]+}", "[^/]+", row.split(" ")[1]) for row in access.operations()]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_setting_and_call_of_a_page_exists(page: Page) -> None:
    text = page.path.read_text()
    variables = {f"PORTRAIT_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"\bPORTRAIT_[A-Z_]+[A-Z]\b", text)) <= variables
    asked = [
        found
        for line in page.shell_lines()
        for found in re.findall(r"localhost:\d+(/[^\s\"'?]*)", line)
    ]
    assert [one for one in asked if not any(re.fullmatch(path, one) for path in calls())] == []


def test_the_page_of_settings_is_what_the_code_says() -> None:
    written = (DOCS / "settings.md").read_text()
    assert written == settings_page(), "run: python -m services.settings > docs/settings.md"
    assert all(field.description for field in Settings.model_fields.values())


def test_the_readme_is_short_and_names_every_room() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    rows = re.findall(r"^\| (`.*?) \|", text.partition("## The rooms")[2], re.MULTILINE)
    named = {name.rstrip("/") for row in rows for name in re.findall(r"`([\w/]+)`", row)}
    rooms = {path.parent.name for top in TOPS for path in (ROOT / top).glob("*/__init__.py")}
    assert named == rooms | set(TOPS)


def test_the_chinese_readme_has_the_same_commands_figures_and_links() -> None:
    english, chinese = (Page(ROOT / name) for name in ("README.md", "README.zh-CN.md"))
    assert chinese.blocks("console") == english.blocks("console")
    code = [{one.content for one in page.inline("code_inline")} for page in (english, chinese)]
    assert code[0] == code[1]
    links = [set(page.links()) for page in (english, chinese)]
    assert links[0] - {"README.zh-CN.md"} == links[1] - {"README.md"}
    figures = [
        sorted(re.findall(r"[\d.,]*\d", page.path.read_text())) for page in (english, chinese)
    ]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_lines_are_no_longer_than_a_screen(page: Page) -> None:
    if page.path in PRINTED:
        return
    prose = re.sub(r"^```.*?^```$", "", page.path.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in prose.splitlines() if not line.startswith(("|", "#"))]
    assert [line for line in lines if len(line) > 120] == []
