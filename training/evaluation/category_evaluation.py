"""The next-category head beside its baselines, on the same moments."""

from typing import Any

import numpy as np

from training.evaluation.category_baselines import count_metrics, popular_categories, tune_shrink
from training.evaluation.category_window import moments_inside
from training.evaluation.metrics import Doubles, difference, summary
from training.history.sequences import Ints
from training.network.examples import ExampleMaker


def against_baselines(
    own: Doubles, maker: ExampleMaker, rows: Ints, *, fitted_until_ms: int
) -> dict[str, Any]:
    """Compare the head's metrics with those of counts and of popularity.

    Both baselines read what came before ``fitted_until_ms`` for popularity, and counts every line
    of the user before the moment; how far they are shrunk is tuned on the validation period.

    Parameters
    ----------
    own
        `training.evaluation.category_window.measure` at ``rows``, shape (M, 4).

    Returns
    -------
    dict
        ``rows`` with ``model``, ``counts_112_days`` and ``popularity`` (each as
        `training.evaluation.metrics.summary`), ``difference`` (model − counts, paired by moment),
        ``shrink``, ``moments`` (with a purchase), ``users`` and ``categories``.
    """
    prepared = maker.prepared
    histories, moments = prepared.histories, prepared.moments
    categories = len(prepared.vocabulary.categories)
    popular = popular_categories(histories, categories, until_ms=fitted_until_ms)
    choose = moments_inside(maker, prepared.train_until_ms, prepared.until_ms)
    shrink = tune_shrink(histories, moments, choose, popular)
    counts = count_metrics(histories, moments, rows, popular, shrink)
    alone = count_metrics(histories, moments, rows, popular, float("inf"))
    some = ~np.isnan(own[:, 0])
    users = moments.user[rows][some]
    return {
        "rows": {
            name: summary(values[some], users)
            for name, values in (
                ("model", own), ("counts_112_days", counts), ("popularity", alone)
            )
        },
        "difference": difference(own[some], counts[some], users),
        "shrink": shrink,
        "moments": int(some.sum()),
        "users": len(np.unique(users)),
        "categories": categories,
    }  # fmt: skip
