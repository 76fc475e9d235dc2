"""Ranking: items best first, and how they came about."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.http.answer_schemas import Recommended, RelaxedRule


@dataclass(slots=True)
class Ranking:
    """Items best first, and how they came about.

    Attributes
    ----------
    model
        Version of the model that scored, None without.
    personalized
        Whether anything about the user counted.
    relaxed
        Rules that gave way because nothing was left, in order.
    failed
        Whether the model was asked and failed.
    stage_ms
        Milliseconds by stage: candidates, score, rules, retrieve, diversify, explain.
    """

    items: list[Recommended] = field(default_factory=list)
    model: str | None = None
    personalized: bool = False
    relaxed: list[RelaxedRule] = field(default_factory=list)
    failed: bool = False
    stage_ms: dict[str, float] = field(default_factory=dict)
    _from_s: float = field(default_factory=time.perf_counter, init=False, repr=False, compare=False)

    def fill(self, scored: Sequence[tuple[str, float]]) -> None:
        """Take items and scores, best first."""
        self.items = [
            {"item_id": item, "score": round(value, 6), "rank": rank, "reasons": []}
            for rank, (item, value) in enumerate(scored, start=1)
        ]

    def lap(self, stage: str) -> None:
        """Note what the stage that ends took: the time since the last one, or the beginning."""
        now_s = time.perf_counter()
        self.stage_ms[stage] = (now_s - self._from_s) * 1000
        self._from_s = now_s
