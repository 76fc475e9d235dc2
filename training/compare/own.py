"""Portrait's own model in a comparison: fitted, chosen and asked as its peers are."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch

from training.baselines import Window
from training.compare.measure import Score
from training.compare.shop import Shop
from training.compare.trials import Trial
from training.config import ModelConfig, TrainConfig
from training.examples import Asked, ExampleMaker
from training.loop import Alone, Fit
from training.memory import Memory
from training.network import PortraitNetwork
from training.predict import fit_mixing


@dataclass(frozen=True)
class Fitted:
    """A network and its memory, None without."""

    network: PortraitNetwork
    memory: Memory | None


def fit(shop: Shop, model: ModelConfig, config: TrainConfig) -> Fitted:
    """Fit on the training period; epochs and the memories' weights by the validation period."""
    prepared = shop.prepared()
    with TemporaryDirectory(prefix="portrait-compare-") as folder:
        prepared.write(Path(folder))
        run = Fit(Path(folder), model, config, Alone())
        run.run(resume=False)
    network = run.network
    network.load_state_dict(run.best)
    network.eval()
    if network.mixing is None:
        return Fitted(network, None)
    memory = Memory.fit(prepared.histories, prepared.train_until_ms, shop.items)
    fit_mixing(network, prepared, memory)
    return Fitted(network, memory)


def scorer(shop: Shop, fitted: Fitted, *, timed: bool = False) -> Score:
    """Return the scores of requests, histories applied up to each.

    Parameters
    ----------
    timed
        Whether the network is told the time of each request.
    """
    network = fitted.network
    maker = ExampleMaker(shop.whole(), network.config, TrainConfig(), fitted.memory)
    lengths = shop.histories.lengths()
    none = np.zeros(0, np.int64)

    def score(wanted: Window) -> torch.Tensor:
        users = np.unique(wanted.user)
        asked = Asked(
            wanted.user, wanted.event - 1, wanted.event, np.full(len(wanted.event), timed)
        )
        with torch.no_grad():
            example = maker.make(users, asked, none, lengths[users])
            flat = network.unroll(example.events).flatten(0, 1)
            u = network.vector(flat[example.place], example.requests)
            scores = network.scores(u, example.pairs, example.requests, example.memory)
        # The batch stands by time, then user: put it back into the order asked for.
        order = np.argsort(np.argsort(wanted.event, kind="stable"), kind="stable")
        return scores[np.argsort(example.answers, kind="stable")][order]

    return score


_SCHEDULES: Final = {
    "short": TrainConfig(),
    "long": TrainConfig(epochs=40, patience=5, batch_users=8, positions=60, decay=0.985),
}
"""The product's default, and one for shops whose training converges slowly."""


def portrait(shop: Shop) -> Iterator[Trial]:
    """Portrait's model in its default shape; what is chosen is how it is fitted."""
    for dropout, (name, schedule) in product((0.4, 0.5, 0.3), _SCHEDULES.items()):
        yield {"dropout": dropout, "schedule": name}, partial(_made, shop, dropout, schedule)


def _made(shop: Shop, dropout: float, schedule: TrainConfig, seed: int) -> Score:
    return scorer(shop, fit(shop, ModelConfig(dropout=dropout), replace(schedule, seed=seed)))
