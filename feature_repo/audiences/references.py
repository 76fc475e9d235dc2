"""Definitions that name each other: their nodes, their references, and what is refused of them.

Belongs here: walking a definition, and what must hold of several together.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any, Final

from feature_repo.audiences import rules
from feature_repo.audiences.values import Node
from feature_repo.errors import InvalidRuleError

MAX_NODES: Final = 2000
MAX_EVENT_LEAVES: Final = 50
MAX_SEQUENCES: Final = 20
MAX_LEVELS: Final = 10
"""Of a rule with all the audiences that it names; a sequence costs as much as ten events."""


def nodes(definition: rules.Definition) -> Iterator[tuple[str, Node]]:
    """Yield every node of the rule and of the exclusions with its JSON pointer, parents first."""
    yield from _below(definition.rule, "/rule")
    for index, node in enumerate(definition.exclude):
        yield from _below(node, f"/exclude/{index}")


def references(definition: rules.Definition) -> dict[str, str]:
    """Return the other audiences that it names, each with the pointer of its first mention."""
    found = dict[str, str]()
    for pointer, node in nodes(definition):
        if isinstance(node, rules.InAudience):
            found.setdefault(node.audience, f"{pointer}/audience")
    return found


def check_references(
    name: str, definition: rules.Definition, known: Mapping[str, rules.Definition]
) -> None:
    """Raise `InvalidRuleError` for unknown audiences, and rings of audiences that name each other.

    Parameters
    ----------
    name
        Under which the definition is to be known.
    known
        All other definitions.
    """
    whole = {**known, name: definition}
    for other, pointer in references(definition).items():
        if other != name and other not in known:
            detail = f"no audience is named {other}"
        elif name in _find_reached(other, whole):
            detail = f"{other} in turn rests on {name}: audiences cannot rest on each other"
        else:
            continue
        raise InvalidRuleError([{"pointer": pointer, "detail": detail}])
    _check_costs(name, whole)


@dataclass(slots=True)
class _Cost:
    """What a definition asks for once the audiences that it names are written out."""

    levels: int = 1
    nodes: int = 0
    events: int = 0
    sequences: int = 0

    def breach(self) -> str | None:
        """Return which bound is broken, or None."""
        for count, what, most in (
            (self.nodes, "nodes", MAX_NODES),
            (self.events, "leaves on events", MAX_EVENT_LEAVES),
            (self.sequences, "sequences", MAX_SEQUENCES),
            (self.levels, "levels of audiences that name each other", MAX_LEVELS),
        ):
            if count > most:
                return f"{count:,} {what}: at most {most:,}"
        return None


def _check_costs(name: str, whole: Mapping[str, rules.Definition]) -> None:
    """Refuse a definition by which it, or one that rests on it, would ask for too much."""
    graph = {other: references(each).keys() & whole.keys() for other, each in whole.items()}
    costs, rest = dict[str, _Cost](), {name}
    for other in TopologicalSorter(graph).static_order():  # what is named first
        costs[other] = _cost(whole[other], costs)
        if graph[other] & rest:
            rest.add(other)
    for other in sorted(rest, key=lambda each: each != name):
        breach = costs[other].breach()
        if breach is not None:
            whose = "the rule" if other == name else f"{other}, which rests on it,"
            detail = f"with all that it names {whose} has {breach}"
            raise InvalidRuleError([{"pointer": "/rule", "detail": detail}])


def _cost(definition: rules.Definition, costs: Mapping[str, _Cost]) -> _Cost:
    found = _Cost()
    for _, node in nodes(definition):
        if isinstance(node, rules.InAudience):
            other = costs.get(node.audience, _Cost())
            found.levels = max(found.levels, other.levels + 1)
            found.nodes += other.nodes
            found.events += other.events
            found.sequences += other.sequences
        else:
            found.nodes += 1
            found.events += isinstance(node, rules.HasEvent)
            found.sequences += isinstance(node, rules.HasSequence)
    return found


def _find_reached(start: str, known: Mapping[str, rules.Definition]) -> set[str]:
    found, open_names = set[str](), [start]
    while open_names:
        name = open_names.pop()
        if name not in found:
            found.add(name)
            if name in known:
                open_names += references(known[name])
    return found


def _below(node: Any, pointer: str) -> Iterator[tuple[str, Node]]:
    yield pointer, node
    if isinstance(node, rules.All | rules.AnyOf):
        key = "all" if isinstance(node, rules.All) else "any"
        for index, child in enumerate(getattr(node, key)):
            yield from _below(child, f"{pointer}/{key}/{index}")
    elif isinstance(node, rules.Not):
        yield from _below(node.not_, f"{pointer}/not")
