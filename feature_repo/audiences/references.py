"""Definitions that name each other: their nodes, their references, and what is refused of them.

Belongs here: walking a definition, and what must hold of several together.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from feature_repo.audiences import rules
from feature_repo.audiences.values import Node
from feature_repo.errors import InvalidRuleError

MAX_NODES: Final = 2000
"""Of a rule with all the audiences that it names."""


def nodes(definition: rules.Definition) -> Iterator[tuple[str, Node]]:
    """Yield every node of the rule and of the exclusions with its JSON pointer, parents first."""
    yield from _below(definition.rule, "/rule")
    for index, node in enumerate(definition.exclude):
        yield from _below(node, f"/exclude/{index}")


def references(definition: rules.Definition) -> dict[str, str]:
    """Return the other audiences that it names, each with the pointer of its first mention."""
    found = dict[str, str]()
    for place, node in nodes(definition):
        if isinstance(node, rules.InAudience):
            found.setdefault(node.audience, f"{place}/audience")
    return found


def check_references(
    name: str, definition: rules.Definition, known: Mapping[str, rules.Definition]
) -> None:
    """Refuse names of unknown audiences, and rings of audiences that name each other.

    Parameters
    ----------
    name
        Under which the definition is to be known.
    known
        All other definitions.

    Raises
    ------
    InvalidRuleError
    """
    whole = {**known, name: definition}
    for other, place in references(definition).items():
        if other != name and other not in known:
            detail = f"no audience is named {other}"
        elif name in _reached(other, whole):
            detail = f"{other} in turn rests on {name}: audiences cannot rest on each other"
        else:
            continue
        raise InvalidRuleError([{"pointer": place, "detail": detail}])
    size = _size(name, whole, {})
    if size > MAX_NODES:
        detail = f"with all that it names the rule has {size:,} nodes: at most {MAX_NODES:,}"
        raise InvalidRuleError([{"pointer": "/rule", "detail": detail}])


def _reached(start: str, known: Mapping[str, rules.Definition]) -> set[str]:
    found, open_names = set[str](), [start]
    while open_names:
        name = open_names.pop()
        if name not in found:
            found.add(name)
            if name in known:
                open_names += references(known[name])
    return found


def _size(name: str, known: Mapping[str, rules.Definition], sizes: dict[str, int]) -> int:
    """Return how many nodes a definition has once the audiences that it names are written out."""
    if name not in sizes:
        sizes[name] = sum(
            _size(node.audience, known, sizes) if isinstance(node, rules.InAudience) else 1
            for _, node in nodes(known[name])
        )
    return sizes[name]


def _below(node: Any, place: str) -> Iterator[tuple[str, Node]]:
    yield place, node
    if isinstance(node, rules.All | rules.AnyOf):
        key = "all" if isinstance(node, rules.All) else "any"
        for index, child in enumerate(getattr(node, key)):
            yield from _below(child, f"{place}/{key}/{index}")
    elif isinstance(node, rules.Not):
        yield from _below(node.not_, f"{place}/not")
