"""YAML without references: what is read is no larger than what was written.

Anchors, aliases and merge keys let a few bytes stand for gigabytes, and tags let text be read in
ways of its own; a definition needs none of them. A date is text, and so is a number of too many
digits. Belongs here: reading with bounds. What the document means is `language`'s.
"""

import re
from typing import Any, Final

import yaml

from feature_repo.errors import InvalidRuleError

MAX_BYTES: Final = 64 * 1024
"""Of a YAML text; a longer definition is sent as JSON."""
_MERGE: Final = "tag:yaml.org,2002:merge"


def read(text: str | bytes, *, max_depth: int, max_values: int) -> Any:
    """Return the document of a YAML text.

    Parameters
    ----------
    max_depth
        Levels of mappings and lists.
    max_values
        Keys and values in all.

    Raises
    ------
    InvalidRuleError
        If it is no YAML, breaks a bound, or has anchors, aliases, merge keys or tags.

    Examples
    --------
    >>> read("a: [1, 2]", max_depth=3, max_values=10)
    {'a': [1, 2]}
    """
    if len(text) > MAX_BYTES:
        raise _to_error(f"the YAML takes {len(text):,} bytes: at most {MAX_BYTES:,}; send JSON")
    try:
        loader = _Loader(text, max_depth, max_values)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f": line {mark.line + 1}, column {mark.column + 1}"
        raise _to_error(f"the document is neither JSON nor YAML{where}") from None


class _Loader(yaml.SafeLoader):
    """Reads text, numbers, booleans and null: no dates, no base 60, no tags."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as in its base

    def __init__(self, text: str | bytes, max_depth: int, max_values: int) -> None:
        super().__init__(text)
        self._max_depth, self._max_values = max_depth, max_values
        self._depth = self._values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _to_error(f"line {line}: anchors and aliases are not read; write it out")
        if event.tag is not None:
            raise _to_error(f"line {line}: tags (!, !!) are not read; leave them out")
        self._values += 1
        self._depth += 1
        if self._depth > self._max_depth + 1:
            raise _to_error(f"line {line}: the definition is over {self._max_depth} levels")
        if self._values > self._max_values:
            raise _to_error(f"line {line}: the definition is over {self._max_values:,} values")
        found = super().compose_node(parent, index)
        self._depth -= 1
        return found

    def flatten_mapping(self, node: Any) -> None:
        merged = next((key for key, _ in node.value if key.tag == _MERGE), None)
        if merged is not None:
            line = merged.start_mark.line + 1
            raise _to_error(f"line {line}: merge keys (<<) are not read; write it out")


for _tag, _first, _form in (
    ("bool", "yYnNtTfFoO", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE"
     r"|on|On|ON|off|Off|OFF"),
    ("null", ["~", "n", "N", ""], r"~|null|Null|NULL|"),
    ("int", "-+0123456789", r"[-+]?(?:0b[01]{1,64}|0x[0-9a-fA-F]{1,16}|0[0-7]{0,21}"
     r"|[1-9][0-9_]{0,30})"),
    ("float", "-+0123456789.", r"[-+]?(?:[0-9][0-9_]{0,308})\.[0-9_]{0,400}(?:[eE][-+][0-9]{1,3})?"
     r"|\.[0-9][0-9_]{0,400}(?:[eE][-+][0-9]{1,3})?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"),
    ("merge", "<", "<<"),
):  # fmt: skip
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_form})$"), _first)


def _to_error(detail: str) -> InvalidRuleError:
    return InvalidRuleError([{"pointer": "", "detail": detail}])
