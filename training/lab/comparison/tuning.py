"""One model of a comparison: its settings tried, the best measured on the test."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from training.lab.comparison import learned, linear, portrait_model
from training.lab.comparison.factors import ials
from training.lab.comparison.page import machine
from training.lab.comparison.peer import Make, Tell, Trial
from training.lab.comparison.protocol import Doubles, Score, measure, sample
from training.lab.comparison.result_store import Finished
from training.lab.comparison.shop import Shop
from training.lab.comparison.tifu import tifu_knn

CHOOSE_ON: Final = 1500
OWN: Final = "portrait"
Maker = Callable[[Shop], Iterator[Trial]]

PEERS: Final[dict[str, Maker]] = {
    "popularity": linear.popularity,
    "frequency": linear.frequency,
    "item_knn": linear.item_knn,
    "transitions": linear.transitions,
    "ease": linear.ease,
    "ease_transitions": linear.ease_transitions,
    "ials": ials,
    "tifu_knn": tifu_knn,
    "ridge_baskets": linear.ridge_baskets,
    "gru4rec": learned.gru4rec,
    "sasrec": learned.sasrec,
    "hstu": learned.hstu,
}
MAKERS: Final = {OWN: portrait_model.portrait, **PEERS}
_SEEDED: Final = frozenset({OWN, "gru4rec", "sasrec", "hstu"})
_REPEATS: Final = frozenset({"tifu_knn", "ridge_baskets"})
_DENSE: Final = frozenset({"ease", "ease_transitions", "ridge_baskets"})


@dataclass(frozen=True)
class Tuned:
    """The setting that did best on the validation requests.

    Attributes
    ----------
    scores
        Of the chosen setting, by seed; the first was made while choosing.
    """

    setting: Mapping[str, Any]
    validation: float
    tried: int
    seconds: float
    score: Score
    make: Make


def skipped(name: str, shop: Shop) -> str | None:
    """Return why a peer is not run on a shop, or None if it is."""
    if name in _REPEATS and shop.masked:
        return "items are not bought again here"
    if name in _DENSE and shop.items > linear.MAX_DENSE_ITEMS:
        return f"a dense inverse of {shop.items:,} items is too large for this machine"
    return None


def tune(shop: Shop, trials: Iterator[Trial], *, budget_s: float, seed: int, tell: Tell) -> Tuned:
    """Try settings until the budget is used up; at least one is tried."""
    began_s = time.perf_counter()
    asked = sample(shop.validation, CHOOSE_ON)
    best: Tuned | None = None
    tried = 0
    for setting, make in trials:
        tell(", ".join(f"{key} {value}" for key, value in setting.items()))
        score = make(seed, tell)
        value = float(np.nanmean(measure(shop, asked, score)[:, 0]))
        tried += 1
        seconds = time.perf_counter() - began_s
        tell(f"{tried} tried in {seconds:,.0f} s, validation NDCG@10 {value:.4f}")
        if best is None or value > best.validation:
            best = Tuned(setting, value, tried, seconds, score, make)
        if seconds > budget_s:
            break
    assert best is not None
    return Tuned(
        best.setting, best.validation, tried, time.perf_counter() - began_s, best.score, best.make
    )


def one(shop: Shop, name: str, *, seeds: Sequence[int], budget_s: float, tell: Tell) -> Finished:
    """Tune and measure one model."""
    began_s = time.perf_counter()
    trials = MAKERS[name](shop)
    found = tune(shop, trials, budget_s=budget_s, seed=seeds[0], tell=tell)
    more = seeds[1:] if name in _SEEDED else ()
    answers = [found.score, *(found.make(seed, tell) for seed in more)]
    parts = [measure(shop, shop.test, answer) for answer in answers]
    tuning = {
        "chosen": dict(found.setting), "validation_ndcg@10": found.validation,
        "tried": found.tried, "by_seed": [float(np.nanmean(part[:, 0])) for part in parts],
    }  # fmt: skip
    controls = _controls(shop, answers) if name == OWN else {}
    seconds = round(time.perf_counter() - began_s, 1)
    return Finished(np.mean(parts, axis=0), controls, tuning, seconds, machine())


def _controls(shop: Shop, answers: Sequence[Score]) -> dict[str, Doubles]:
    """Measure Portrait's networks asked otherwise; no part of the comparison with peers."""
    own_answers = [answer for answer in answers if isinstance(answer, portrait_model.Answers)]
    asked = {
        f"{OWN}_timed": [replace(answer, timed=True) for answer in own_answers],
        f"{OWN}_shuffled": [replace(answer, shuffled=n) for n, answer in enumerate(own_answers)],
    }
    return {
        name: np.mean([measure(shop, shop.test, score) for score in scores], axis=0)
        for name, scores in asked.items()
        if shop.split.by_time or not name.endswith("_timed")
    }
