"""Studies of Portrait's own model: how it is fitted, and how rows are reported."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from training.evaluation.metrics import NAMES, Doubles, bootstrap, summary
from training.lab.comparison import portrait_model
from training.lab.comparison.page import machine
from training.lab.comparison.shop import Shop
from training.network.config import ModelConfig
from training.network.network import PortraitNetwork

Tell = Callable[[int, int, str], None]
Told = Callable[[str], None]


@dataclass(frozen=True)
class Study:
    """A data set, how Portrait is fitted to it, and who is told of the progress.

    Attributes
    ----------
    schedule, dropout
        A name of `training.lab.comparison.portrait_model.SCHEDULES`, and the network's dropout.
    seeds
        One fit each; metrics are averaged by request.
    tell, say
        Called with parts done and in all and a line; with a line on each that is finished.
    """

    shop: Shop
    schedule: str
    dropout: float
    seeds: Sequence[int]
    tell: Tell
    say: Told

    def at(self, done: int, total: int, what: str) -> Told:
        """Tell what is at work now; return what tells how far that is."""
        self.tell(done, total, what)
        return lambda line: self.tell(done, total, f"{what}: {line}")

    def fit(
        self,
        seed: int,
        tell: Told,
        without: Mapping[str, Any] | None = None,
        alter: Callable[[PortraitNetwork], None] | None = None,
    ) -> portrait_model.Answers:
        """Fit a network of the schedule's shape, fields of its config changed if any are given."""
        recipe = portrait_model.SCHEDULES[self.schedule]
        shape: ModelConfig = replace(recipe.model, dropout=self.dropout, **(without or {}))
        return portrait_model.fit(self.shop, shape, replace(recipe.config, seed=seed), tell, alter)

    def result(self, name: str, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Return the study's plain values."""
        return {
            **self.shop.describe(),
            "study": name,
            "fit": {
                "schedule": self.schedule, "dropout": self.dropout, "seeds": list(self.seeds)
            },
            "rows": rows,
            "machine": machine(),
        }  # fmt: skip

    def against(self, values: Doubles, base: Doubles) -> dict[str, Any]:
        """Return a row's means and its NDCG@10 less the base's, with intervals."""
        column, users = NAMES.index("ndcg@10"), self.shop.test.user
        gap = bootstrap(values[:, column] - base[:, column], users)
        return {
            **summary(values, users), "less": {"mean": gap.mean, "ci": [gap.low, gap.high]},
        }  # fmt: skip
