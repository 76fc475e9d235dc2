"""A rule's values on their way into SQL: every one a named parameter, none in the text.

Belongs here: parameters, and conditions made of one value and its bounds.
"""

from collections.abc import Sequence
from typing import Any

from feature_repo.audiences.values import Bounds


class Values:
    """Gathers the values of one query."""

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {}

    def parameter(self, value: Any, name: str = "") -> str:
        """Return the parameter that stands for a value."""
        name = name or f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f"${name}"

    def number(self, value: float | None) -> str:
        """Return the parameter of a number, whatever Python holds it in."""
        return f"{self.parameter(value)}::DOUBLE"

    def within(self, bounds: Bounds, value: str) -> str:
        """Return the condition that an expression lies within bounds."""
        return join_conditions(
            " AND ", [f"{value} {sign} {self.number(bound)}" for sign, bound in bounds.to_signs()]
        )

    def aggregate(self, source: str, value: str, bounds: Bounds) -> str:
        """Return the condition on a figure that is 0 for users without a row.

        Parameters
        ----------
        source
            FROM .. GROUP BY u.
        value
            The figure of a group.
        """
        holds = self.within(bounds, value)
        if bounds.hold(0):
            return f"x.u NOT IN (SELECT u {source} HAVING NOT ({holds}))"
        return f"x.u IN (SELECT u {source} HAVING {holds})"


def join_conditions(sign: str, parts: Sequence[str]) -> str:
    """Return conditions joined by AND or OR, in brackets."""
    return f"({sign.join(parts)})"
