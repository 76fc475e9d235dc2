"""Coupon model: who will redeem a coupon of a campaign, and the rows it learns from.

A row is a household that a campaign was sent to, as of the launch day's midnight; the label is
whether it redeemed any of the campaign's coupons while they were valid. To learn from a campaign
it must have ended.

Belongs here: putting features, profile and learned state together. Not here: measuring
(`training.lab.studies.coupons`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from feature_repo.events.pseudonyms import Pseudonyms
from training.lab.studies.embedding import Floats, LearnedHistory, StateEncoder
from training.lab.targeting.block_model import BlockModel, FeatureRows, Setting, choose
from training.lab.targeting.campaigns import CouponCampaign, Journey
from training.lab.targeting.coupon_features import Blocks, CouponFeatures
from training.lab.targeting.profile_block import profile_block

SCALES: Final[Mapping[str, float]] = {
    "history": 1.0,
    "habits": 0.5,
    "profile": 0.3,
    "category": 0.2,
    "type": 0.07,
    "learned": 0.1,
    "match": 0.3,
}
"""Blocks of the coupon model and their scales; see `training.lab.targeting.block_model`."""
BOOSTED: Final = ("history", "habits")
SETTINGS: Final = tuple(
    Setting(breadth=breadth, boosting=boosting)
    for breadth in (1.0, 0.5)
    for boosting in (0.25, 0.0)
)
"""Chosen among on the campaigns that had ended."""
COUPONS_SENT: Final = 16
"""Coupons that a household gets of a campaign of type A, of the pool of 180 to 209."""


@dataclass(frozen=True)
class Sample:
    """A campaign's rows.

    Attributes
    ----------
    rows
        Blocks of `SCALES`, one row a target.
    known
        The features before they were put together, among them who is new to coupons.
    """

    campaign: CouponCampaign
    rows: FeatureRows
    known: Blocks


class Sampler:
    """Makes the samples of campaigns.

    Parameters
    ----------
    journey
        All tables.
    home
        State folder with Complete Journey's archive and feature tables.
    encoder
        Fitted on what lies before the first campaign that is judged.
    """

    def __init__(self, journey: Journey, home: Path, encoder: StateEncoder) -> None:
        self._features, self._home, self._encoder = CouponFeatures(journey), home, encoder
        self._pseudonyms = Pseudonyms.load(home)

    def sample(self, campaign: CouponCampaign) -> Sample:
        """Return a campaign's rows as of its launch."""
        known = self._features.at(campaign)
        users = [self._pseudonyms.of_user(f"household-{n}") for n in campaign.targets]
        launch_ms = np.full(len(users), campaign.launch.value // 1_000_000)
        learned = self._encoder.at(users, launch_ms, items=True)
        tables = {
            "history": known.history,
            "habits": known.habits,
            "profile": profile_block(self._home, users, launch_ms),
            "category": known.interests["category"],
            "type": known.interests["type"],
            "learned": _name_columns("u", learned.vector),
            "match": _name_columns("match", item_match(learned, self._encoder.items, campaign)),
        }
        rows = FeatureRows(
            {name: table.reset_index(drop=True) for name, table in tables.items()},
            campaign.redeemed.astype(np.float64),
            campaign.targets,
            np.full(len(users), campaign.number),
        )
        return Sample(campaign, rows, known)


def _name_columns(prefix: str, values: Floats) -> pd.DataFrame:
    return pd.DataFrame(values, columns=[f"{prefix}{n}" for n in range(values.shape[1])])


def item_match(learned: LearnedHistory, items: Sequence[str], campaign: CouponCampaign) -> Floats:
    """Return how likely the ranking head finds the products of a campaign's coupons.

    Returns
    -------
    ndarray
        Logs of the probabilities (of the softmax over all items) that lie in the best
        `COUPONS_SENT` coupons, in the best one, and in all products of the campaign. Shape (H, 3).
    """
    assert learned.item is not None
    index = {item: n for n, item in enumerate(items)}
    probability = np.exp(learned.item - learned.item.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    coupons = campaign.coupons.assign(row=campaign.coupons["product_id"].astype(str).map(index))
    coupons = coupons.dropna().astype({"row": np.int64})
    every = np.unique(coupons["row"].to_numpy())
    groups = [
        probability[:, g.to_numpy()].sum(axis=1) for _, g in coupons.groupby("coupon_upc")["row"]
    ]
    by_coupon = np.stack(groups, axis=1) if groups else np.zeros((len(probability), 1))
    best = -np.sort(-by_coupon, axis=1)[:, :COUPONS_SENT]
    found = [best.sum(axis=1), best[:, 0], probability[:, every].sum(axis=1)]
    out: Floats = np.log(np.stack(found, axis=1) + 1e-4).astype(np.float32)
    return out


class CouponModel:
    """Probability that a household redeems a coupon of a campaign.

    Parameters
    ----------
    without
        Blocks left out.
    """

    def __init__(self, without: Sequence[str] = ()) -> None:
        kept = {name: scale for name, scale in SCALES.items() if name not in without}
        boosted = [name for name in BOOSTED if name in kept]
        self.model = BlockModel(kept, boosted)

    def fit(self, ended: Sequence[Sample]) -> "CouponModel":
        """Fit to campaigns that have ended; settings by folds of their households.

        Raises
        ------
        InvalidInputError
            If nobody redeemed, or all did.
        """
        rows = FeatureRows.join([sample.rows for sample in ended])
        self.model.setting = choose(self.model, rows, SETTINGS)
        self.model.fit(rows)
        return self

    def probability(self, sample: Sample) -> np.ndarray:
        """Return each target's probability of redeeming, shape (H,)."""
        return self.model.probability(sample.rows)
