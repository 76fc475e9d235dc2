"""One comparison: every model tuned by the same budget, then asked the same requests."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from training.compare import learned, linear, own
from training.compare.factors import ials
from training.compare.finished import Finished, place
from training.compare.measure import Score, measure, sample
from training.compare.page import machine
from training.compare.shop import Shop
from training.compare.tifu import tifu_knn
from training.compare.trials import Trial
from training.devices import one_thread_only
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
MAKERS: Final = {OWN: own.portrait, **PEERS}
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


def one(shop: Shop, name: str, *, seeds: Sequence[int], budget_s: float, tell: Tell) -> Finished:
    """Tune and measure one model."""
    began_s = time.perf_counter()
    trials = MAKERS[name](shop)
    found = tune(shop, trials, budget_s=budget_s, seed=seeds[0], tell=tell)
    more = seeds[1:] if name in _SEEDED else ()
    answers = [found.score, *(found.make(seed) for seed in more)]
    parts = [measure(shop, shop.test, answer) for answer in answers]
    tuning = {
        "chosen": dict(found.setting), "validation_ndcg@10": found.validation,
        "tried": found.tried, "by_seed": [float(np.nanmean(part[:, 0])) for part in parts],
    }  # fmt: skip
    controls = _controls(shop, answers) if name == OWN else {}
    seconds = round(time.perf_counter() - began_s, 1)
    return Finished(np.mean(parts, axis=0), controls, tuning, seconds, machine())


def compare(
    shop: Shop,
    *,
    seeds: Sequence[int],
    budget_s: float,
    models: Sequence[str] | None = None,
    jobs: int = 1,
    resume: Path | None = None,
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
    jobs
        Processes that work at the same time, a model each.
    resume
        Folder that keeps each finished model of these data, seeds and budget; what stands there
        is not run again.
    tell
        Called with models done and in all, and a line on the one at work.
    say
        Called with a line on each that is finished.

    Returns
    -------
    dict
        Plain values; see ``portrait compare --help``.
    """
    wanted = list(MAKERS) if models is None else [OWN, *(m for m in models if m != OWN)]
    left = dict.fromkeys([name for name in MAKERS if name not in wanted], "not asked for")
    left |= {name: why for name in wanted if (why := skipped(name, shop)) is not None}
    kept = None if resume is None else place(resume, shop, seeds, budget_s)
    work = partial(one, shop, seeds=seeds, budget_s=budget_s)
    finished = dict[str, Finished]()
    for name, found in _each(work, [n for n in wanted if n not in left], jobs, kept, tell):
        finished[name] = found
        say(
            f"{name}: NDCG@10 {np.nanmean(found.metrics[:, 0]):.4f}, MRR "
            f"{np.nanmean(found.metrics[:, 3]):.4f} in {found.seconds:,.0f} s, "
            f"{found.tuning['tried']} settings"
        )
    users = shop.test.user
    rows = {name: finished[name].metrics for name in wanted if name in finished}
    controls = finished[OWN].controls
    return {
        **shop.describe(),
        "models": {n: summary(values, users) for n, values in {**rows, **controls}.items()},
        "over_best_peer": {m: _over(rows, users, m) for m in ("ndcg@10", "mrr")},
        "seconds": {name: finished[name].seconds for name in rows},
        "tuning": {
            "budget_s": budget_s, "seeds": list(seeds),
            **{name: finished[name].tuning for name in rows},
        },
        "not_run": left,
        "machine": finished[OWN].machine,
        "machines": {name: finished[name].machine for name in rows},
    }  # fmt: skip


def _each(
    work: Callable[..., Finished],
    names: Sequence[str],
    jobs: int,
    kept: Path | None,
    tell: Callable[[int, int, str], None],
) -> Iterator[tuple[str, Finished]]:
    """Yield every model once it is finished: what is kept at once, the others by ``jobs``."""
    here = {n: Finished.load(kept / f"{n}.npz") for n in names} if kept is not None else {}
    done = 0
    todo = [name for name in names if here.get(name) is None]
    for name, found in here.items():
        if found is not None:
            done += 1
            yield name, found
    fresh = _alone(work, todo, tell, len(names)) if jobs == 1 else _beside(work, todo, jobs)
    for name, found in fresh:
        if kept is not None:
            found.save(kept / f"{name}.npz")
        done += 1
        tell(done, len(names), f"{name} is finished")
        yield name, found


def _alone(
    work: Callable[..., Finished],
    names: Sequence[str],
    tell: Callable[[int, int, str], None],
    total: int,
) -> Iterator[tuple[str, Finished]]:
    for name in names:
        done = total - len(names) + names.index(name)
        yield name, work(name, tell=partial(_tell, tell, done, total, name))


def _beside(
    work: Callable[..., Finished], names: Sequence[str], jobs: int
) -> Iterator[tuple[str, Finished]]:
    # Not forked: a GPU's driver does not survive that.
    with ProcessPoolExecutor(jobs, get_context("spawn"), one_thread_only) as pool:
        at_work = {pool.submit(work, name, tell=_quiet): name for name in names}
        try:
            for future in as_completed(at_work):
                yield at_work[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _quiet(line: str) -> None:
    del line


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
