"""One comparison: every model tuned by the same budget, then asked the same requests."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from training.compare import learned, linear, own
from training.compare.factors import ials
from training.compare.measure import Score, measure, sample
from training.compare.page import machine
from training.compare.shop import Shop
from training.compare.tifu import tifu_knn
from training.compare.trials import Trial
from training.metrics import NAMES, bootstrap, summary

CHOOSE_ON: Final = 1500
OWN: Final = "portrait"
Doubles = npt.NDArray[np.float64]
Tell = Callable[[str], None]
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
    make: Callable[[int], Score]


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
        score = make(seed)
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


def compare(
    shop: Shop,
    *,
    seeds: Sequence[int],
    budget_s: float,
    models: Sequence[str] | None = None,
    tell: Callable[[int, int, str], None],
    say: Tell,
) -> dict[str, Any]:
    """Tune and measure Portrait and its peers.

    Parameters
    ----------
    seeds
        Learned models are fitted once for each; their metrics are averaged by request.
    budget_s
        Seconds in which each model may try settings; a trial that has begun is finished.
    models
        Names to run; None: all that fit the data.
    tell
        Called with models done and in all, and a line on the one at work.
    say
        Called with a line on each that is finished.

    Returns
    -------
    dict
        Plain values; see ``portrait compare --help``.
    """
    makers = {OWN: own.portrait, **PEERS}
    wanted = list(makers) if models is None else [OWN, *(m for m in models if m != OWN)]
    rows, tuning, seconds = dict[str, Doubles](), {}, {}
    controls = dict[str, Doubles]()
    left = dict.fromkeys([name for name in makers if name not in wanted], "not asked for")
    for name in wanted:
        reason = skipped(name, shop)
        if reason is not None:
            left[name] = reason
            continue
        began_s = time.perf_counter()
        found = tune(
            shop, makers[name](shop), budget_s=budget_s, seed=seeds[0],
            tell=partial(_tell, tell, len(rows), len(wanted), name),
        )  # fmt: skip
        more = seeds[1:] if name in _SEEDED else ()
        answers = [found.score, *(found.make(seed) for seed in more)]
        parts = [measure(shop, shop.test, answer) for answer in answers]
        rows[name] = np.mean(parts, axis=0)
        tuning[name] = {
            "chosen": dict(found.setting), "validation_ndcg@10": found.validation,
            "tried": found.tried,
            "by_seed": [float(np.nanmean(part[:, 0])) for part in parts],
        }  # fmt: skip
        seconds[name] = round(time.perf_counter() - began_s, 1)
        say(
            f"{name}: NDCG@10 {np.nanmean(rows[name][:, 0]):.4f}, MRR "
            f"{np.nanmean(rows[name][:, 3]):.4f} in {seconds[name]:,.0f} s, {found.tried} settings"
        )
        if name == OWN:
            controls = _controls(shop, answers)
    users = shop.test.user
    return {
        **shop.describe(),
        "models": {n: summary(values, users) for n, values in (rows | controls).items()},
        "over_best_peer": {m: _over(rows, users, m) for m in ("ndcg@10", "mrr")},
        "seconds": seconds,
        "tuning": {"budget_s": budget_s, "seeds": list(seeds), **tuning},
        "not_run": left,
        "machine": machine(),
    }


def _controls(shop: Shop, answers: Sequence[Score]) -> dict[str, Doubles]:
    """Measure Portrait's networks asked otherwise; no part of the comparison with peers."""
    own_answers = [answer for answer in answers if isinstance(answer, own.Answers)]
    asked = {
        f"{OWN}_timed": [replace(answer, timed=True) for answer in own_answers],
        f"{OWN}_shuffled": [replace(answer, shuffled=n) for n, answer in enumerate(own_answers)],
    }
    return {
        name: np.mean([measure(shop, shop.test, score) for score in scores], axis=0)
        for name, scores in asked.items()
        if shop.split.by_time or not name.endswith("_timed")
    }


def _tell(
    tell: Callable[[int, int, str], None], done: int, total: int, name: str, line: str
) -> None:
    tell(done, total, f"{name}: {line}")


def _over(rows: Mapping[str, Doubles], users: Any, metric: str) -> dict[str, Any] | None:
    """Return Portrait against the best peer: ratio of means, interval of their difference."""
    column = NAMES.index(metric)
    peers = {n: float(np.nanmean(v[:, column])) for n, v in rows.items() if n != OWN}
    if OWN not in rows or not peers:
        return None
    best = max(peers, key=lambda n: peers[n])
    gap = bootstrap(rows[OWN][:, column] - rows[best][:, column], users)
    return {
        "peer": best,
        "ratio": float(np.nanmean(rows[OWN][:, column])) / max(peers[best], 1e-12),
        "difference": gap.mean,
        "ci": [gap.low, gap.high],
    }
