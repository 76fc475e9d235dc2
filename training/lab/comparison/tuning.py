"""One model of a comparison: its settings tried, the best measured on the test."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from training.lab.comparison import linear
from training.lab.comparison.boosted import Gbdt, TimedGbdt
from training.lab.comparison.factors import Ials
from training.lab.comparison.learned import Gru4Rec, Hstu, SasRec
from training.lab.comparison.page import machine
from training.lab.comparison.peer import Peer, Setting, Tell
from training.lab.comparison.portrait_model import PortraitModel
from training.lab.comparison.protocol import Doubles, measure, sample
from training.lab.comparison.result_store import Finished
from training.lab.comparison.shop import Shop
from training.lab.comparison.tifu import TifuKnn

CHOOSE_ON: Final = 1500
OWN: Final = PortraitModel.name
TIMED: Final = f"{OWN}_timed"
MODELS: Final[dict[str, type[Peer]]] = {
    peer.name: peer
    for peer in (
        PortraitModel, linear.Popularity, linear.Frequency, linear.ItemKnn, linear.Transitions,
        linear.Ease, linear.EaseTransitions, Ials, TifuKnn, linear.RidgeBaskets, Gru4Rec, SasRec,
        Hstu, Gbdt, TimedGbdt,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Tuned:
    """The peer that did best on the validation requests, fitted.

    Attributes
    ----------
    tried
        Settings, of which ``setting`` was the best.
    """

    peer: Peer
    setting: Setting
    validation: float
    tried: int


def find_reason_to_skip(name: str, shop: Shop) -> str | None:
    """Return why a peer is not run on a shop, or None if it is."""
    if MODELS[name].repeats and shop.masked:
        return "items are not bought again here"
    if MODELS[name].timed and not shop.split.by_time:
        return "times stand for order only"
    if MODELS[name].dense and shop.items > linear.MAX_DENSE_ITEMS:
        return f"a dense inverse of {shop.items:,} items is too large for this machine"
    return None


def tune(peer: Peer, *, budget_s: float) -> Tuned:
    """Try settings until the budget is used up; at least one is tried."""
    began_s = time.perf_counter()
    requests = sample(peer.shop.validation, CHOOSE_ON)
    best: Tuned | None = None
    for tried, setting in enumerate(peer.settings(), start=1):
        peer.tell(", ".join(f"{key} {value}" for key, value in setting.items()))
        fitted = peer.fit_copy(setting)
        value = float(np.nanmean(measure(peer.shop, requests, fitted.score)[:, 0]))
        seconds = time.perf_counter() - began_s
        peer.tell(f"{tried} tried in {seconds:,.0f} s, validation NDCG@10 {value:.4f}")
        if best is None or value > best.validation:
            best = Tuned(fitted, setting, value, tried)
        if seconds > budget_s:
            break
    assert best is not None
    return replace(best, tried=tried)


def one(shop: Shop, name: str, *, seeds: Sequence[int], budget_s: float, tell: Tell) -> Finished:
    """Tune and measure one model."""
    began_s = time.perf_counter()
    model = MODELS[name]
    found = tune(model(shop, seeds[0], tell), budget_s=budget_s)
    more = seeds[1:] if model.seeded else ()
    peers = [found.peer, *(model(shop, seed, tell).fit_copy(found.setting) for seed in more)]
    parts = [measure(shop, shop.test, peer.score) for peer in peers]
    tuning = {
        "chosen": dict(found.setting), "validation_ndcg@10": found.validation,
        "tried": found.tried, "by_seed": [float(np.nanmean(part[:, 0])) for part in parts],
    }  # fmt: skip
    controls = _controls([peer for peer in peers if isinstance(peer, PortraitModel)])
    seconds = round(time.perf_counter() - began_s, 1)
    return Finished(np.mean(parts, axis=0), controls, tuning, seconds, machine())


def _controls(peers: Sequence[PortraitModel]) -> dict[str, Doubles]:
    """Measure Portrait's networks asked otherwise; no part of the comparison with peers."""
    variants = {
        TIMED: [replace(peer.answers, timed=True) for peer in peers],
        f"{OWN}_shuffled": [replace(peer.answers, shuffled=n) for n, peer in enumerate(peers)],
    }
    return {
        name: np.mean([measure(each.shop, each.shop.test, each) for each in answers], axis=0)
        for name, answers in variants.items()
        if answers and (peers[0].shop.split.by_time or name != TIMED)
    }
