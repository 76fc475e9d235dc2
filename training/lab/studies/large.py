"""Large catalogues: training, keeping and asking a model of up to a million items.

Made-up users of `EVENTS` purchases each. Half of the purchases go through the whole catalogue,
the others follow a power law within the user's own part of it.
"""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.events.types import CONSUMED
from training.fit.loop import Fit
from training.fit.train import write_model
from training.fit.worker import Alone
from training.history.prepared import VALIDATION_DAYS, Prepared, weekly_moments
from training.history.sequences import NUMERIC, Histories, Ints
from training.history.user_features import UserFeatures
from training.history.vocabulary import DAY_MS, Vocabulary
from training.network.config import ModelConfig, TrainConfig
from training.network.devices import accelerator, one_thread
from training.network.model_dir import Model, load
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition

EVENTS: Final = 10
DAYS: Final = 200
PARTS: Final = 200
"""Parts of the catalogue; every user keeps to one."""
REQUESTS: Final = 300
K: Final = 100
_START_MS: Final = 10_000 * DAY_MS

Tell = Callable[[int, int, str], None]


def shop(items: int, users: int, seed: int = 0) -> Prepared:
    """Return what training reads of a made-up shop of which every item is known.

    Parameters
    ----------
    items, users
        Sizes.
    """
    generator = np.random.default_rng(seed)
    total = users * EVENTS
    everything = np.resize(generator.permutation(items), total)
    within = np.minimum(generator.pareto(0.8, total) * 3, items // PARTS - 1).astype(np.int64)
    own = np.repeat(generator.integers(PARTS, size=users), EVENTS)
    sold = np.where(generator.random(total) < 0.5, everything, within * PARTS + own)
    count = np.bincount(sold, minlength=items)
    order = np.argsort(-count, kind="stable")
    row = np.empty(items, np.int64)
    row[order] = np.arange(1, items + 1)
    times = np.sort(generator.integers(DAYS * DAY_MS, size=(users, EVENTS)), axis=1)
    histories = Histories(
        users=tuple(f"u{n:07d}" for n in range(users)),
        starts=np.arange(users + 1) * EVENTS,
        time_ms=_START_MS + times.ravel(),
        kind=np.full(total, CONSUMED.index("purchase")),
        weight=np.ones(total, np.float32),
        target=np.ones(total, np.bool_),
        numeric=np.full((total, len(NUMERIC)), np.log(2.0), np.float32),
        lines=np.arange(total + 1),
        item=row[sold],
        category=1 + sold % PARTS,
    )
    until = _START_MS + DAYS * DAY_MS
    moments = weekly_moments(histories, since_ms=_START_MS, until_ms=until)
    return Prepared(
        _vocabulary(order, count[order]), UserFeatures.none(), histories,
        np.zeros((total, 0), np.float32), moments, until - VALIDATION_DAYS * DAY_MS, until,
    )  # fmt: skip


def _vocabulary(order: Ints, count: Ints) -> Vocabulary:
    logs = np.log(count + 0.5)
    logs = (logs - logs.mean()).astype(np.float32)
    return Vocabulary(
        items=tuple(f"i{n:07d}" for n in order),
        categories=tuple(f"part {n}" for n in range(PARTS)),
        item_category=1 + order % PARTS,
        log_popularity=logs,
        log_support=logs,
        median_gap_days=np.full(len(order), 30.0, np.float32),
        target="purchase",
    )


def measure(items: int, *, tell: Tell, users: int | None = None) -> dict[str, Any]:
    """Return seconds, megabytes and milliseconds of one epoch and the model that it makes.

    ``cpu_s`` and ``peak_memory_mb`` are of the whole process.

    Parameters
    ----------
    items
        Size of the catalogue.
    users
        Users; None: one for 25 items, at least 2,000.
    """
    count = users or max(2000, items // 25)
    settings = TrainConfig(epochs=1)
    with TemporaryDirectory(prefix="portrait-large-") as folder, one_thread():
        run, target = Path(folder) / "run", Path(folder) / "model"
        tell(0, 4, "making a shop")
        prepared = shop(items, count)
        prepared.write(run)
        tell(1, 4, "training an epoch")
        fit = Fit(run, ModelConfig(), settings, Alone(accelerator()))
        record = fit.run(resume=False).epochs[0]
        steps = fit.progress.step
        del fit
        tell(2, 4, "weighing memories, writing the model")
        began = time.perf_counter()
        write_model(run, target, ModelConfig(), settings)
        wrote = time.perf_counter() - began
        size = sum(path.stat().st_size for path in target.iterdir())
        began = time.perf_counter()
        model = load(target)
        loaded = time.perf_counter() - began
        tell(3, 4, "asking")
        answered = ask(model, prepared)
    return {
        "epoch_s": record["train_seconds"],
        "validation_s": record["seconds"] - record["train_seconds"],
        "write_s": wrote,
        "load_s": loaded,
        "model_mb": size / 1e6,
        "cpu_s": time.process_time(),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        **answered,
        "details": {
            "items": items, "users": count, "events": count * EVENTS, "steps": steps,
            "validation_ndcg@10": record["validation_ndcg@10"],
            "memories": model.manifest["metrics"]["memories"],
        },
    }  # fmt: skip


def ask(model: Model, prepared: Prepared) -> dict[str, float]:
    """Return how long the best `K` of all items take, and how many of them they are."""
    scorer, transition = Scorer(model), LearnedTransition(model)
    users = np.linspace(0, len(prepared.histories.users) - 1, REQUESTS).astype(np.int64)
    now = prepared.until_ms
    taken, dense, hits = list[float](), list[float](), list[float]()
    for state in transition.replay([_events(prepared, user) for user in users]):
        began = time.perf_counter()
        query = scorer.ask(state, now)
        assert query is not None
        found, _ = query.best(K)
        taken.append(1000 * (time.perf_counter() - began))
        began = time.perf_counter()
        scores = scorer.scores(state, now)
        best = np.argpartition(-scores, K)[:K]
        dense.append(1000 * (time.perf_counter() - began))
        hits.append(len(np.intersect1d(found, best)) / K)
    return {
        "top_p50_ms": _middle(taken), "top_p99_ms": float(np.quantile(taken, 0.99)),
        "all_scores_p50_ms": _middle(dense), "recall_of_all_scores": float(np.mean(hits)),
    }  # fmt: skip


def _middle(values: list[float]) -> float:
    return float(np.median(np.array(values)))


def _events(prepared: Prepared, user: int) -> list[EventRecord]:
    histories, vocabulary = prepared.histories, prepared.vocabulary
    part: npt.NDArray[np.int64] = np.arange(histories.starts[user], histories.starts[user + 1])
    return [
        EventRecord(
            id=f"{user}-{n}", type="purchase", user=histories.users[user],
            time_ms=int(histories.time_ms[n]), received_ms=int(histories.time_ms[n]),
            items=[ItemRecord(
                item_id=vocabulary.items[histories.item[n] - 1],
                category=vocabulary.categories[histories.category[n] - 1],
            )],
        )
        for n in part
    ]  # fmt: skip
