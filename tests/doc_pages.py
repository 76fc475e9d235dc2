"""The pages of the documentation, parsed: headings, links, code blocks and commands."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SHELL = {"console", "sh", "bash", ""}


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @cached_property
    def tokens(self) -> list[Token]:
        return MarkdownIt().enable("table").parse(self.path.read_text())

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    def inline(self, kind: str) -> Iterator[Token]:
        for token in self.tokens:
            yield from (child for child in token.children or () if child.type == kind)

    def anchors(self) -> set[str]:
        """Headings as GitHub and the site name them in links."""
        titles = [
            "".join(c.content for c in self.tokens[n + 1].children or ())
            for n, token in enumerate(self.tokens)
            if token.type == "heading_open"
        ]
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    def links(self) -> list[str]:
        return [str(one.attrs["href"]) for one in self.inline("link_open")] + [
            str(one.attrs["src"]) for one in self.inline("image")
        ]

    def blocks(self, *languages: str) -> list[str]:
        return [t.content for t in self.tokens if t.type == "fence" and t.info in languages]

    def shell_lines(self) -> list[str]:
        """What a reader types: the lines after a prompt, or all lines of a block without one."""
        found = list[str]()
        for block in self.blocks(*SHELL):
            lines = block.replace("\\\n", " ").splitlines()
            prompts = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
            found += prompts or lines
        return found

    def commands(self) -> Iterator[list[str]]:
        """Words of each command that begins with ``portrait``, ``make`` or ``python -m``."""
        texts = self.shell_lines() + [one.content for one in self.inline("code_inline")]
        for text in texts:
            for part in re.split(r"\s(?:&&|\|\|?|;|·)\s|\s#|\s>", text):
                words = [word for word in _split(part) if not re.match(r"[A-Z_]+=", word)]
                if words and Path(words[0]).name in {"portrait", "make", "python"}:
                    yield [Path(words[0]).name, *words[1:]]


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text.replace("[", " ").replace("]", " "))
    except ValueError:  # a quotation mark that the text does not close: prose
        return text.split()


def pages() -> list[Page]:
    """Every page that readers are led to."""
    names = ("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
    roots = [ROOT / name for name in names]
    return [Page(path) for path in [*roots, *sorted(DOCS.rglob("*.md"))] if path.exists()]
