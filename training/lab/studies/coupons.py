"""Coupon redemption: the model beside its peers, campaign by campaign as they came.

Each campaign is judged by models fitted and chosen on campaigns that had ended before its launch;
the encoder is fitted on what lies before the first of them. Belongs here: protocol and peers.
Not here: the model (`training.lab.studies.coupon_model`).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from feature_repo.errors import InvalidInputError
from training.lab.comparison.page import machine
from training.lab.studies.coupon_model import CouponModel, Sample, Sampler
from training.lab.studies.embedding import StateEncoder
from training.lab.targeting.block_model import BlockModel, FeatureRows, Setting, choose
from training.lab.targeting.campaigns import CouponCampaign, Journey, complete, read_journey
from training.lab.targeting.profile_block import prepare_home, read_home
from training.lab.targeting.score_metrics import Doubles, Judged, over, summary

Tell = Callable[[int, int, str], None]
Say = Callable[[str], None]

MIN_REDEEMERS: Final = 10
"""Fewest redeemers of a campaign that is judged."""
MIN_LEARNED: Final = 60
"""Fewest redeemers in the campaigns that had ended."""
OWN: Final = "portrait"
PEERS: Final = (
    "recency", "rfm_sum", "monetary", "prior_redemptions", "coupon_items", "logistic", "boosting",
)  # fmt: skip
LOGISTIC: Final = tuple(Setting(c=c, boosting=0.0) for c in (0.01, 0.03, 0.1, 0.3))
BOOSTING: Final = tuple(
    Setting(boosting=1.0, leaves=leaves, rounds=rounds)
    for leaves, rounds in ((3, 80), (4, 120), (8, 80))
)


def coupons(home: Path, *, seeds: Sequence[int], tell: Tell, say: Say) -> dict[str, Any]:
    """Compare on Complete Journey.

    Parameters
    ----------
    home
        State folder: with Complete Journey in it, or empty to be filled.
    seeds
        One encoder each; logits are averaged.
    tell, say
        Told parts done, parts in all and a line; a line on each that is finished.

    Returns
    -------
    dict
        Plain values; see ``portrait compare --help``.

    Raises
    ------
    InvalidInputError
        If no campaign can be judged.
    """
    prepare_home(home, lambda line: tell(0, 3, line))
    journey, histories = read_journey(), read_home(home)
    judged = judgeable(journey)
    if not judged:
        raise InvalidInputError(
            f"no complete campaign has {MIN_REDEEMERS} redeemers after others with {MIN_LEARNED}"
        )
    scores: dict[str, list[Doubles]] = {}
    seconds: dict[str, float] = {}
    base: list[Sample] = []
    for n, seed in enumerate(seeds):
        tell(1, 3, f"fit the encoder, seed {seed}")
        encoder = StateEncoder(
            histories, fitted_until_ms=judged[0].launch.value // 1_000_000, seed=seed,
            tell=lambda line: tell(1, 3, f"encoder: {line}"),
        )  # fmt: skip
        sampler = Sampler(journey, home, encoder)
        samples = {c.number: sampler.sample(c) for c in journey.campaigns if complete(c)}
        base = [samples[c.number] for c in judged]
        for name, score in _models(first=n == 0).items():
            started_s = time.monotonic()
            found = []
            for at, campaign in enumerate(judged):
                tell(2, 3, f"{name}: campaign {at + 1} of {len(judged)}")
                ended = [samples[each.number] for each in journey.ended_before(campaign)]
                found.append(score(ended, samples[campaign.number]))
            scores.setdefault(name, []).append(np.concatenate(found))
            seconds[name] = round(seconds.get(name, 0) + time.monotonic() - started_s, 1)
    result = _result(base, {n: np.mean(each, axis=0) for n, each in scores.items()}, say)
    return {**result, "seconds": seconds, "seeds": list(seeds)}


def judgeable(journey: Journey) -> list[CouponCampaign]:
    """Return the complete campaigns with enough redeemers of their own and before them."""
    return [
        each
        for each in journey.campaigns
        if complete(each)
        and each.redeemed.sum() >= MIN_REDEEMERS
        and sum(int(e.redeemed.sum()) for e in journey.ended_before(each)) >= MIN_LEARNED
    ]


Score = Callable[[Sequence[Sample], Sample], Doubles]
"""Takes campaigns that have ended and one to judge, returns a score for each of its targets."""


def _models(*, first: bool) -> dict[str, Score]:
    """Return all models; after the first seed only those that read the learned state."""
    own: dict[str, Score] = {OWN: _own(())}
    if not first:
        return own
    return {
        **own,
        "portrait_without_learned": _own(("learned", "match")),
        "recency": lambda ended, sample: -_raw(sample, "recency_days", 400.0),
        "rfm_sum": lambda ended, sample: _rfm_sum(sample),
        "monetary": lambda ended, sample: _raw(sample, "spend"),
        "prior_redemptions": lambda ended, sample: _raw(sample, "num_redemptions"),
        "coupon_items": lambda ended, sample: _raw(sample, "num_coupon_lines"),
        "logistic": lambda ended, sample: _tune(LOGISTIC, ended, sample),
        "boosting": lambda ended, sample: _tune(BOOSTING, ended, sample),
    }


def _own(without: Sequence[str]) -> Score:
    return lambda ended, sample: CouponModel(without).fit(ended).model.logit(sample.rows)


def _raw(sample: Sample, name: str, missing: float = 0.0) -> Doubles:
    out: Doubles = sample.known.raw[name].fillna(missing).to_numpy(np.float64)
    return out


def _rfm_sum(sample: Sample) -> Doubles:
    """Return the sum of the quintiles of recency, frequency and monetary value."""
    raw = sample.known.raw
    ranks = [
        (-raw["recency_days"].fillna(400.0)).rank(pct=True),
        raw["num_orders"].fillna(0.0).rank(pct=True),
        raw["spend"].fillna(0.0).rank(pct=True),
    ]
    out: Doubles = np.sum([np.ceil(5 * rank.to_numpy(np.float64)) for rank in ranks], axis=0)
    return out


def _tune(settings: Sequence[Setting], ended: Sequence[Sample], sample: Sample) -> Doubles:
    """Fit to RFM, coupon history and product match; settings as the own model's are chosen."""
    rows = FeatureRows.join([each.rows.only(["history"]) for each in ended])
    model = BlockModel({"history": 1.0}, ["history"])
    model.setting = choose(model, rows, settings)
    return model.fit(rows).logit(sample.rows)


def _result(samples: Sequence[Sample], scores: Mapping[str, Doubles], say: Say) -> dict[str, Any]:
    rows = FeatureRows.join([sample.rows.only(["history"]) for sample in samples])
    new = np.concatenate([sample.known.new for sample in samples])
    last = max(samples, key=lambda each: float(each.rows.label.sum())).campaign.number
    parts = {
        "all": np.ones(len(new), np.bool_),
        f"campaign {last}": rows.group == last,
        "no earlier redemption": new,
        f"no earlier redemption, campaign {last}": new & (rows.group == last),
    }
    tables = {name: judge(rows.take(np.flatnonzero(part)), {
        n: score[part] for n, score in scores.items()
    }) for name, part in parts.items()}  # fmt: skip
    for name, row in tables["all"]["models"].items():
        say(f"{name}: AUC {row['auc']:.4f}, lift {row['lift@10%']:.2f}")
    return {
        "dataset": "completejourney",
        "study": "coupons",
        "split": {
            "how": "each campaign by models fitted and chosen on campaigns that had ended; "
            "households as of the launch day's midnight",
            "test_requests": len(rows.label),
            "test_users": len(np.unique(rows.user)),
            "campaigns": [sample.campaign.number for sample in samples],
            "redeemers": int(rows.label.sum()),
        },
        **tables.pop("all"),
        "subsets": tables,
        "not_run": {},
        "machine": machine(),
    }


def judge(
    rows: FeatureRows, scores: Mapping[str, Doubles], peers: Sequence[str] = PEERS
) -> dict[str, Any]:
    """Return metrics of every model, and the own model's over the best of the peers, paired."""
    judged = Judged(rows.label, rows.user, rows.group)
    found = {name: judged.measures(score) for name, score in scores.items()}
    metrics = next(iter(found.values()))
    return {
        "models": {name: summary(values) for name, values in found.items()},
        "over_best_peer": {m: over(found, OWN, peers, m) for m in metrics},
        "over_logistic": {m: over(found, OWN, ["logistic"], m) for m in metrics},
    }
