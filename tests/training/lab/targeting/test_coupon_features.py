"""Features of a campaign: by hand from the raw lines, and untouched by what comes later."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.training.lab.targeting.journeys import journey
from training.lab.targeting.campaigns import Journey, complete, read_journey
from training.lab.targeting.coupon_features import Blocks, CouponFeatures


def same(one: Blocks, other: Blocks) -> None:
    pd.testing.assert_frame_equal(one.history, other.history)
    pd.testing.assert_frame_equal(one.habits, other.habits)
    for name, table in one.interests.items():
        pd.testing.assert_frame_equal(table, other.interests[name])
    np.testing.assert_array_equal(one.new, other.new)


def without_the_future(whole: Journey, moment: pd.Timestamp) -> Journey:
    """Change everything at or after a moment: lines dearer, with coupons, and one more; none used.

    Redemptions at or after it are gone.
    """
    lines = whole.lines.copy()
    late = lines["time"] >= moment
    lines.loc[late, ["sales_value", "coupon_disc", "quantity"]] = [99.0, 9.0, 7]
    lines.loc[late, "product_id"] = 1
    extra = lines.iloc[[0]].assign(time=moment, basket_id=10**9, coupon_disc=1.0)
    early = whole.redemptions[whole.redemptions["day"] < moment]
    return replace(whole, lines=pd.concat([lines, extra], ignore_index=True), redemptions=early)


@pytest.mark.parametrize("number", [0, 2])
def test_what_comes_later_changes_no_feature(number: int) -> None:
    whole = journey()
    campaign = whole.campaigns[number]
    expected = CouponFeatures(whole).at(campaign)
    same(expected, CouponFeatures(without_the_future(whole, campaign.launch)).at(campaign))
    # The last second before the launch does count: else the test could not fail.
    earlier = without_the_future(whole, campaign.launch - pd.Timedelta(seconds=1))
    changed = CouponFeatures(earlier).at(campaign)
    assert not expected.history.equals(changed.history)


def test_counts_by_hand() -> None:
    whole = journey()
    campaign = whole.campaigns[2]
    raw = CouponFeatures(whole).at(campaign).raw
    for household in (3, 4, 15):
        lines = whole.lines[
            (whole.lines["household_id"] == household) & (whole.lines["time"] < campaign.launch)
        ]
        used = whole.redemptions[
            (whole.redemptions["household_id"] == household)
            & (whole.redemptions["day"] < campaign.launch)
        ]
        row = raw.loc[household].fillna(0)
        assert row["num_orders"] == lines["basket_id"].nunique()
        assert row["num_coupon_lines"] == (lines["coupon_disc"] > 0).sum()
        assert row["num_redemptions"] == len(used)
        assert row["num_campaigns"] == 2
        assert row["num_campaigns_redeemed"] == used["campaign_id"].nunique()
        match = lines[lines["product_id"].isin(campaign.coupons["product_id"])]
        assert row["num_match_orders"] == match["basket_id"].nunique()
        age = (campaign.launch - lines["time"].max()) / pd.Timedelta(days=1)
        assert row["recency_days"] == pytest.approx(age)


def test_one_learns_from_what_has_ended() -> None:
    first, second, third = journey().campaigns
    names = [each.number for each in journey().ended_before(third)]
    assert names == [first.number, second.number]
    running = replace(second, last_day=third.launch)
    whole = replace(journey(), campaigns=(first, running, third))
    assert [each.number for each in whole.ended_before(third)] == [first.number]


def test_complete_journey_as_it_is() -> None:
    whole = read_journey()
    assert len(whole.campaigns) == 27
    cut_off = {
        each.number for each in whole.campaigns if each.last_day > pd.Timestamp("2017-12-31")
    }
    assert cut_off == {15, 20, 21, 22, 23}
    assert not any(complete(each) for each in whole.campaigns if each.number in {*cut_off, 24, 26})
    (large,) = (each for each in whole.campaigns if each.number == 18)
    assert (len(large.targets), int(large.redeemed.sum())) == (1133, 214)
