"""In which order rules give way when nothing is left under them."""

from collections.abc import Callable, Iterator
from typing import Final

from services.http.answer_schemas import RelaxedRule
from services.recommend.rules import Repeat, Rules


def _wider(rules: Rules) -> Rules:
    if rules.category.within is None:
        return rules
    tops = list(dict.fromkeys(name.split("/")[0] for name in rules.category.within))
    return rules.model_copy(update={"category": rules.category.model_copy(update={"within": tops})})


def _without(rules: Rules, *words: str) -> Rules:
    kept = [each for each in rules.exclude if each not in words]
    return rules.model_copy(update={"exclude": kept})


STEPS: Final[tuple[tuple[RelaxedRule, Callable[[Rules], Rules]], ...]] = (
    ("max_age_days", lambda rules: rules.model_copy(update={"max_age_days": None})),
    ("price", lambda rules: rules.model_copy(update={"price": None})),
    ("brand.in", lambda rules: rules.model_copy(
        update={"brand": rules.brand.model_copy(update={"within": None})})),
    ("category.in: department", _wider),
    ("category.in", lambda rules: rules.model_copy(
        update={"category": rules.category.model_copy(update={"within": None})})),
    ("repeat", lambda rules: rules.model_copy(update={"repeat": Repeat()})),
    ("exclude: seen", lambda rules: _without(rules, "seen")),
    ("exclude: purchased", lambda rules: _without(rules, "purchased")),
)  # fmt: skip
"""How rules give way, one after another, when nothing is left. The others never do: item ids
of ``exclude``, ``category.out``, ``brand.out``, ``in_stock``, and what the user refused."""


def relax(rules: Rules) -> Iterator[tuple[RelaxedRule, Rules]]:
    """Yield each step's name with the rules after it; steps that change nothing are left out."""
    for name, step in STEPS:
        wider = step(rules)
        if wider != rules:
            yield name, wider
        rules = wider
