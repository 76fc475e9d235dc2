"""Report of a campaign: arms, differences with intervals, and what may be claimed.

Users are compared by the arm they were assigned to, whatever came of it (intention to treat).
Where nothing was assigned at random the figures are an association, and the report says so in
these words. Belongs here: conclusions. The users are `sample`'s, the statistics
`training.evaluation.experiment`'s and `training.evaluation.uplift_metrics`'.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from feature_repo.audiences.index import Index
from feature_repo.audiences.values import duration_ms
from feature_repo.errors import InvalidInputError
from feature_repo.events.schema import iso
from services.campaigns.definitions import Stored
from services.campaigns.sample import Doubles, ExperimentSample, Flags, sample
from services.campaigns.schemas import (
    CampaignReport,
    Estimate,
    Measure,
    Qini,
    ReportArm,
    SampleRatio,
)
from training.evaluation.experiment import ROUNDS, SRM_P, Difference, compare, sample_ratio
from training.evaluation.uplift_metrics import auuc, qini, qini_curve

EFFECT: Final = "effect"
ASSOCIATION: Final = "association, not effect"
MAX_DRAWS: Final = 2 * 10**8
"""Users times bootstrap rounds; larger campaigns get fewer rounds, 200 at least."""
FEW: Final = 10
"""Conversions of an arm below which the bootstrap's interval is too narrow."""
_CURVE_POINTS: Final = 101


@dataclass(frozen=True)
class Basis:
    """Who is compared with whom.

    Attributes
    ----------
    name
        ``holdout``: the hold-out against the others; ``explored``: the two sides of the coin;
        ``association``: who got a message against who did not.
    treated
        Which of them count as treated.
    share_treated
        Share of them that should be; None where nothing was random.
    """

    name: Literal["holdout", "explored", "association"]
    users: ExperimentSample
    treated: Flags
    share_treated: float | None


def report(index: Index, stored: Stored, now_ms: int) -> CampaignReport:
    """Return a campaign's report as of a moment, epoch milliseconds."""
    index = index.without_denying()
    found = sample(index, stored, now_ms)
    basis = _basis(found, stored)
    ratio = _ratio(basis)
    caveats = _caveats(found, basis, ratio)
    random = basis.share_treated is not None and not (ratio is not None and ratio["mismatch"])
    open_windows = int((found.at_ms + duration_ms(stored.campaign.goal.within) > now_ms).sum())
    if open_windows:
        caveats.append(f"the goal's time is not over yet for {open_windows:,} users")
    users = basis.users
    goal: Any = stored.campaign.goal.model_dump(mode="json")
    return {
        "campaign_id": stored.name,
        "as_of": iso(now_ms),
        "newest_event": iso(index.newest_ms) if index.num_events else None,
        "goal": goal,
        "basis": basis.name,
        "claim": EFFECT if random else ASSOCIATION,
        "caveats": caveats,
        "decided": found.reasons,
        "global_holdout": found.reasons.get("global_holdout", 0),
        "treated": _arm(users.only(basis.treated)),
        "control": _arm(users.only(~basis.treated)),
        "open_windows": open_windows,
        "sample_ratio": ratio,
        "conversion": _measure(users.converted.astype(np.float64), basis),
        "revenue": _measure(users.revenue, basis),
        "qini": _qini(basis, stored) if random else None,
    }


def _basis(found: ExperimentSample, stored: Stored) -> Basis:
    """Return who is compared: by the hold-out, else by the coin, else who got a message."""
    if stored.campaign.control.holdout > 0 and _two_arms(found.treated):
        return Basis("holdout", found, found.treated, 1 - stored.campaign.control.holdout)
    tossed = found.only(found.explored & found.treated)
    if _two_arms(tossed.chosen):
        return Basis("explored", tossed, tossed.chosen, 0.5)
    return Basis("association", found, found.exposed, None)


def _two_arms(treated: Flags) -> bool:
    return int(min(treated.sum(), (~treated).sum())) >= 2


def _ratio(basis: Basis) -> SampleRatio | None:
    if basis.share_treated is None:
        return None
    treated = int(basis.treated.sum())
    p = sample_ratio(treated, len(basis.treated) - treated, basis.share_treated)
    return {"expected_treated": basis.share_treated, "p": p, "mismatch": p < SRM_P}


def _caveats(found: ExperimentSample, basis: Basis, ratio: SampleRatio | None) -> list[str]:
    said = []
    if basis.share_treated is None:
        said.append("nobody was held out at random: exposed and unexposed users differ anyway")
    if ratio is not None and ratio["mismatch"]:
        said.append("the arms are not as large as the hash makes them: find out why first")
    if found.foreign:
        said.append(f"{found.foreign:,} users are left out: their arm is not the hash's")
    if found.forged:
        said.append(f"{found.forged:,} events are left out: they are no decisions of Portrait's")
    arms = [basis.users.converted[basis.treated], basis.users.converted[~basis.treated]]
    few = int(min(arm.sum() for arm in arms))
    if few < FEW:
        said.append(f"an arm has only {few} conversions: its intervals are too narrow")
    return said


def _arm(users: ExperimentSample) -> ReportArm:
    count = len(users.treated)
    revenue = float(users.revenue.sum())
    return {
        "users": count,
        "exposed": int(users.exposed.sum()),
        "converted": int(users.converted.sum()),
        "conversion": float(users.converted.mean()) if count else None,
        "revenue": round(revenue, 3),
        "revenue_per_user": revenue / count if count else None,
    }


def _measure(outcome: Doubles, basis: Basis) -> Measure | None:
    """Return the differences of an outcome, per user and for all treated users."""
    if not _two_arms(basis.treated):
        return None
    rounds = min(ROUNDS, max(200, MAX_DRAWS // len(outcome)))
    found = compare(outcome, basis.treated, basis.users.before, rounds=rounds)
    count = float(basis.treated.sum())
    return {
        "per_user": _to_response(found.plain),
        "cuped": _to_response(found.cuped),
        "incremental": _to_response(found.plain.times(count)),
        "incremental_cuped": _to_response(found.cuped.times(count)),
        "variance_removed": found.variance_removed,
    }


def _to_response(one: Difference) -> Estimate:
    return {"difference": one.value, "low": one.low, "high": one.high}


def _qini(basis: Basis, stored: Stored) -> Qini | None:
    """Return the Qini figures where treatment was random whatever the score, and there is one.

    Where users were chosen by their score, only the coin was: of those who are explored.
    """
    if stored.campaign.score is None:
        return None
    users, treated = basis.users, basis.treated
    if basis.name == "holdout" and not users.chosen.all():
        tossed = users.explored & users.treated
        users, treated = users.only(tossed), users.chosen[tossed]
    scored = np.isfinite(users.score)
    users, treated = users.only(scored), treated[scored]
    arrays = users.converted.astype(np.float64), treated, users.score
    try:
        curve = qini_curve(*arrays)
    except InvalidInputError:  # an arm is empty
        return None
    indices = np.unique(np.linspace(0, len(curve.share) - 1, _CURVE_POINTS).round().astype(int))
    return {
        "users": len(treated),
        "qini": qini(*arrays),
        "auuc": auuc(*arrays),
        "share": curve.share[indices].tolist(),
        "gain": curve.gain[indices].tolist(),
    }
