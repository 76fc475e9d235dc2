"""Coupon features: what is known of a campaign's targets on the day before its launch.

Three blocks a household: its history with coupons and with the campaign's products (*history*),
how it shops (*habits*), and what it buys (*interests*). Everything is computed from lines,
redemptions and mailings before the launch day's midnight; only the campaign's own list of
coupons and targets is newer. Not here: what Feast and the encoder know (`profile_block`,
`training.lab.studies.embedding`).
"""

from dataclasses import dataclass
from typing import Any, Final

import duckdb
import numpy as np
import pandas as pd

from training.lab.targeting.campaigns import CouponCampaign, Journey

NEVER_DAYS: Final = 400.0
"""Stands for the age of what never was."""
DEPARTMENTS: Final = (
    "GROCERY", "DRUG GM", "PRODUCE", "MEAT-PCKGD", "MEAT", "DELI", "PASTRY", "NUTRITION", "FUEL",
    "SEAFOOD-PCKGD", "SALAD BAR", "MISCELLANEOUS", "COSMETICS", "FLORAL", "SEAFOOD", "SPIRITS",
    "CHEF SHOPPE", "GARDEN CENTER", "TRAVEL & LEISURE", "COUPON",
)  # fmt: skip

_SEEN: Final = """
CREATE OR REPLACE TABLE seen AS
SELECT lines.*, date_diff('second', time, $cut::TIMESTAMP) / 86400.0 AS age
FROM lines SEMI JOIN targets USING (household_id) WHERE time < $cut::TIMESTAMP
"""
_HISTORY: Final = """
SELECT household_id, count(DISTINCT basket_id) AS num_orders, sum(sales_value) AS spend,
    min(age) AS recency_days,
    count(DISTINCT CASE WHEN age <= 28 THEN basket_id END) AS num_orders_28d,
    count(DISTINCT CASE WHEN age <= 84 THEN basket_id END) AS num_orders_84d,
    sum(CASE WHEN age <= 84 THEN sales_value ELSE 0 END) AS spend_84d,
    count(DISTINCT product_id) AS num_products,
    count(DISTINCT product_category) AS num_categories,
    sum((coupon_disc > 0)::INT) AS num_coupon_lines,
    sum((coupon_disc > 0 AND age <= 84)::INT) AS num_coupon_lines_84d,
    min(CASE WHEN coupon_disc > 0 THEN age END) AS coupon_recency_days,
    count(DISTINCT CASE WHEN coupon_disc > 0 THEN basket_id END)
        / count(DISTINCT basket_id) AS coupon_order_share,
    sum(coupon_disc) / greatest(sum(sales_value + retail_disc), 1) AS coupon_discount_share,
    sum(retail_disc) / greatest(sum(sales_value + retail_disc), 1) AS loyalty_discount_share
FROM seen GROUP BY household_id
"""
_REDEEMED: Final = """
SELECT household_id, count(*) AS num_redemptions,
    min(date_diff('day', day, $cut::TIMESTAMP)) AS redemption_recency_days,
    sum(pow(0.5, date_diff('day', day, $cut::TIMESTAMP) / 60.0)) AS num_redemptions_decayed
FROM redemptions WHERE day < $cut::TIMESTAMP GROUP BY household_id
"""
_MAILED: Final = """
SELECT household_id, count(*) AS num_campaigns, sum(used) AS num_campaigns_redeemed,
    sum((kind = $kind)::INT) AS num_campaigns_of_type,
    sum(CASE WHEN kind = $kind THEN used ELSE 0 END) AS num_campaigns_of_type_redeemed,
    sum((kind = 'Type A')::INT) AS num_campaigns_a, sum((kind = 'Type B')::INT) AS num_campaigns_b,
    sum((kind = 'Type C')::INT) AS num_campaigns_c,
    sum((last_day >= $cut::TIMESTAMP)::INT) AS num_campaigns_running
FROM mailed JOIN kinds USING (campaign_id) LEFT JOIN (
    SELECT DISTINCT household_id, campaign_id, 1 AS used FROM redemptions
    WHERE day < $cut::TIMESTAMP
) USING (household_id, campaign_id) GROUP BY household_id
"""
_MATCH: Final = """
SELECT household_id, count(DISTINCT basket_id) AS num_match_orders,
    sum(sales_value) AS match_spend, count(DISTINCT product_id) AS num_match_products,
    min(age) AS match_recency_days, sum(pow(0.5, age / 56)) AS num_match_lines_decayed,
    count(DISTINCT CASE WHEN age <= 84 THEN basket_id END) AS num_match_orders_84d,
    sum((coupon_disc > 0)::INT) AS num_match_coupon_lines
FROM seen SEMI JOIN offered USING (product_id) GROUP BY household_id
"""
_HABITS: Final = """
SELECT household_id, {departments},
    sum(CASE WHEN brand = 'Private' THEN sales_value ELSE 0 END) / greatest(sum(sales_value), 1)
        AS private_share,
    avg(sales_value) AS mean_line_value, avg(quantity) AS mean_quantity,
    avg(hour(time)) AS mean_hour, stddev_pop(hour(time)) AS std_hour,
    avg((isodow(time) > 5)::INT) AS weekend_share,
    sum(coupon_match_disc) / greatest(sum(sales_value), 1) AS match_discount_share,
    sum(sales_value) / count(DISTINCT basket_id) AS mean_order_value,
    count(DISTINCT store_id) AS num_stores
FROM seen GROUP BY household_id
"""
_BY_ORDER: Final = """
SELECT household_id, max(coupons) AS most_coupons, sum((coupons >= 2)::INT) AS num_orders_2_coupons,
    coalesce(avg(CASE WHEN coupons > 0 THEN coupons END), 0) AS mean_coupons,
    sum((coupons > 0 AND age <= 14)::INT) AS num_coupon_orders_14d,
    sum((coupons > 0 AND age <= 84)::INT) / greatest(sum((age <= 84)::INT), 1)
        AS coupon_order_share_84d
FROM (SELECT household_id, min(age) AS age, sum((coupon_disc > 0)::INT) AS coupons
      FROM seen GROUP BY household_id, basket_id) GROUP BY household_id
"""
_INTERESTS: Final = """
SELECT household_id, {level} AS key, count(DISTINCT basket_id) AS baskets
FROM seen WHERE {level} IS NOT NULL GROUP BY ALL
"""


@dataclass(frozen=True)
class Blocks:
    """Features of a campaign's targets, a row each in their order.

    Attributes
    ----------
    history, habits
        Logs of counts and amounts, shares as they are.
    interests
        By product category √(share of baskets with it), by product type log(1 + baskets).
    new
        Whether the household had redeemed no coupon before the launch, shape (H,).
    raw
        Counts and days as they are, for rules of thumb.
    """

    history: pd.DataFrame
    habits: pd.DataFrame
    interests: dict[str, pd.DataFrame]
    new: Any
    raw: pd.DataFrame


class CouponFeatures:
    """Computes `Blocks`, by DuckDB over a journey's tables."""

    def __init__(self, journey: Journey) -> None:
        self._journey = journey
        self._connection = duckdb.connect()
        self._connection.execute("SET threads = 2")
        self._keep("lines", journey.lines.merge(journey.products, on="product_id", how="left"))
        self._keep("redemptions", journey.redemptions)
        types = [(c.number, c.campaign_type, c.last_day) for c in journey.campaigns]
        self._keep("kinds", pd.DataFrame(types, columns=["campaign_id", "kind", "last_day"]))

    def _keep(self, name: str, frame: pd.DataFrame) -> None:
        self._connection.register("given", frame)
        self._connection.execute(f"CREATE OR REPLACE TABLE {name} AS FROM given")
        self._connection.unregister("given")

    def at(self, campaign: CouponCampaign) -> Blocks:
        """Return the features of a campaign's targets before its launch."""
        self._keep("targets", pd.DataFrame({"household_id": campaign.targets}))
        self._keep("mailed", self._journey.mailed_before(campaign.launch))
        self._keep("offered", campaign.coupons[["product_id"]].drop_duplicates())
        cut = {"cut": campaign.launch.to_pydatetime()}
        self._connection.execute(_SEEN, cut)
        raw = self._rows(campaign, _HISTORY).join(
            [
                self._rows(campaign, _REDEEMED, cut),
                self._rows(campaign, _MAILED, {**cut, "kind": campaign.campaign_type}),
                self._rows(campaign, _MATCH),
            ]
        )
        departments = ", ".join(
            f"sum(CASE WHEN department = '{name}' THEN sales_value ELSE 0 END) "
            f'/ greatest(sum(sales_value), 1) AS "{name}"'
            for name in DEPARTMENTS
        )
        habits = self._rows(campaign, _HABITS.format(departments=departments)).join(
            self._rows(campaign, _BY_ORDER)
        )
        new = raw["num_redemptions"].fillna(0).to_numpy() == 0
        orders = raw["num_orders"].fillna(0).to_numpy()
        return Blocks(
            _history(raw, campaign),
            _habits(habits, raw),
            self._interests(campaign, orders),
            new,
            raw,
        )

    def _rows(
        self, campaign: CouponCampaign, query: str, values: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        found: pd.DataFrame = self._connection.execute(query, values or {}).df()
        return found.set_index("household_id").reindex(campaign.targets).astype(np.float64)

    def _interests(self, campaign: CouponCampaign, orders: Any) -> dict[str, pd.DataFrame]:
        tables = {}
        for level in ("product_category", "product_type"):
            found = self._connection.execute(_INTERESTS.format(level=level)).df()
            wide = found.pivot_table(index="household_id", columns="key", values="baskets")
            tables[level] = wide.reindex(campaign.targets).fillna(0.0).add_prefix(f"{level}:")
        category = np.sqrt(tables["product_category"].div(orders + 5.0, axis=0))
        return {"category": category, "type": np.log1p(tables["product_type"])}


_SHARES: Final = ("coupon_order_share", "coupon_discount_share", "loyalty_discount_share")


def _history(raw: pd.DataFrame, campaign: CouponCampaign) -> pd.DataFrame:
    """Return RFM, coupon history and product match; see `Blocks`."""
    out = {}
    for name in raw:
        if str(name).startswith("num_campaigns_") and name != "num_campaigns_redeemed":
            continue
        empty = NEVER_DAYS if str(name).endswith("recency_days") else 0.0
        column = raw[name].fillna(empty).clip(0, NEVER_DAYS if empty else None)
        out[str(name)] = column if name in _SHARES else np.log1p(column)
    filled = raw.fillna(0.0)
    out["match_share"] = filled["match_spend"] / filled["spend"].clip(lower=1.0)
    # Rates are shrunk to a tenth, as if by one campaign more.
    for of in ("num_campaigns", "num_campaigns_of_type"):
        out[f"{of}_rate"] = (filled[f"{of}_redeemed"] + 0.1) / (filled[of] + 1.0)
    count = float(campaign.coupons["coupon_upc"].nunique())
    days = float((campaign.last_day - campaign.launch).days)
    for name, value in (
        ("num_coupons", np.log1p(count)), ("days", days),
        ("type_a", float(campaign.campaign_type == "Type A")),
        ("type_c", float(campaign.campaign_type == "Type C")),
    ):  # fmt: skip
        out[name] = pd.Series(value, index=raw.index)
    return pd.DataFrame(out)


def _habits(habits: pd.DataFrame, raw: pd.DataFrame) -> pd.DataFrame:
    mailed = [f"num_campaigns_{suffix}" for suffix in ("a", "b", "c", "running")]
    logs = np.log1p(habits.join(raw[mailed]).fillna(0.0).clip(lower=0.0))
    return pd.DataFrame(logs)
