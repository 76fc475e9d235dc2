"""Peers that add up: counts and item-item rows over faded histories."""

from collections.abc import Iterable
from typing import Any, ClassVar, Final

import numpy as np
import torch
from torch import Tensor

from training.evaluation.baselines import EvaluationWindow
from training.lab.comparison.histories import Fade, baskets, fade_histories, training_requests
from training.lab.comparison.peer import Added, Peer, Setting
from training.lab.comparison.shop import Shop
from training.neighbours import item_rows

MAX_DENSE_ITEMS: Final = 15_000
_GAMMAS: Final = (0.95, 0.9, 0.8, 0.98, 0.6, 1.0)


class Popularity(Peer):
    """Count of target lines, over all time or halved every so many days."""

    name = "popularity"
    grid: ClassVar = {"half_life_days": (None, 112.0, 56.0, 28.0, 14.0, 7.0, 3.0, 1.0)}

    def fit(self, setting: Setting) -> None:
        self._scores = torch.from_numpy(_popular(self.shop, setting["half_life_days"]))

    def score(self, wanted: EvaluationWindow) -> Tensor:
        return self._scores.expand(len(wanted.event), -1)


class Frequency(Added):
    """How often the user had an item, faded; ties by popularity."""

    name = "frequency"

    def settings(self) -> Iterable[Setting]:
        for gamma in (0.95, 0.9, 0.97, 0.8, 0.98, 0.99, 1.0, 0.6):
            yield {"per_event": gamma, "half_life_days": None}
        for days in (112.0, 56.0, 28.0, 7.0, 1.0):
            yield {"per_event": 1.0, "half_life_days": days}

    def fit(self, setting: Setting) -> None:
        floor = self.once(_popular, self.shop, 112.0)
        self._ties = torch.from_numpy(1e-3 * floor / max(float(floor.max(initial=0.0)), 1e-9))
        days = setting["half_life_days"] or float("inf")
        self.parts = [(1.0, None, Fade(setting["per_event"], days))]

    def score(self, wanted: EvaluationWindow) -> Tensor:
        return super().score(wanted) + self._ties


class ItemKnn(Added):
    """Cosine neighbours of what the user had, faded (Sarwar et al., WWW 2001)."""

    name = "item_knn"
    grid: ClassVar = {
        "shrink": (10.0, 50.0, 0.0), "neighbours": (200, 50, 1000), "per_event": _GAMMAS
    }  # fmt: skip

    def fit(self, setting: Setting) -> None:
        near = self.once(_near, self.shop, setting["shrink"], setting["neighbours"])
        self.parts = [(1.0, near, Fade(setting["per_event"]))]


class Transitions(Added):
    """What came after what the user had, faded."""

    name = "transitions"
    grid: ClassVar = {"per_event": (0.8, 0.9, 0.6, 0.95, 0.98, 0.4)}

    def fit(self, setting: Setting) -> None:
        self.parts = [(1.0, self.once(_after, self.shop), Fade(setting["per_event"]))]


class Ease(Added):
    """EASE over the faded history (Steck, WWW 2019)."""

    name = "ease"
    dense = True
    grid: ClassVar = {
        "ridge": (500.0, 200.0, 1000.0, 100.0, 50.0, 2000.0), "per_event": _GAMMAS
    }  # fmt: skip

    def fit(self, setting: Setting) -> None:
        rows = self.once(_ease, self.shop, setting["ridge"])
        self.parts = [(1.0, rows, Fade(setting["per_event"]))]


class EaseTransitions(Ease):
    """EASE and transitions added up, each faded in its own way."""

    name = "ease_transitions"
    grid: ClassVar = {
        "ridge": (500.0, 200.0, 1000.0), "per_event": (0.9, 0.8, 0.95),
        "transitions_per_event": (0.8, 0.6), "transitions_share": (1.0, 0.3, 3.0, 10.0),
    }  # fmt: skip

    def fit(self, setting: Setting) -> None:
        super().fit(setting)
        after, fade = self.once(_after, self.shop), Fade(setting["transitions_per_event"])
        self.parts.append((setting["transitions_share"], after, fade))


class RidgeBaskets(Added):
    """Ridge regression of the next basket on the faded history, plus faded counts."""

    name = "ridge_baskets"
    repeats = dense = True
    grid: ClassVar = {
        "per_event": (0.9, 0.95, 0.8), "ridge": (100.0, 1000.0, 20.0),
        "count_per_event": (0.95, 0.9), "count_share": (0.25, 0.1, 0.5),
    }  # fmt: skip

    def fit(self, setting: Setting) -> None:
        fade = Fade(setting["per_event"])
        gram, right = self.once(_regression, self.shop, fade)
        self.parts = [
            (1.0, self.once(_solve, gram, right, setting["ridge"]), fade),
            (setting["count_share"], None, Fade(setting["count_per_event"])),
        ]


def _near(shop: Shop, shrink: float, keep: int) -> Any:
    return item_rows.top(item_rows.cosine(interactions(shop), shrink), keep)


def _ease(shop: Shop, ridge: float) -> Any:
    return item_rows.ease(interactions(shop), ridge)


def _after(shop: Shop) -> Any:
    return item_rows.transitions(shop.histories, shop.trained, shop.items)


def _regression(shop: Shop, fade: Fade) -> tuple[Any, Any]:
    """Return the normal equations of the next basket on the faded history."""
    requests = training_requests(shop)
    past = fade_histories(shop, requests, fade)
    gram = (past.T @ past).toarray().astype(np.float64)
    return gram, (past.T @ baskets(shop, requests)).toarray()


def _solve(gram: Any, right: Any, ridge: float) -> Any:
    return np.linalg.solve(gram + ridge * np.eye(len(gram)), right).astype(np.float32)


def interactions(shop: Shop) -> Any:
    """Return who had what in the training period, shape (U, N), sparse."""
    return item_rows.interactions(shop.histories, shop.trained, shop.items)


def _popular(shop: Shop, half_life_days: float | None) -> Any:
    return item_rows.recent_popularity(
        shop.histories, shop.items, until_ms=shop.split.train_until_ms,
        half_life_days=half_life_days or float("inf"),
    )  # fmt: skip
