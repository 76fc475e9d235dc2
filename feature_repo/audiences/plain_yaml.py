"""YAML without references: what is read is no larger than what was written.

Anchors, aliases and merge keys let a few bytes stand for gigabytes; a definition needs none of
them. Belongs here: reading with bounds. What the document means is `language`'s.
"""

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
        If it is no YAML, breaks a bound, or has anchors, aliases or merge keys.

    Examples
    --------
    >>> read("a: [1, 2]", max_depth=3, max_values=10)
    {'a': [1, 2]}
    """
    if len(text) > MAX_BYTES:
        raise _refused(f"the YAML takes {len(text):,} bytes: at most {MAX_BYTES:,}; send JSON")
    try:
        loader = _Loader(text, max_depth, max_values)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f": line {mark.line + 1}, column {mark.column + 1}"
        raise _refused(f"the document is neither JSON nor YAML{where}") from None


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str | bytes, max_depth: int, max_values: int) -> None:
        super().__init__(text)
        self._max_depth, self._max_values = max_depth, max_values
        self._depth = self._values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _refused(f"line {line}: anchors and aliases are not read; write it out")
        self._values += 1
        self._depth += 1
        if self._depth > self._max_depth + 1:
            raise _refused(f"line {line}: the definition is over {self._max_depth} levels")
        if self._values > self._max_values:
            raise _refused(f"line {line}: the definition is over {self._max_values:,} values")
        found = super().compose_node(parent, index)
        self._depth -= 1
        return found

    def flatten_mapping(self, node: Any) -> None:
        merged = next((key for key, _ in node.value if key.tag == _MERGE), None)
        if merged is not None:
            line = merged.start_mark.line + 1
            raise _refused(f"line {line}: merge keys (<<) are not read; write it out")


def _refused(detail: str) -> InvalidRuleError:
    return InvalidRuleError([{"pointer": "", "detail": detail}])
