"""Evaluation on a test period, the model beside its baselines on the same requests.

Next basket: every target event of the period with an event before it is predicted, then
applied; full ranking over the vocabulary; items outside it are dropped for all alike.
Outcomes: every user on every Monday 00:00 UTC whose days ahead end in the period; a Monday
may lie before it, never its answer.
Next category: every user on every Monday that lies in the period with its 14 days.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.errors import InvalidInputError
from feature_repo.events.schema import iso
from training.evaluation.baselines import (
    EvaluationWindow,
    decayed_frequency,
    logistic_regression,
    popularity_metrics,
    tune_decay,
    window,
)
from training.evaluation.category_evaluation import against_baselines
from training.evaluation.category_window import measure, moments_inside
from training.evaluation.metrics import bootstrap, difference, summary
from training.evaluation.predict import Scored, auc, score_window
from training.history.prepare import History, PointInTime, feast_join, milliseconds, read_histories
from training.history.prepared import VALIDATION_DAYS, Prepared, weekly_moments
from training.history.sequences import Ints, encode
from training.history.vocabulary import DAY_MS
from training.neighbours.item_rows import recent_popularity
from training.network import sampled_softmax
from training.network.config import TrainConfig
from training.network.devices import one_thread
from training.network.examples import ExampleMaker
from training.network.model_dir import Model, load

Tell = Callable[[int, int, str], None]
RECENT_DAYS = 28.0
MOST_USERS = 5000
"""Most users evaluated where there are more than `network.sampled_softmax.FULL_ITEMS` items."""


def evaluate(
    home: Path,
    model_path: Path,
    *,
    since: datetime,
    until: datetime,
    histories: list[History] | None = None,
    progress: Tell = lambda done, total, what: None,
) -> dict[str, Any]:
    """Measure a model and its baselines on ``[since, until)``.

    Parameters
    ----------
    home
        State folder; its archive holds the test period unless ``histories`` does.
    since, until
        Test period with offsets; ``since`` is the model's cut-off or later.
    histories
        All users' events in fold order, instead of the archive's.
    progress
        Called with what is done, of how much (0: not known), and what it is.

    Returns
    -------
    dict
        ``next_basket`` (per method `evaluation.metrics.NAMES` and ``ci``), ``difference`` (model −
        decayed frequency, paired), ``outcomes`` (by name of `history.prepared.OUTCOMES`, the
        model and logistic regression), ``next_category`` (None without such a head; see
        `training.evaluation.category_evaluation`) and ``test``.

    Raises
    ------
    InvalidInputError
        If the period holds no basket to predict.
    """
    model = load(model_path)
    bounds = milliseconds(since), milliseconds(until)
    events = read_histories(home, until_ms=bounds[1]) if histories is None else histories
    join = feast_join(home) if model.user_features.names else None
    progress(0, 0, "joining features to the test period")
    prepared = _prepare(model, events, bounds, join)
    with one_thread():
        users = _users(prepared)
        timed = _score(model, prepared, bounds, users, progress, timed=True)
        baskets = _next_basket(model, prepared, bounds, users, timed, progress)
        progress(0, 0, "judging outcomes and the next category")
        return {
            **baskets,
            "outcomes": _outcomes(model, prepared, timed),
            "next_category": _next_category(model, prepared, bounds),
        }


def _prepare(
    model: Model, events: list[History], bounds: tuple[int, int], join: PointInTime | None
) -> Prepared:
    before = [(u, [e for e in h if e.time_ms < bounds[1]]) for u, h in events]
    encoded = encode([(u, h) for u, h in before if h], model.vocabulary)
    start = int(encoded.time_ms.min(initial=bounds[0]))
    moments = weekly_moments(encoded, since_ms=start, until_ms=bounds[1])
    names = model.user_features.names
    rows = np.concatenate(
        [np.repeat(np.arange(len(encoded.users)), encoded.lengths()), moments.user]
    )
    values = np.zeros((len(rows), len(names)), np.float32)
    if join is not None:
        times = np.concatenate([encoded.time_ms, moments.time_ms])
        table = join([encoded.users[r] for r in rows], times)
        given: npt.NDArray[np.float64] = table[list(names)].to_numpy(np.float64, na_value=np.nan)
        values = model.user_features.transform(given)
    split = len(encoded.time_ms)
    return Prepared(
        model.vocabulary, model.user_features, encoded, values[:split],
        replace(moments, features=values[split:]), bounds[0] - VALIDATION_DAYS * DAY_MS, bounds[0],
    )  # fmt: skip


def _users(prepared: Prepared) -> Ints:
    """Return the users evaluated: all, or with very many items an evenly spread part of many."""
    users = np.arange(len(prepared.histories.users))
    many = len(prepared.vocabulary.items) > sampled_softmax.FULL_ITEMS
    return users[:: max(1, -(-len(users) // MOST_USERS))] if many else users


def _score(
    model: Model,
    prepared: Prepared,
    bounds: tuple[int, int],
    users: Ints,
    progress: Tell,
    *,
    timed: bool,
) -> Scored:
    maker = ExampleMaker(prepared, model.config, TrainConfig(), model.memory)
    what = f"users' baskets ranked, {'with' if timed else 'without'} the time of the request"
    return score_window(
        model.network, maker, users, bounds, timed=timed, reranker=model.reranker,
        progress=lambda done, total: progress(done, total, what),
    )  # fmt: skip


def _next_basket(
    model: Model,
    prepared: Prepared,
    bounds: tuple[int, int],
    users: Ints,
    at_time: Scored,
    progress: Tell,
) -> dict[str, Any]:
    histories, items = prepared.histories, len(model.vocabulary.items)
    wanted = _of(window(histories, *bounds), users)
    if not len(wanted.event):
        raise InvalidInputError(
            f"no basket to predict between {iso(bounds[0])} and {iso(bounds[1])}: "
            "choose a period with events of users seen before"
        )
    popular = recent_popularity(histories, items, until_ms=bounds[0], half_life_days=1e9)
    recent = recent_popularity(histories, items, until_ms=bounds[0], half_life_days=RECENT_DAYS)
    tuning = window(histories, prepared.train_until_ms, prepared.until_ms)
    progress(0, 0, "tuning the baseline on the validation period")
    decay = tune_decay(histories, tuning, popular)
    frequency = decayed_frequency(histories, wanted, decay, popular)
    own = _align(_score(model, prepared, bounds, users, progress, timed=False), wanted)
    timed = _align(at_time, wanted)
    methods = {
        "model": own,
        "model_with_request_time": timed,
        "decayed_frequency": frequency,
        "popularity": popularity_metrics(histories, wanted, popular),
        "recent_popularity": popularity_metrics(histories, wanted, recent),
    }
    lines = np.diff(histories.lines)[wanted.event]
    known = np.array(
        [
            (histories.item[histories.lines[e] : histories.lines[e + 1]] > 0).sum()
            for e in wanted.event
        ]
    )
    return {
        "next_basket": {name: summary(values, wanted.user) for name, values in methods.items()},
        "difference": {
            "model": difference(own, frequency, wanted.user),
            "model_with_request_time": difference(timed, frequency, wanted.user),
        },
        "decay": decay.describe(),
        "test": {
            "since": iso(bounds[0]),
            "until": iso(bounds[1]),
            "baskets": len(wanted.event),
            "users": len(np.unique(wanted.user)),
            "items": items,
            "lines": int(lines.sum()),
            "lines_outside_vocabulary": int(lines.sum() - known.sum()),
            "baskets_without_known_item": _without(prepared, bounds, users) - len(wanted.event),
            "one_user_in": -(-len(histories.users) // max(1, len(users))),
        },
    }


def _of(found: EvaluationWindow, users: Ints) -> EvaluationWindow:
    among = np.isin(found.user, users)
    return EvaluationWindow(found.event[among], found.user[among])


def _without(prepared: Prepared, bounds: tuple[int, int], users: Ints) -> int:
    histories = prepared.histories
    inside = (histories.time_ms >= bounds[0]) & (histories.time_ms < bounds[1])
    inside &= np.repeat(np.isin(np.arange(len(histories.users)), users), histories.lengths())
    return int((histories.target & inside).sum())


def _align(scored: Scored, wanted: EvaluationWindow) -> npt.NDArray[np.float64]:
    """Put the network's rows into the order of ``wanted``."""
    order = np.argsort(scored.answers, kind="stable")
    assert (scored.answers[order] == np.sort(wanted.event)).all()
    out = np.empty_like(scored.metrics)
    out[np.argsort(wanted.event, kind="stable")] = scored.metrics[order]
    return out


def _outcomes(model: Model, prepared: Prepared, scored: Scored) -> dict[str, Any]:
    moments, found = prepared.moments, dict[str, Any]()
    trained = ExampleMaker(prepared, model.config, TrainConfig()).labels(
        -(2**62), prepared.train_until_ms
    )
    for k, name in enumerate(model.network.outcomes):
        labels, probabilities = scored.select_known(k)
        if not len(labels):
            continue
        rows = scored.moment_rows[~np.isnan(scored.labels[:, k])]
        users = moments.user[rows]
        result = {"model": _quality(labels, probabilities, users)}
        early = np.flatnonzero(~np.isnan(trained[:, k]))
        known = trained[early, k]
        if moments.features.shape[1] and len(np.unique(known)) == 2:
            other = logistic_regression(moments.features[early], known, moments.features[rows])
            result["logistic_regression"] = _quality(labels, other, users)
        found[name] = {
            **result, "moments": len(rows), "rate": float(labels.mean()),
            "calibrated": model.network.calibrated()[k],
        }  # fmt: skip
    return found


def _next_category(
    model: Model, prepared: Prepared, bounds: tuple[int, int]
) -> dict[str, Any] | None:
    head = model.network.next_category
    maker = ExampleMaker(prepared, model.config, TrainConfig())
    rows = moments_inside(maker, *bounds)
    if head is None or not len(rows):
        return None
    found = measure(model.network, maker, rows)
    if np.isnan(found.metrics).all():
        return None
    return {
        **against_baselines(found.metrics, maker, rows, fitted_until_ms=prepared.until_ms),
        "calibrated": head.calibrated(),
        "calibration_error": found.calibration_error(),
    }


def _quality(labels: Any, probabilities: Any, users: Any) -> dict[str, Any]:
    p = np.clip(np.asarray(probabilities, np.float64), 1e-6, 1 - 1e-6)
    losses = -(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    interval = bootstrap(losses, users)
    bins = np.minimum((p * 10).astype(int), 9)
    count = np.bincount(bins, minlength=10)
    said, true = (np.bincount(bins, values, minlength=10) for values in (p, labels))
    return {
        "auc": auc(labels, p),
        "log_loss": interval.mean,
        "log_loss_ci": [interval.low, interval.high],
        "calibration_error": float(np.abs(said - true).sum() / max(int(count.sum()), 1)),
        "reliability": [
            {"said": s / n, "true": t / n, "moments": int(n)}
            for s, t, n in zip(said.tolist(), true.tolist(), count.tolist(), strict=True)
            if n
        ],
    }
