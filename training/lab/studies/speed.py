"""Speed of the training loop, beside a plain GRU over the same histories.

An event counts when it is predicted once, with softmax over all items, and the gradient of that is
applied. The floor, `training.lab.comparison.learned`'s GRU, is an embedding, one fused GRU and the
softmax: no categories, numbers, times, repeat table or outcomes.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from feature_repo.events.schema import EventRecord, ItemRecord
from training.fit.loop import Fit
from training.fit.train import train_with_ray
from training.fit.worker import Alone
from training.history.vocabulary import DAY_MS
from training.lab.comparison import learned
from training.lab.comparison.datasets import by_time
from training.lab.comparison.shop import Shop
from training.lab.studies import recbole_env
from training.network.config import ModelConfig, TrainConfig
from training.network.devices import accelerator, one_thread

USERS: Final = 943
EVENTS: Final = 100_000
ITEMS: Final = 1682
"""MovieLens-100K's size."""
ROUNDS: Final = 3
EVERY: Final = TrainConfig(epochs=1, positions=1_000_000, request_time=0.0, batch_users=16)
"""One epoch that predicts every event."""

Tell = Callable[[int, int, str], None]


def films(seed: int = 0) -> Shop:
    """Return made-up histories of MovieLens-100K's size: long ones, items by a power law."""
    generator = np.random.default_rng(seed)
    lengths = generator.lognormal(4.2, 0.9, USERS).clip(20, 700)
    lengths = np.rint(lengths * EVENTS / lengths.sum()).astype(np.int64)
    probability = 1.0 / (np.arange(ITEMS) + 20.0)
    probability /= probability.sum()
    histories = []
    for n, length in enumerate(lengths):
        items = generator.choice(ITEMS, size=length, p=probability)
        start = 10_000 * DAY_MS + int(generator.integers(200)) * DAY_MS
        histories.append(
            (f"u{n}", [_event(n, k, start + k * 60_000, int(i)) for k, i in enumerate(items)])
        )
    return Shop("films", histories, by_time(histories), support=1)


def _event(user: int, number: int, time_ms: int, item: int) -> EventRecord:
    return EventRecord(
        id=f"{user}-{number}", type="rate_item", user=f"u{user}", time_ms=time_ms,
        received_ms=time_ms, items=[ItemRecord(item_id=f"i{item}")],
    )  # fmt: skip


def measure(
    shop: Shop, *, seconds: float, workers: int, tell: Tell, peers: bool = False
) -> dict[str, Any]:
    """Return events predicted and learned from in a second, by one process and by workers.

    Parameters
    ----------
    seconds
        Of each of the rounds that the two take in turns.
    workers
        Ray Train workers of the last measurement; below 2 it is left out.
    peers
        Measure RecBole's GRU4Rec too, right after the rounds.
    """
    rates: dict[str, list[float]] = {"portrait": [], "gru": []}
    with TemporaryDirectory(prefix="portrait-speed-") as folder, one_thread():
        shop.prepare().write(Path(folder))
        steps = {"portrait": _portrait(Path(folder)), "gru": _gru(shop)}
        for turn in range(ROUNDS):
            for name, each in steps.items():
                tell(turn, ROUNDS, name)
                next(each)  # what is made once is not counted
                rates[name].append(_rate(each, seconds))
    if peers:
        tell(ROUNDS, ROUNDS, "RecBole's GRU4Rec")
        rates["recbole"] = recbole_env.events_per_s(shop, rounds=ROUNDS, seconds=seconds)
    scaling = _scaling(shop, workers, tell) if workers > 1 else {}
    middle = {name: float(np.median(found)) for name, found in rates.items()}
    return {
        "events_per_s": middle["portrait"],
        "gru_events_per_s": middle["gru"],
        "over_gru": middle["portrait"] / middle["gru"],
        **(
            {
                "recbole_gru4rec_events_per_s": middle["recbole"],
                "over_recbole_gru4rec": middle["portrait"] / middle["recbole"],
            }
            if peers
            else {}
        ),
        **scaling,
        "details": {
            "dataset": shop.name,
            "events": len(shop.histories.time_ms),
            "items": shop.items,
            "spread": {name: [min(found), max(found)] for name, found in rates.items()},
            "batch": {"portrait_histories": EVERY.batch_users, "gru_pieces": learned.BATCH},
        },
    }


def _rate(steps: Iterator[int], seconds: float) -> float:
    began, events = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < seconds:
        events += next(steps)
    return events / took


def _portrait(folder: Path) -> Iterator[int]:
    """Yield the number of events predicted by each step, for ever."""
    run = Fit(folder, ModelConfig(), EVERY, Alone(accelerator()))
    for epoch in itertools.count():
        run.step.train()
        for example in run.examples(run.maker.train_batches(epoch), epoch):
            yield run.batch(example)[1]


def _gru(shop: Shop) -> Iterator[int]:
    width = learned.Width()
    network = learned.Sequence(shop.items, learned.Recurrent(width), width).to(accelerator())
    fitting = learned.Fitting(shop, network, width, seed=0)
    while True:
        yield from fitting.epoch()


def _scaling(shop: Shop, workers: int, tell: Tell) -> dict[str, Any]:
    """Train an epoch with one Ray Train worker, and one with several."""
    rates = []
    for count in (1, workers):
        tell(0, 1, f"Ray Train, {count} workers")
        # A folder each: a run goes on from the checkpoint that it finds.
        with TemporaryDirectory(prefix="portrait-speed-") as folder:
            shop.prepare().write(Path(folder))
            settings = replace(EVERY, epochs=2)
            records = train_with_ray(Path(folder), ModelConfig(), settings, count)
        # The first epoch compiles and warms up.
        rates.append(records[-1]["events"] / records[-1]["train_seconds"])
    return {
        "ray_events_per_s": {"1": rates[0], str(workers): rates[1]},
        "scaling": rates[1] / rates[0],
    }
