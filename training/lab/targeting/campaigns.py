"""Campaigns and what was bought and redeemed around them: Complete Journey's tables as one value.

Belongs here: reading and checking the tables, and which campaigns had ended when another began.
Not here: features of a household (`coupon_features`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.errors import InvalidInputError
from feature_repo.importers.complete_journey import CAMPAIGN_TABLES, read_tables

Ints = npt.NDArray[np.int64]

FIRST_DAY: Final = pd.Timestamp("2017-01-01")
LAST_DAY: Final = pd.Timestamp("2017-12-31")


@dataclass(frozen=True)
class CouponCampaign:
    """One mailing of coupons.

    Attributes
    ----------
    number, campaign_type
        Its id and type, ``Type A`` to ``Type C``.
    launch, last_day
        First and last day of validity, both included. What is known of a household at its launch
        lies before the launch day's midnight.
    targets
        Households that it was sent to, rising, shape (H,).
    coupons
        Distinct pairs ``coupon_upc``, ``product_id``.
    redeemed
        Whether each target redeemed a coupon of it, shape (H,).
    """

    number: int
    campaign_type: str
    launch: pd.Timestamp
    last_day: pd.Timestamp
    targets: Ints
    coupons: pd.DataFrame
    redeemed: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Journey:
    """Purchases, mailings and redemptions of all households.

    Attributes
    ----------
    lines
        Lines bought: ``household_id``, ``basket_id``, ``product_id``, ``store_id``, ``quantity``,
        ``sales_value``, ``retail_disc``, ``coupon_disc``, ``coupon_match_disc``, and ``time``.
    products
        ``product_id``, ``department``, ``brand``, ``product_category``, ``product_type``.
    redemptions
        ``household_id``, ``coupon_upc``, ``campaign_id``, ``day``.
    campaigns
        By launch.
    """

    lines: pd.DataFrame
    products: pd.DataFrame
    redemptions: pd.DataFrame
    campaigns: tuple[CouponCampaign, ...]

    def ended_before(self, campaign: CouponCampaign) -> list[CouponCampaign]:
        """Return the complete campaigns whose last day lies before another's launch."""
        return [e for e in self.campaigns if complete(e) and e.last_day < campaign.launch]

    def mailed_before(self, moment: pd.Timestamp) -> pd.DataFrame:
        """Return who was sent which campaign before a moment: ``household_id``, ``campaign_id``."""
        found = [
            pd.DataFrame({"household_id": each.targets, "campaign_id": each.number})
            for each in self.campaigns
            if each.launch < moment
        ]
        empty = pd.DataFrame({"household_id": [], "campaign_id": []}, dtype=np.int64)
        return pd.concat(found, ignore_index=True) if found else empty


def read_journey() -> Journey:
    """Read the tables of the installed package.

    Raises
    ------
    InvalidSourceError
        If a table or column is missing.
    InvalidInputError
        If no campaign is complete.
    """
    tables = read_tables(None, CAMPAIGN_TABLES)
    lines = tables["transactions"].rename(columns={"transaction_timestamp": "time"})
    redemptions = tables["coupon_redemptions"].rename(columns={"redemption_date": "day"})
    campaigns = _campaigns(tables, redemptions)
    if not any(complete(each) for each in campaigns):
        raise InvalidInputError("no campaign ends within the data: use the whole data set")
    columns = list(CAMPAIGN_TABLES["products"])
    return Journey(lines, tables["products"][columns], redemptions, campaigns)


def complete(campaign: CouponCampaign) -> bool:
    """Say whether all of a campaign's days, and some before them, lie in the data."""
    return campaign.launch > FIRST_DAY and campaign.last_day <= LAST_DAY


def _campaigns(
    tables: dict[str, pd.DataFrame], redemptions: pd.DataFrame
) -> tuple[CouponCampaign, ...]:
    told = tables["campaign_descriptions"].sort_values(["start_date", "campaign_id"])
    return tuple(
        _campaign(tables, redemptions, row)
        for row in told[["campaign_id", "campaign_type", "start_date", "end_date"]].itertuples(
            index=False, name=None
        )
    )


def _campaign(
    tables: dict[str, pd.DataFrame], redemptions: pd.DataFrame, row: Sequence[object]
) -> CouponCampaign:
    number, campaign_type, launch, last_day = row
    sent, coupons = tables["campaigns"], tables["coupons"]
    targets = np.unique(sent.loc[sent["campaign_id"] == number, "household_id"].to_numpy())
    used = redemptions.loc[redemptions["campaign_id"] == number, "household_id"]
    pairs = coupons.loc[coupons["campaign_id"] == number, ["coupon_upc", "product_id"]]
    return CouponCampaign(
        int(str(number)), str(campaign_type), pd.Timestamp(str(launch)),
        pd.Timestamp(str(last_day)), targets.astype(np.int64),
        pairs.drop_duplicates(ignore_index=True), np.isin(targets, used.to_numpy()),
    )  # fmt: skip
