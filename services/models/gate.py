"""The gate: what speaks against giving a model an alias, before it is given.

A rule looks at a model and yields findings; a model without any passes. Belongs here: the rules.
What is done about their findings is `promotion`'s.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from feature_repo.errors import ModelMismatchError
from services.models.folder import StoredModel


class GateFinding(NamedTuple):
    """What a rule found.

    Attributes
    ----------
    rule
        Name of the rule.
    detail
        What is wrong, and the fix.
    is_final
        Whether it holds though promotion is forced.
    """

    rule: str
    detail: str
    is_final: bool = False


Rule = Callable[[StoredModel], Iterator[GateFinding]]


def find_misfit(model: StoredModel) -> Iterator[GateFinding]:
    """Yield a finding if this version of the code cannot load the model; that takes seconds."""
    from training.network.model_dir import load

    try:
        load(model.path)
    except ModelMismatchError as error:
        yield GateFinding("fits", str(error), is_final=True)


RULES: Final[tuple[Rule, ...]] = (find_misfit,)
"""In the order in which they are asked. A rule that compares metrics belongs here."""


def examine(model: StoredModel, *, is_forced: bool) -> list[GateFinding]:
    """Return what speaks against a model; forced, only what holds all the same."""
    found = [finding for rule in RULES for finding in rule(model)]
    return [finding for finding in found if finding.is_final or not is_forced]
