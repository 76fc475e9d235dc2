"""Freshness of profiles: the same networks aged with states of different age."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from feature_repo.errors import InvalidInputError
from training.evaluation.metrics import Doubles
from training.lab.comparison.protocol import measure
from training.lab.studies.study import Study

FRESH: Final = "0 s"
AGES_MS: Final[Mapping[str, int]] = {
    FRESH: 0,
    "1 min": 60_000,
    "1 h": 3_600_000,
    "1 day": 86_400_000,
    "7 days": 7 * 86_400_000,
}
"""An event counts in a state once it is so old; at 0 s all that came before the request do."""


def freshness(study: Study) -> dict[str, Any]:
    """Measure NDCG@10 by the age of the state; who had no event that old is shown popularity.

    What the user had is left out of masked rankings at every age alike.

    Returns
    -------
    dict
        See `training.lab.studies.study.Study.result`; ``rows`` by age, with ``without_state``
        (share of requests) and ``less``, NDCG@10 minus that of the fresh state.

    Raises
    ------
    InvalidInputError
        If the data set has an order but no times.
    """
    shop = study.shop
    if not shop.split.by_time:
        raise InvalidInputError(f"{shop.name} has no times: the age of a state means nothing")
    fitted = []
    for n, seed in enumerate(study.seeds):
        tell = study.at(n, len(study.seeds), f"fit, seed {seed}")
        fitted.append(study.fit(seed, tell))
    rows, without = dict[str, Doubles](), dict[str, float]()
    for name, age_ms in AGES_MS.items():
        aged = [replace(answers, age_ms=age_ms) for answers in fitted]
        rows[name] = np.mean([measure(shop, shop.test, answers) for answers in aged], axis=0)
        without[name] = aged[0].without_state(shop.test)
        study.say(f"state {name} old: NDCG@10 {np.nanmean(rows[name][:, 0]):.4f}")
    return study.result(
        "freshness",
        {
            name: {**study.against(values, rows[FRESH]), "without_state": without[name]}
            for name, values in rows.items()
        },
    )
