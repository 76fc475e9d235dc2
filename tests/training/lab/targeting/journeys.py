"""A small journey: households, purchases, three campaigns, redemptions."""

import numpy as np
import pandas as pd

from training.lab.targeting.campaigns import CouponCampaign, Journey

DAYS = 200
START = pd.Timestamp("2017-01-01")


def journey(seed: int = 0, households: int = 30) -> Journey:
    """Return purchases of half a year; whoever uses coupons redeems."""
    generator = np.random.default_rng(seed)
    count = households * 40
    lines = pd.DataFrame(
        {
            "household_id": generator.integers(1, households + 1, count),
            "basket_id": np.arange(count) // 3,
            "product_id": generator.integers(1, 31, count),
            "store_id": generator.integers(1, 4, count),
            "quantity": generator.integers(1, 3, count),
            "sales_value": generator.uniform(1, 9, count).round(2),
            "retail_disc": generator.uniform(0, 1, count).round(2),
            "coupon_match_disc": 0.0,
            "time": START + pd.to_timedelta(generator.integers(0, DAYS * 86_400, count), unit="s"),
        }
    )
    # A basket is of one household at one time, as in the real tables.
    first = lines.groupby("basket_id")[["household_id", "time"]].transform("first")
    lines[["household_id", "time"]] = first
    keen = lines["household_id"] % 3 == 0
    lines["coupon_disc"] = np.where(keen & (generator.random(count) < 0.3), 0.5, 0.0)
    products = pd.DataFrame(
        {
            "product_id": np.arange(1, 31),
            "department": np.where(np.arange(30) % 2, "GROCERY", "MEAT"),
            "brand": np.where(np.arange(30) % 3, "National", "Private"),
            "product_category": [f"C{n % 5}" for n in range(30)],
            "product_type": [f"T{n % 11}" for n in range(30)],
        }
    )
    launches = [60, 110, 160]
    redeemed = pd.DataFrame(
        [
            (h, 100 + n, n + 1, START + pd.Timedelta(days=launch + 5 + h % 7))
            for n, launch in enumerate(launches)
            for h in range(1, households + 1)
            if h % 3 == 0 and (h + n) % 5
        ],
        columns=["household_id", "coupon_upc", "campaign_id", "day"],
    )
    targets = np.arange(1, households + 1)
    campaigns = tuple(
        CouponCampaign(
            n + 1, "Type A" if n else "Type B", START + pd.Timedelta(days=launch),
            START + pd.Timedelta(days=launch + 30), targets,
            pd.DataFrame({"coupon_upc": 100 + n, "product_id": [1 + n, 2 + n, 9]}),
            np.isin(targets, redeemed.loc[redeemed["campaign_id"] == n + 1, "household_id"]),
        )
        for n, launch in enumerate(launches)
    )  # fmt: skip
    return Journey(lines, products, redeemed, campaigns)
