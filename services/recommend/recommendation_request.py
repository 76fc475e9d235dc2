"""Recommendation request: how many items, from where, under which rules."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.recommend.rules import NO_RULES, Among, Rules


@dataclass(frozen=True, slots=True)
class RecommendationRequest:
    """What a request asks for."""

    n: int = 10
    excluded: Collection[str] = ()
    category: str | None = None
    explain: bool = False
    only: Sequence[str] | None = None
    """Rank exactly these items instead of choosing."""
    query: str | None = None
    relevance: Mapping[str, float] = field(default_factory=dict)
    """Of the items in ``only``, to what was searched for."""
    rules: Rules = NO_RULES
    seed: str = ""
    """Decides what exploration draws: the recommendation's id."""

    def demands(self) -> Rules:
        """Return all rules of the request as one."""
        update: dict[str, Any] = {}
        if self.excluded:
            update["exclude"] = [*self.rules.exclude, *self.excluded]
        if self.category is not None:
            update["category"] = Among(within=[self.category], out=self.rules.category.out)
        return self.rules.model_copy(update=update) if update else self.rules
