"""The next category: the model's head beside counts and popularity, by weekly moments."""

from dataclasses import replace
from typing import Any

import numpy as np

from feature_repo.errors import InvalidInputError
from training.evaluation.category_evaluation import against_baselines
from training.evaluation.category_window import measure, moments_inside
from training.history.prepared import weekly_moments
from training.lab.studies.study import Study
from training.network.config import TrainConfig
from training.network.examples import ExampleMaker
from training.network.next_category import NEXT_DAYS


def category(study: Study) -> dict[str, Any]:
    """Measure what is bought from within 14 days of each Monday of the test period.

    Returns
    -------
    dict
        See `training.lab.studies.study.Study.result` and
        `evaluation.category_evaluation.against_baselines`; ``by_seed`` holds the head's NDCG@10.

    Raises
    ------
    InvalidInputError
        If the data set has no times, no categories, or a test period without such a Monday.
    """
    shop = study.shop
    if not shop.split.by_time:
        raise InvalidInputError(f"{shop.name} has no times: there is no next fortnight")
    if len(shop.vocabulary.categories) < 2:
        raise InvalidInputError(f"{shop.name} has no categories: there is nothing to rank")
    histories, split = shop.histories, shop.split
    moments = weekly_moments(
        histories, since_ms=int(histories.time_ms.min()), until_ms=split.until_ms
    )
    whole = replace(shop.whole, moments=moments)
    parts = []
    for n, seed in enumerate(study.seeds):
        tell = study.at(n, len(study.seeds), f"fit, seed {seed}")
        network = study.fit(seed, tell).network
        maker = ExampleMaker(whole, network.config, TrainConfig())
        rows = moments_inside(maker, split.cut_off_ms, split.until_ms)
        found = measure(network, maker, rows).metrics
        if np.isnan(found[:, 0]).all():
            raise InvalidInputError(
                f"{shop.name}: no Monday of the test period has a purchase within {NEXT_DAYS} "
                "days inside it: use more data"
            )
        parts.append(found)
        study.say(f"seed {seed}: next category NDCG@10 {np.nanmean(found[:, 0]):.4f}")
    own = np.mean(parts, axis=0)
    # Portrait is fitted on the training period; so is popularity.
    result = against_baselines(own, maker, rows, fitted_until_ms=split.train_until_ms)
    by_seed = [float(np.nanmean(part[:, 0])) for part in parts]
    return {**study.result("category", result.pop("rows")), **result, "by_seed": by_seed}
