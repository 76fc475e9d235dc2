"""Whom an e-mail moves: uplift models on Hillstrom's random arms, and where the effect is known.

Every user is scored by models that have not seen them (cross-fitting, users shared out anew for
each seed); scores become ranks within their fold, so that folds may be laid together, and are
averaged over seeds. Belongs here: data and protocol. Not here: the models
(`training.lab.targeting.uplift`) and Qini itself (`training.evaluation.uplift_metrics`).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from feature_repo.errors import InvalidInputError
from training.evaluation.uplift_metrics import qini
from training.lab.comparison.page import machine
from training.lab.studies.coupons import Say, Tell
from training.lab.targeting.score_metrics import interval
from training.lab.targeting.uplift import MODELS, Doubles

FOLDS: Final = 5
ROUNDS: Final = 300
COLUMNS: Final = (
    "recency", "history", "mens", "womens", "zip_code", "newbie", "channel", "segment", "visit",
    "conversion",
)  # fmt: skip
CONTROL: Final = "No E-Mail"
TRIALS: Final = {
    "womens, visit": ("Womens E-Mail", "visit"),
    "womens, conversion": ("Womens E-Mail", "conversion"),
    "mens, visit": ("Mens E-Mail", "visit"),
    "mens, conversion": ("Mens E-Mail", "conversion"),
}
"""Name to treated arm and outcome."""
OWN: Final = "joint_head"
RANDOM: Final = "random"


@dataclass(frozen=True)
class Trial:
    """Users of a trial: standardised features (N, F), treatments and outcomes (N,), 0 or 1.

    ``effect`` is each user's true effect, None where nobody knows it.
    """

    x: Doubles
    treated: Doubles
    outcome: Doubles
    effect: Doubles | None = None


def uplift(data: Path | None, *, seeds: Sequence[int], tell: Tell, say: Say) -> dict[str, Any]:
    """Compare on Hillstrom's file, and on its users with an effect of our own making.

    Parameters
    ----------
    data
        ``hillstrom.parquet``, or its folder.
    seeds
        Of the folds, one cross-fitting each.
    tell, say
        As for `training.lab.studies.coupons.coupons`.

    Raises
    ------
    InvalidInputError
        If the file is not there, or is not Hillstrom's.
    """
    frame = read(data)
    trials = {name: trial(frame, *which) for name, which in TRIALS.items()}
    trials["known effect"] = known_effect(trials["womens, visit"].x)
    tables, seconds = {}, {}
    for at, (name, each) in enumerate(trials.items()):
        tell(at, len(trials), name)
        started_s = time.monotonic()
        tables[name] = judge(each, seeds)
        seconds[name] = round(time.monotonic() - started_s, 1)
        say(
            f"{name}: "
            + ", ".join(f"{n} {r['qini']:.5f}" for n, r in tables[name]["models"].items())
        )
    first = next(iter(TRIALS))
    return {
        "dataset": "hillstrom",
        "study": "uplift",
        "split": {
            "how": f"random arms; cross-fitted, {FOLDS} folds, each seed another",
            "test_requests": len(trials[first].outcome),
            "test_users": len(trials[first].outcome),
        },
        **tables.pop(first),
        "subsets": tables,
        "first": first,
        "seconds": seconds,
        "seeds": list(seeds),
        "not_run": {},
        "machine": machine(),
    }


def read(data: Path | None) -> pd.DataFrame:
    """Read Hillstrom's file.

    Raises
    ------
    InvalidInputError
        As `uplift`.
    """
    path = None if data is None else data / "hillstrom.parquet" if data.is_dir() else data
    if path is None or not path.is_file():
        raise InvalidInputError("uplift needs --data, hillstrom.parquet or the folder that has it")
    try:
        frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise InvalidInputError(f"{path} is no Parquet or CSV table: {error}") from None
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise InvalidInputError(
            f"{path} lacks the column {missing[0]!r}: it has {', '.join(map(str, frame.columns))}"
        )
    return frame


def trial(frame: pd.DataFrame, arm: str, outcome: str) -> Trial:
    """Return one arm of the e-mail against none.

    Raises
    ------
    InvalidInputError
        If an arm is empty.
    """
    some = frame[frame["segment"].isin([arm, CONTROL])]
    treated = (some["segment"] == arm).to_numpy().astype(np.float64)
    if not 0 < treated.mean() < 1:
        raise InvalidInputError(f"segment has no {arm!r} or no {CONTROL!r}: both are needed")
    columns = {
        "recency": some["recency"],
        "log_recency": np.log(some["recency"]),
        "log_history": np.log(some["history"]),
        "mens": some["mens"],
        "womens": some["womens"],
        "both": some["mens"] * some["womens"],
        "newbie": some["newbie"],
        **{v: some["zip_code"] == v for v in ("Urban", "Rural")},
        **{v: some["channel"] == v for v in ("Phone", "Multichannel")},
    }
    x = pd.DataFrame(columns).to_numpy(np.float64)
    deviation = np.maximum(x.std(axis=0), 1e-9)
    return Trial(
        (x - x.mean(axis=0)) / deviation, treated, some[outcome].to_numpy(np.float64)
    )  # fmt: skip


def known_effect(x_NF: Doubles, *, seed: int = 0) -> Trial:
    """Return users with features as they are, and treatments and outcomes that are drawn.

    The probability of the outcome is ``σ(-2 + β·x)``, that of the treated higher by ``0.1 σ(γ·x)``,
    with β and γ drawn: everybody gains, some ten times as much as others.
    """
    generator = np.random.default_rng(seed)
    count, width = len(x_NF), int(x_NF.shape[1])
    base, moved = generator.normal(size=(2, width)) / np.sqrt(width)
    effect = 0.1 / (1 + np.exp(-2.0 * x_NF @ moved))
    treated = (generator.random(count) < 0.5).astype(np.float64)
    probability = 1 / (1 + np.exp(2.0 - x_NF @ base)) + treated * effect
    outcome: Doubles = (generator.random(count) < probability).astype(np.float64)
    return Trial(x_NF, treated, outcome, effect)


def judge(each: Trial, seeds: Sequence[int]) -> dict[str, Any]:
    """Return Qini of every model, with intervals, and the joint head's over the others', paired.

    ``oracle``, where the effect is known, is the Qini of the effect itself.
    """
    scores: dict[str, Doubles] = {name: cross_fitted(each, name, seeds) for name in MODELS}
    scores[RANDOM] = np.random.default_rng(0).random(len(each.outcome))
    if each.effect is not None:
        scores["oracle"] = each.effect
    found = {name: resample(each, score) for name, score in scores.items()}
    rows: Mapping[str, dict[str, Any]] = {
        name: {"qini": float(values[0]), "ci": {"qini": interval(values)}}
        for name, values in found.items()
    }
    over = {
        peer: {
            "peer": peer,
            "difference": float((found[OWN] - found[peer])[0]),
            "ci": interval(found[OWN] - found[peer]),
        }
        for peer in ("two_models", "x_learner", RANDOM)
    }
    best = max(("two_models", "x_learner", RANDOM), key=lambda name: float(found[name][0]))
    return {
        "models": rows,
        "over_best_peer": {"qini": over[best]},
        "over": over,
        "average_effect": float(
            each.outcome[each.treated > 0].mean() - each.outcome[each.treated <= 0].mean()
        ),
    }


def cross_fitted(each: Trial, name: str, seeds: Sequence[int]) -> Doubles:
    """Return every user's rank (0 to 1, mean over seeds) by models that have not seen them."""
    out = np.zeros(len(each.outcome))
    for seed in seeds:
        fold = np.random.default_rng(seed).integers(0, FOLDS, len(out))
        for n in range(FOLDS):
            test = fold == n
            model = MODELS[name]().fit(each.x[~test], each.treated[~test], each.outcome[~test])
            out[test] += rankdata(model.effect(each.x[test])) / test.sum()
    return out / len(seeds)


def resample(each: Trial, score: Doubles) -> Doubles:
    """Return Qini as it is, and in every bootstrap round over users, shape (1 + ROUNDS,).

    Rounds draw the same users for every score.
    """
    generator = np.random.default_rng(0)
    count = len(score)
    out = [qini(each.outcome, each.treated, score)]
    for _ in range(ROUNDS):
        some = generator.integers(0, count, count)
        out.append(qini(each.outcome[some], each.treated[some], score[some]))
    return np.array(out)
