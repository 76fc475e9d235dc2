"""The three ways to update a profile, by one measure."""

from functools import partial
from typing import Any, Final

import numpy as np

from feature_repo.errors import InvalidInputError
from training.lab.comparison.protocol import measure, sample
from training.lab.studies.adaptation import adaptation, step_costs
from training.lab.studies.outlier_event import Odd, jump
from training.lab.studies.study import Study
from training.lab.studies.update_strategies import Ways, by_category

ODD: Final = 1000
"""Requests before which an odd event is put."""


def updating(study: Study) -> dict[str, Any]:
    """Compare the three ways on a data set, and on a synthetic shop with planted changes.

    Returns
    -------
    dict
        See `training.lab.studies.study.Study.result`; ``rows`` by way: next item as everywhere,
        ``next_category`` (NDCG@10), ``jump`` (see `jump`), ``adaptation`` (see
        `training.lab.studies.adaptation`) and ``microseconds`` per event.

    Raises
    ------
    InvalidInputError
        If the data set has no categories.
    """
    shop = study.shop
    if len(shop.vocabulary.categories) < 2:
        raise InvalidInputError(f"{shop.name} has no categories: the three ways need some")
    seed = study.seeds[0]
    ways, chosen = Ways(shop, study.fit(seed, study.at(0, 4, "fit"))).tune()
    odd = Odd.of(shop, sample(shop.test, ODD), np.random.default_rng(seed))
    items = {name: measure(shop, shop.test, partial(way.items, shop)) for name, way in ways.items()}
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
