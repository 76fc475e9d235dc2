"""The three ways to update a profile, by one measure."""

import time
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Final

import numpy as np

from feature_repo.errors import InvalidInputError
from training.compare import own
from training.compare.measure import measure, sample
from training.compare.odd import Odd, jump
from training.compare.shop import Shop
from training.compare.study import Study
from training.compare.ways import Catalogue, Clusters, Learned, Rules, Way, by_category

DECAYS: Final = (0.9, 0.95, 0.97, 0.99, 0.8)
CLUSTERS: Final = (16, 64, 256)
CHOOSE_ON: Final = 1500
ODD: Final = 1000
"""Requests before which an odd event is put."""


@dataclass(frozen=True)
class Ways:
    """The three, each tuned on the validation period by NDCG@10 of the next category."""

    shop: Shop
    answers: own.Answers

    @cached_property
    def catalogue(self) -> Catalogue:
        """Return the categories of the shop."""
        return Catalogue.of(self.shop)

    def tuned(self) -> tuple[dict[str, Way], dict[str, Any]]:
        """Return the ways by name, and what was chosen for each."""
        asked = sample(self.shop.validation, CHOOSE_ON)
        rules: dict[tuple[float, ...], Way] = {(g,): Rules(self.catalogue, g) for g in DECAYS}
        clusters: dict[tuple[float, ...], Way] = {
            (g, k): Clusters.fit(self.shop, self.catalogue, g, k, seed=7)
            for g, k in product(DECAYS[:3], CLUSTERS)
        }
        ways: dict[str, Way] = {}
        chosen: dict[str, Any] = {}
        for name, tried in (("rules", rules), ("clusters", clusters)):
            value = {
                setting: float(np.nanmean(by_category(self.shop, asked, way)[:, 0]))
                for setting, way in tried.items()
            }
            best = max(value, key=lambda setting: value[setting])
            ways[name] = tried[best]
            chosen[name] = dict(zip(("per_event", "clusters"), best, strict=False))
        ways["learned"] = Learned(self.catalogue, self.answers)
        return ways, chosen


def updating(study: Study) -> dict[str, Any]:
    """Compare the three ways on a data set, and on a synthetic shop with planted changes.

    Returns
    -------
    dict
        See `training.compare.study.Study.result`; ``rows`` by way: next item as everywhere,
        ``next_category`` (NDCG@10), ``jump`` (see `jump`), ``adaptation`` (see
        `training.compare.adaptation`) and ``microseconds`` per event.

    Raises
    ------
    InvalidInputError
        If the data set has no categories.
    """
    from training.compare.adaptation import adaptation, step_costs

    shop = study.shop
    if len(shop.vocabulary.categories) < 2:
        raise InvalidInputError(f"{shop.name} has no categories: the three ways need some")
    seed = study.seeds[0]
    study.tell(0, 4, "fit")
    ways, chosen = Ways(shop, study.fit(seed)).tuned()
    odd = Odd.of(shop, sample(shop.test, ODD), np.random.default_rng(seed))
    items = {
        name: measure(shop, shop.test, lambda w, way=way: way.items(shop, w))  # type: ignore[misc]
        for name, way in ways.items()
    }
    rows: dict[str, dict[str, Any]] = {}
    for name, way in ways.items():
        study.tell(1, 4, name)
        category = by_category(shop, shop.test, way)
        rows[name] = {
            **study.against(items[name], items["rules"]),
            "next_category": float(np.nanmean(category[:, 0])),
            "jump": jump(odd, way),
            "setting": chosen.get(name, {}),
        }
        study.say(f"{name}: next category NDCG@10 {rows[name]['next_category']:.4f}")
    study.tell(2, 4, "a shop with planted changes")
    for name, found in adaptation(study).items():
        rows[name]["adaptation"] = found
    study.tell(3, 4, "cost of an event")
    for name, microseconds in step_costs(shop, ways).items():
        rows[name]["microseconds"] = microseconds
    return study.result("updating", rows)


def timed(step: Any, count: int) -> float:
    """Return microseconds of one call of ``step(n)``, the least of three rounds."""
    rounds = list[float]()
    for _ in range(3):
        began = time.perf_counter()
        for n in range(count):
            step(n)
        rounds.append((time.perf_counter() - began) / count * 1e6)
    return min(rounds)
