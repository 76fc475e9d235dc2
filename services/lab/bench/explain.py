"""The bench `explain`: whether explanations are faithful to the model, and what one takes.

Belongs here: which model and whose histories. Measures are in `training.lab.studies.faithfulness`.
"""

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from feature_repo.events.schema import EventRecord, ItemRecord
from services.demo.latency import percentiles

USERS: Final = 150
MIN_EVENTS: Final = 12
RANDOM_USERS: Final = 20
DAY_MS: Final = 86_400_000

Tell = Callable[[int, int, str], None]
History = tuple[str, list[EventRecord]]


def measure_explain(tell: Tell, *, model: Path | None, data: Path | None) -> dict[str, Any]:
    """Measure on a model, or on one trained for the purpose.

    Parameters
    ----------
    model
        Model directory; default: one is trained on the data.
    data
        Table of events as `portrait compare events` takes it; default: a made-up shop of
        habits.

    Returns
    -------
    dict
        Falls of the best item's score; their ratio, None if random events leave the score no
        lower; the 95 % interval over users of the one fall less twice the other; rank
        correlation with random weights; time of an explanation.
    """
    from training.lab.studies.faithfulness import deletion, likeness_to_random
    from training.network.model_dir import load

    histories = habits() if data is None else _read(data)
    with tempfile.TemporaryDirectory(prefix="portrait-bench-") as folder:
        path = model or _train(histories, Path(folder), tell)
        loaded, again = load(path), load(path)
        long = [history for _, history in histories if len(history) >= MIN_EVENTS]
        draw = random.Random(0)  # noqa: S311 - a sample, not a secret
        some = draw.sample(long, min(USERS, len(long)))
        found = deletion(loaded, some, tell=lambda done, total: tell(done, total, "deletion"))
        tell(0, 1, "random weights")
        alike = likeness_to_random(loaded, again, some[:RANDOM_USERS], seeds=3)
    return {
        "fall_without_top_5": round(float(found.top.mean()), 4),
        "fall_without_random_5": round(float(found.drawn.mean()), 4),
        "ratio": None if found.ratio is None else round(found.ratio, 2),
        "twice_as_far_95": _interval(found.top - 2 * found.drawn),
        "likeness_to_random_weights": round(float(np.nanmean(alike)), 3),
        "explanation_ms": percentiles(found.took_ms),
        "shoppers": len(found.top),
        "items": len(loaded.vocabulary.items),
        "memories": loaded.memory is not None,
    }


def habits(users: int = 200, events: int = 40) -> list[History]:
    """Return a made-up shop: users buy two of their own four favourites, and one item more."""
    made = list[History]()
    for user in range(users):
        draw = random.Random(f"habits-{user}")  # noqa: S311 - a load, not a secret
        own = [f"i{(user * 7 + k) % 60:02d}" for k in range(4)]
        history = []
        for number in range(events):
            basket = sorted({*draw.sample(own, 2), f"i{draw.randrange(60):02d}"})
            at = 1_600_000_000_000 + number * 2 * DAY_MS + draw.randrange(DAY_MS)
            lines = [ItemRecord(i, price=2.0, category=f"C/{i[-1]}") for i in basket]
            history.append(
                EventRecord(
                    id=f"{user}-{number}", type="purchase", user=f"u{user}", time_ms=at,
                    received_ms=at, items=lines, order_id=str(number),
                )
            )  # fmt: skip
        made.append((f"u{user}", history))
    return made


def _read(data: Path) -> list[History]:
    from training.lab.comparison.datasets import histories_in

    return histories_in(data)


def _train(histories: list[History], folder: Path, tell: Tell) -> Path:
    from training.fit.loop import Fit
    from training.fit.train import write_model
    from training.fit.worker import Alone
    from training.history.prepare import prepare
    from training.network.config import ModelConfig, TrainConfig

    end_ms = max(event.time_ms for _, history in histories for event in history) + 1
    prepare(histories, cut_off_ms=end_ms).write(folder / "run")
    shape, settings = ModelConfig(), TrainConfig(epochs=6)
    tell(0, 1, "train a model")
    Fit(folder / "run", shape, settings, Alone()).run(resume=False)
    write_model(folder / "run", folder / "model", shape, settings)
    return folder / "model"


def _interval(values: Any) -> list[float]:
    """Return the 95 % interval of the mean, users drawn again 2,000 times."""
    rows = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    return [round(float(v), 4) for v in np.percentile(values[rows].mean(axis=1), [2.5, 97.5])]
